"""The curation of a probing set: people accept, edit or reject each pair, and the accepted ones are a new set, known by its digest.

The decisions stand in a log like an audit's (see `decisions`), append-only and hash-chained, under the digest of the source in place of
an audit's id. Each says what the pair was when it was judged, an edit also what it is since. A pair stands as its latest edit made it,
unless that is undone; on the pair as it stands the latest decision holds, whoever made it. So nothing is accepted that nobody has seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from biasdiff_core.config.data import ProbeConfig
from biasdiff_core.config.generation import PairRules
from biasdiff_core.corpus.card import csv_content, write_with_card
from biasdiff_core.corpus.examples import Probe
from biasdiff_core.corpus.generation.judge import Judge, Rejection
from biasdiff_core.corpus.generation.output import COLUMNS
from biasdiff_core.corpus.generation.parse import Candidate
from biasdiff_core.corpus.probes import DEMO_FILE, SPLIT, hashed_sample, read_probes
from biasdiff_core.corpus.sources import open_source, source_digest
from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import PAIR_VERDICTS, Action, Decision, DecisionLog, PairVerdict, decisions_of, fold
from biasdiff_core.version import __version__
from biasdiff_core.workspace.artefacts import digest_bytes, digest_json
from biasdiff_core.workspace.database import Database

State = Literal["undecided", "accepted", "edited", "rejected"]
STATES: tuple[str, ...] = get_args(State)
PAIR, GROUP = COLUMNS[:3], "group"  # what a pair consists of; the words that its twin replaces
ORIGIN = COLUMNS[3:]  # of a source that has them: where its pairs come from
CURATION = "curation"  # the column that says which pairs were edited
RULES, SEED = PairRules(), 0


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """What is curated. `digest`: SHA-256 of the source, the version of the set; `notes`: which rows were left out, and why.

    `pairs`: by id, in the order of the source; the id of a pair is a hash of text, twin and bias type. `origins`: by the same ids, the
    cells of those of the columns `ORIGIN` that there are.
    """

    path: str
    digest: str
    pairs: Mapping[str, Probe]
    origins: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...]


def read_pairs(config: ProbeConfig) -> PairSource:
    """All pairs of a probing set, also where the config takes a sample of them. Raises DataError as `read_probes`."""
    probes, notes = read_probes(replace(config, limit=None))
    origins = _origins(config)
    pairs = [replace(probe, id=digest_json(_texts(probe))[:16]) for probe in probes]
    return PairSource(
        path=config.path,
        digest=source_digest(config.path, demo=DEMO_FILE),
        pairs={pair.id: pair for pair in pairs},
        origins={pair.id: origins[pair.text] for pair in pairs},
        notes=tuple(notes),
    )


def _origins(config: ProbeConfig) -> dict[str, dict[str, str]]:
    """By text, the cells of the columns `ORIGIN`; of a text that is repeated, those of its first row, as `read_probes` takes it."""
    table = open_source(config.path, SPLIT, demo=DEMO_FILE)
    read = (config.text_column, config.twin_column, config.bias_type_column)
    columns = [name for name in ORIGIN if name in table.columns() and name not in read]
    found: dict[str, dict[str, str]] = {}
    for row in table.rows([config.text_column, *columns]):
        cells = {name: "" if row.cells.get(name) is None else str(row.cells[name]) for name in columns}
        found.setdefault(row.cells.get(config.text_column) or "", cells)
    return found


def _texts(pair: Probe) -> dict[str, str | None]:
    return {name: getattr(pair, name) for name in PAIR}


@dataclass(frozen=True, kw_only=True)
class CuratedPair:
    """A pair of the source, the edit of it that holds and the decision that holds, None where there is none."""

    source: Probe
    edit: Decision | None
    decision: Decision | None

    @cached_property
    def pair(self) -> Probe:
        """The pair as it stands: with the texts and bias type of the edit, and the id that it has in the source."""
        return self.source if self.edit is None else replace(self.source, **{name: _after(self.edit)[name] for name in PAIR})

    @property
    def state(self) -> State:
        """A pair counts as edited while its texts or its bias type are not those of the source."""
        if self.decision is None:
            return "undecided"
        if self.decision.verdict == "reject":
            return "rejected"
        return "accepted" if self.pair == self.source else "edited"

    @property
    def kept(self) -> bool:
        """Whether it belongs to the result."""
        return self.state in ("accepted", "edited")


def counts_by_type(pairs: Iterable[CuratedPair]) -> dict[str, dict[str, int]]:
    """Number of pairs in each state, by bias type in alphabetical order."""
    counts: dict[str, dict[str, int]] = {}
    for curated in pairs:
        counts.setdefault(curated.pair.bias_type, dict.fromkeys(STATES, 0))[curated.state] += 1
    return dict(sorted(counts.items()))


def kept_by_type(pairs: Iterable[CuratedPair]) -> dict[str, int]:
    """Number of pairs in the result, by bias type in alphabetical order, none left out."""
    return {bias_type: states["accepted"] + states["edited"] for bias_type, states in counts_by_type(pairs).items()}


def queue(pairs: Iterable[CuratedPair], state: State, bias_type: str | None = None) -> list[CuratedPair]:
    """Pairs in this state, of one bias type or all, in the order of the source; undecided ones of the type least accepted so far first.

    So the types of the result come out balanced by themselves as long as there are pairs enough.
    """
    every = list(pairs)
    chosen = [curated for curated in every if curated.state == state and bias_type in (None, curated.pair.bias_type)]
    if state != "undecided":
        return chosen
    kept = kept_by_type(every)
    return sorted(chosen, key=lambda curated: (kept[curated.pair.bias_type], curated.pair.bias_type))


class Curation:
    """The curation of one source. Many processes may decide at once."""

    def __init__(self, db: Database, source: PairSource) -> None:
        self.source = source
        self.log = DecisionLog(db, f"probes:{source.digest}", verdicts=PAIR_VERDICTS)
        self._read: tuple[int, tuple[Decision, ...]] = (0, ())
        self._folded: tuple[str, dict[str, CuratedPair]] = ("", {})

    def pairs(self) -> dict[str, CuratedPair]:
        """Every pair as it stands, by id, in the order of the source. Only actions newer than the last call are read."""
        head = self.log.head()[1]
        if head != self._folded[0]:
            self._folded = (head, self._fold())
        return dict(self._folded[1])

    def _fold(self) -> dict[str, CuratedPair]:
        decisions = self._decisions()
        actions = self.log.actions()
        edits = fold(actions, (decision for decision in decisions if decision.verdict == "edit"))
        pairs = {id_: CuratedPair(source=pair, edit=edits.get(id_), decision=None) for id_, pair in self.source.pairs.items()}
        # The log may hold pairs of this source that other columns make.
        on_these = (d for d in decisions if d.example_id in pairs and _judged(d) == _texts(pairs[d.example_id].pair))
        return pairs | {id_: replace(pairs[id_], decision=decision) for id_, decision in fold(actions, on_these).items()}

    def _decisions(self) -> tuple[Decision, ...]:
        """All decisions, oldest first, those of undone actions too."""
        number, known = self._read
        links = self.log.links(after=number)
        if links:
            self._read = (links[-1]["number"], (*known, *(decision for link in links for decision in decisions_of(link))))
        return self._read[1]

    def accept(self, seen: Probe, auditor: str) -> Action:
        """Accept a pair as it was shown (a `CuratedPair.pair`). Raises ReviewError when somebody has edited it since."""
        self._checked(seen)
        return self._record("accept", seen, auditor)

    def reject(self, seen: Probe, auditor: str) -> Action:
        """Leave a pair out. Raises ReviewError as `accept`."""
        self._checked(seen)
        return self._record("reject", seen, auditor)

    def edit(self, seen: Probe, text: str, twin: str, bias_type: str, auditor: str) -> Action:
        """Change a pair and accept it. Raises ReviewError, also when the new pair breaks a rule that generated pairs keep to.

        It is held against the other pairs that are not rejected, as they stand.
        """
        standing = self._checked(seen)
        others = [curated.pair for id_, curated in standing.items() if id_ != seen.id and curated.state != "rejected"]
        known = {"another pair": (text for other in others for text in (other.text, other.twin) if text)}
        judge = Judge(RULES, known, english=False)  # a probing set of any language is curated
        found = judge.judge(Candidate(cells={"text": text, "twin": twin, "bias_type": bias_type}, raw=text))
        if isinstance(found, Rejection):
            detail = f" ({found.detail})" if found.detail else ""
            raise ReviewError(f"The edit was refused: {found.reason}{detail}.", "Correct it; the pair is as it was.")
        if (found.text, found.twin, found.bias_type) == (seen.text, seen.twin, seen.bias_type):
            raise ReviewError("The edit changes nothing.", "Accept the pair as it is.")
        return self._record("edit", seen, auditor, {"after": asdict(found)})

    def undo(self, auditor: str) -> str:
        """Take back the last action of this auditor that stands; the id of its pair. Raises ReviewError when there is none."""
        undone = self.log.undo(auditor).undoes
        return next(decision.example_id for decision in self._decisions() if decision.action_id == undone)

    def result(self, per_type: int | None = None) -> CuratedSet:
        """The accepted pairs as a probing set; with `per_type`, a seeded sample of at most so many of each bias type.

        Raises ReviewError when there is none, one repeats, or the log does not verify.
        """
        broken = self.log.verify()
        if broken:
            raise ReviewError(f"The decisions on {self.source.path} do not verify: {broken[0]}.", "Restore the database from a copy.")
        number, head = self.log.head()
        pairs = self.pairs()
        kept = {id_: curated for id_, curated in pairs.items() if curated.kept}
        if not kept:
            raise ReviewError(f"No pair of {self.source.path} is accepted.", "Accept some on the page Probes.")
        repeated = [text for text, times in Counter(curated.pair.text for curated in kept.values()).items() if times > 1]
        if repeated:
            raise ReviewError(f"Two accepted pairs have the text {repeated[0]!r:.80}.", "Reject one of them, or edit it.")
        if per_type is not None:
            kept = {id_: kept[id_] for id_ in _balanced([curated.pair for curated in kept.values()], per_type)}
        carried = tuple(next(iter(self.source.origins.values())))
        columns = (*PAIR, *carried, CURATION)
        rows = tuple(_row(curated, self.source.origins[id_]) for id_, curated in kept.items())
        card = CurationCard(
            source=self.source.path,
            source_digest=self.source.digest,
            digest=digest_bytes(csv_content(columns, rows)),
            pairs=len(rows),
            per_type=per_type,
            by_type=counts_by_type(pairs.values()),
            auditors=tuple(sorted({curated.decision.auditor for curated in pairs.values() if curated.decision})),
            actions=number,
            decision_head=head,
        )
        return CuratedSet(columns=columns, rows=rows, card=card)

    def _record(self, verdict: PairVerdict, seen: Probe, auditor: str, change: Mapping[str, Mapping[str, str]] | None = None) -> Action:
        return self.log.decide(seen.id, verdict, auditor, selection={"before": _texts(seen), **(change or {})})

    def _checked(self, seen: Probe) -> dict[str, CuratedPair]:
        """The pairs as they stand, among them the one that was seen."""
        pairs = self.pairs()
        if seen.id not in pairs:
            raise ReviewError(f"There is no pair {seen.id} in {self.source.path}.", "Use a pair of `pairs()`.")
        if pairs[seen.id].pair != seen:
            raise ReviewError("The pair was edited, or an edit of it undone, since it was shown.", "Look at it again.")
        return pairs


def _judged(decision: Decision) -> dict[str, Any]:
    """The pair that a decision speaks of: as it was seen, or as an edit made it."""
    pair = _after(decision) if decision.verdict == "edit" else (decision.selection or {}).get("before", {})
    return {name: pair.get(name) for name in PAIR}


def _after(edit: Decision) -> Mapping[str, str]:
    """Texts, bias type and group that an edit gave a pair. Raises ReviewError when the log says nothing of them."""
    after: Any = (edit.selection or {}).get("after")
    if not isinstance(after, dict) or not {*PAIR, GROUP} <= after.keys():
        raise ReviewError(f"The edit by {edit.auditor} of {edit.created} holds no pair: {after!r:.60}.", "Verify the log.")
    return after


def _balanced(pairs: Sequence[Probe], per_type: int) -> list[str]:
    """Ids, in order, of at most so many pairs of each bias type."""
    kinds = dict.fromkeys(pair.bias_type for pair in pairs)
    drawn = {pair.id for kind in kinds for pair in hashed_sample([one for one in pairs if one.bias_type == kind], per_type, SEED)}
    return [pair.id for pair in pairs if pair.id in drawn]


def _row(curated: CuratedPair, origin: Mapping[str, str]) -> tuple[str, ...]:
    """Cells of the result. Of an edited pair the group is the words that its twin replaces; the rest of its origin stays."""
    cells = dict(origin)
    if curated.edit is not None and curated.state == "edited" and GROUP in cells:
        cells[GROUP] = _after(curated.edit)[GROUP]
    pair = curated.pair
    return pair.text, pair.twin or "", pair.bias_type, *cells.values(), curated.state


@dataclass(frozen=True, kw_only=True)
class CurationCard:
    """What stands beside a curated set.

    `source_digest`, `digest`: SHA-256 of the source and of the result's bytes. `pairs`: of the result. `by_type`: number of pairs of the
    source in each state. `auditors`: whose decisions hold. `actions`, `decision_head`: length of the log and the hash of its last link.
    `per_type`: the most pairs of a bias type in the result, where it was limited.
    """

    source: str
    source_digest: str
    digest: str
    pairs: int
    by_type: Mapping[str, Mapping[str, int]]
    auditors: tuple[str, ...]
    actions: int
    decision_head: str
    per_type: int | None = None
    biasdiff: str = __version__

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The card in words, a fact a line."""
        totals = {state: sum(states[state] for states in self.by_type.values()) for state in STATES}
        return [
            f"source: {self.source}, SHA-256 {self.source_digest}",
            ", ".join(f"{number:,} {state}" for state, number in totals.items()),
            *(f"{name}: {', '.join(f'{number} {state}' for state, number in states.items())}" for name, states in self.by_type.items()),
            f"decided by {', '.join(self.auditors)}: {self.actions:,} actions, the last with the hash {self.decision_head}",
            *(
                []
                if self.per_type is None
                else [f"at most {self.per_type} of each bias type are taken, by the least hashes of seed {SEED} and id"]
            ),
            f"{self.pairs:,} pairs in the result, SHA-256 {self.digest}",
        ]


@dataclass(frozen=True, kw_only=True)
class CuratedSet:
    """The accepted pairs as rows of a CSV that an audit reads, in the order of the source, with their card.

    Columns: those of a pair, those of `ORIGIN` that the source has, and `CURATION`, which says `accepted` or `edited`.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    card: CurationCard

    @cached_property
    def content(self) -> bytes:
        """The CSV; the same decisions on the same source give the same bytes."""
        return csv_content(self.columns, self.rows)

    def write(self, target: Path) -> Path:
        """Write the CSV to `target` and the card beside it; the card's path. Raises DataError as `write_with_card`."""
        return write_with_card(target, self.content, self.card.to_json())
