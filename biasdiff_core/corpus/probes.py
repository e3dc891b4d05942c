"""Reading the probing set D_diff with its anti-stereotype twins, and where it leaks into corpus or evaluation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from biasdiff_core.config import ProbeConfig
from biasdiff_core.corpus.examples import Corpus, Probe, ProbeSet, content_id
from biasdiff_core.corpus.formats import Row, Table
from biasdiff_core.corpus.refusals import SAME_TWIN, Flaw, Refusals, flaw_of, listed, rows_of
from biasdiff_core.corpus.sources import open_source, require_columns
from biasdiff_core.corpus.summary import normalised
from biasdiff_core.errors import BiasDiffError, DataError
from biasdiff_core.workspace.artefacts import digest_bytes

DEMO_FILE = "probes.csv"
SPLIT = "train"


def read_probes(config: ProbeConfig) -> tuple[ProbeSet, list[str]]:
    """(probes in source order, notes). The notes say which rows were left out, and why.

    The id of a probe is that of its text (`content_id`); rows that repeat the text of an earlier one are dropped. With
    `config.limit`, the sample is the probes with the least SHA-256 of seed and id: neither the order of the rows nor the
    version of a random generator changes it. Raises DataError as `read_corpus` does, also for a twin equal to its probe.
    """
    table = open_source(config.path, SPLIT, demo=DEMO_FILE)
    names = (config.text_column, config.twin_column, config.bias_type_column)
    wanted = list(dict.fromkeys(name for name in names if name is not None))
    require_columns(table, config.path, wanted)
    found, left_out = _found(table, wanted, config)
    if not found:
        raise DataError(
            f"{config.path} holds no probe: no row has text in {config.text_column!r}.", "Give at least one stereotyped sentence."
        )
    notes = [f"{rows_of(len(lines))} {why}: {listed(lines, table.unit)}." for why, lines in left_out.items()]
    spellings = Counter(kind.casefold() for kind in {probe.bias_type for probe in found})
    notes += [
        f"The bias type {kind!r} is spelt in {count} ways, which count as {count} types." for kind, count in spellings.items() if count > 1
    ]
    if config.limit is not None and config.limit < len(found):
        notes.append(f"A sample of {config.limit} of {len(found)} probes, seed {config.seed}.")
        found = hashed_sample(found, config.limit, config.seed)
    return ProbeSet(probes=tuple(found)), notes


def _found(table: Table, wanted: Collection[str], config: ProbeConfig) -> tuple[list[Probe], Mapping[str, list[int]]]:
    """(all distinct probes, lines by the reason of a note). Raises DataError listing every faulty row."""
    refusals = Refusals(config.path, table.unit)
    probes: dict[str, Probe] = {}
    noted: defaultdict[str, list[int]] = defaultdict(list)
    for row in table.rows(wanted):
        flaw = row.flaw or _flaw(row, config)
        if flaw:
            refusals.add(flaw, row.line)
            continue
        probe = _probe(row, config)
        if not probe.text.strip():
            noted["without text left out"].append(row.line)
        elif probe.id in probes:
            noted["repeating the text of an earlier probe left out"].append(row.line)
        else:
            probes[probe.id] = probe
            if config.twin_column and probe.twin is None:
                noted["without a twin kept"].append(row.line)
            if config.bias_type_column and not (row.cells.get(config.bias_type_column) or "").strip():
                noted["without a bias type counted as `all`"].append(row.line)
    refusals.raise_any()
    return list(probes.values()), noted


def _flaw(row: Row, config: ProbeConfig) -> Flaw | None:
    flaw = flaw_of(*row.cells.values())
    if flaw:
        return flaw
    probe = _probe(row, config)
    return (SAME_TWIN, "") if probe.twin is not None and normalised(probe.twin) == normalised(probe.text) else None


def _probe(row: Row, config: ProbeConfig) -> Probe:
    text = row.cells.get(config.text_column) or ""
    twin = row.cells.get(config.twin_column) or "" if config.twin_column else ""
    bias_type = row.cells.get(config.bias_type_column) or "" if config.bias_type_column else ""
    return Probe(id=content_id(None, text, 0), text=text, twin=twin if twin.strip() else None, bias_type=bias_type.strip() or "all")


def hashed_sample(probes: Sequence[Probe], size: int, seed: int) -> list[Probe]:
    """The `size` probes with the least SHA-256 of seed and id, in their order; all where there are fewer."""
    chosen = sorted(probes, key=lambda probe: digest_bytes(f"{seed}:{probe.id}".encode()))[:size]
    ids = {probe.id for probe in chosen}
    return [probe for probe in probes if probe.id in ids]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A probe's text or twin that stands elsewhere. `found`: the id of the training example, or the evaluation text."""

    probe: str
    part: Literal["text", "twin"]
    found: str


@dataclass(frozen=True, kw_only=True)
class LeakageReport:
    """Where the probing set is not disjoint: in the corpus, and in texts that the evaluation scores, or why that is not known."""

    in_corpus: tuple[Leak, ...]
    in_evaluation: tuple[Leak, ...] | BiasDiffError


def leakage(probes: ProbeSet, corpus: Corpus, evaluation: Collection[str] | BiasDiffError = ()) -> LeakageReport:
    """Probes and twins that are equal, once normalised, to a training text (alone or after its prompt) or a text of the evaluation.

    `evaluation`: the texts that it scores, or the error for which they cannot be read.
    """
    places: defaultdict[str, list[str]] = defaultdict(list)
    for example in corpus:
        forms = {normalised(example.text), normalised(f"{example.prompt or ''} {example.text}")}
        for form in forms:
            places[form].append(example.id)
    in_corpus = tuple(_leaks(probes, places))
    if isinstance(evaluation, BiasDiffError):
        return LeakageReport(in_corpus=in_corpus, in_evaluation=evaluation)
    scored: defaultdict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(evaluation):
        scored[normalised(text)].append(text)
    return LeakageReport(in_corpus=in_corpus, in_evaluation=tuple(_leaks(probes, scored)))


def _leaks(probes: ProbeSet, places: Mapping[str, list[str]]) -> Iterator[Leak]:
    for probe in probes:
        yield from (Leak(probe=probe.id, part="text", found=found) for found in places.get(normalised(probe.text), ()))
        if probe.twin is not None:
            yield from (Leak(probe=probe.id, part="twin", found=found) for found in places.get(normalised(probe.twin), ()))
