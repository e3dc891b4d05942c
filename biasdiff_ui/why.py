"""Why an example stands where it stands: nearest probes and their twins, word differences, duplicates, what lies near it, other ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.attribution.baselines import WORD
from biasdiff_core.review.decisions import Decision
from biasdiff_ui.checkpoints import Ranks
from biasdiff_ui.examples import Examples, Probe
from biasdiff_ui.verdicts import UNDECIDED, WORDS

Segment = tuple[str, bool]
COSINES = ("cosine", "cosine to twin")
NEIGHBOURS = 5  # on the map, and duplicates that are listed
EXCERPT = 100  # letters of each
SCORER_HELP = {
    "mean": "mean cosine to the probes",
    "centred": "mean cosine to the probes less that to the corpus",
    "contrast": "mean cosine to the probes less that to their twins",
    "loss": "loss of the warmed-up model",
    "length": "shorter first",
    "unigram": "words that probes use more than the corpus",
    "repsim": "mean hidden state like that of the probes (RepSim)",
    "random": "by chance",
}


@dataclass(frozen=True, kw_only=True)
class Near:
    """A probe near to an example, and the cosines to it and to its twin (None: not known, or no twin)."""

    id: str
    probe: Probe
    cosine: float
    twin_cosine: float | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What explains one example. `nearest`: best first; `scorers`: name, score, rank; `neighbours`: ids, nearest on the map first."""

    id: str
    rank: int
    score: float
    text: str
    prompt: str
    source: str
    group: str
    tokens: int
    nearest: tuple[Near, ...]
    difference: tuple[Segment, ...]
    duplicates: tuple[str, ...]
    neighbours: tuple[str, ...]
    scorers: tuple[tuple[str, float, int], ...]


def evidence(examples: Examples, id_: str) -> Evidence:
    """All that is known about why the example has its rank. Raises KeyError for an id without one."""
    row = examples.table.iloc[examples.place[id_]]
    top = examples.top_probes.loc[[id_]] if id_ in examples.top_probes.index else examples.top_probes.iloc[:0]
    nearest = tuple(
        Near(id=probe, probe=examples.probes[probe], cosine=cosine, twin_cosine=None if np.isnan(twin) else twin)
        for probe, cosine, twin in top.astype({"cosine": float, "twin_cosine": float}).itertuples(index=False)
    )
    return Evidence(
        id=id_,
        rank=int(row["rank"]),
        score=float(row["score"]),
        text=row["text"],
        prompt=row["prompt"] if isinstance(row["prompt"], str) else "",
        source=row["source"],
        group=row["group"],
        tokens=int(row["tokens"]),
        nearest=nearest,
        difference=word_difference(row["text"], nearest[0].probe.text) if nearest else (),
        duplicates=tuple(other for other in examples.duplicates.get(id_, ()) if other in examples.place),
        neighbours=examples.map_neighbours(id_, NEIGHBOURS),
        scorers=tuple((name, float(row[name]), int(row[f"rank:{name}"])) for name in examples.scorers),
    )


def word_difference(text: str, probe: str) -> tuple[Segment, ...]:
    """The probe cut into pieces, each with whether its words stand in `text` too, in the same order and regardless of case.

    White space and punctuation go with the word before; the pieces joined are the probe.
    """
    starts = [match.start() for match in WORD.finditer(probe)]
    if not starts:
        return ((probe, False),) if probe else ()
    cuts = [0, *starts[1:], len(probe)]
    pieces = [probe[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    own = [match.group().casefold() for match in WORD.finditer(text)]
    other = [match.group().casefold() for match in WORD.finditer(probe)]
    shared = [False] * len(other)
    for block in SequenceMatcher(None, own, other, autojunk=False).get_matching_blocks():
        shared[block.b : block.b + block.size] = [True] * block.size
    return _merged(pieces, shared)


def _merged(pieces: Sequence[str], shared: Sequence[bool]) -> tuple[Segment, ...]:
    merged: list[Segment] = []
    for piece, flag in zip(pieces, shared, strict=True):
        if merged and merged[-1][1] == flag:
            merged[-1] = (merged[-1][0] + piece, flag)
        else:
            merged.append((piece, flag))
    return tuple(merged)


def card_record(found: Evidence, total: int) -> dict[str, Any]:
    """Plain values of what the review card shows of one example; probes and other examples by id (`probe_record`, `other_records`)."""
    return {
        "id": found.id,
        "rank": found.rank,
        "total": total,
        "score": round(found.score, 5),
        "text": found.text,
        "prompt": found.prompt,
        "source": found.source,
        "group": found.group,
        "tokens": found.tokens,
        "nearest": [[near.id, round(near.cosine, 4), _rounded(near.twin_cosine)] for near in found.nearest],
        "difference": [[piece, flag] for piece, flag in found.difference],
        "copies": len(found.duplicates),
        "duplicates": found.duplicates[:NEIGHBOURS],
        "neighbours": found.neighbours,
        "scorers": [[name, rank] for name, _, rank in found.scorers],
        "contrast": next((round(score, 5) for name, score, _ in found.scorers if name == "contrast"), None),
    }


def _rounded(cosine: float | None) -> float | None:
    return None if cosine is None else round(cosine, 4)


@lru_cache(maxsize=4096)
def probe_record(probe: Probe) -> list[Any]:
    """Text and twin, each cut into pieces with whether they stand in the other too, and the bias type."""
    if not probe.twin:
        return [[[probe.text, True]], [], probe.bias_type]
    return [word_difference(probe.twin, probe.text), word_difference(probe.text, probe.twin), probe.bias_type]


def other_records(examples: Examples, cards: Sequence[Mapping[str, Any]], decisions: Mapping[str, Decision]) -> dict[str, list[Any]]:
    """Rank, beginning of the text and decision in words of every duplicate and neighbour that the cards name, by id."""
    named = {id_ for card in cards for id_ in (*card["duplicates"], *card["neighbours"])}
    return {id_: [*_other(examples, id_), WORDS[decisions[id_].verdict if id_ in decisions else UNDECIDED]] for id_ in sorted(named)}


@lru_cache(maxsize=32768)
def _other(examples: Examples, id_: str) -> tuple[int, str]:
    row = examples.place[id_]
    text = examples.table["text"].iloc[row]
    return row + 1, text[:EXCERPT] + (" …" if len(text) > EXCERPT else "")


def draw_evidence(found: Evidence, examples: Examples, ranks: Ranks) -> None:
    """The example, its figures, its duplicates and its rank at each checkpoint, as inert text."""
    with st.container(border=True):
        if found.prompt:
            st.caption("Prompt")
            st.text(found.prompt)
        st.text(found.text)
    st.caption(f"rank {found.rank} of {len(examples.ids)} · score {found.score:.4f} · {found.tokens} tokens")
    st.text(f"source: {found.source}, group: {found.group}")
    if found.difference:
        only = " … ".join(piece.strip() for piece, shared in found.difference if not shared)
        st.caption("The closest probe differs in")
        st.text(only or "nothing: the words are the same")
    nearest = [
        {"cosine": n.cosine, "probe": n.probe.text, "cosine to twin": n.twin_cosine, "twin": n.probe.twin, "type": n.probe.bias_type}
        for n in found.nearest
    ]
    _table("Nearest probes, by cosine of projected gradients", pd.DataFrame(nearest).dropna(axis=1, how="all"), "%.3f", *COSINES)
    scorers = [{"scorer": name, "rank": rank, "score": score, "meaning": SCORER_HELP[name]} for name, score, rank in found.scorers]
    _table("Ranks by other scorers", pd.DataFrame(scorers), "%.4f", "score")
    if ranks:
        st.caption("Rank at each checkpoint, by mean cosine to the probes")
        st.text(" · ".join(f"{name}: {each[found.id]}" for name, each in ranks.items()))
    for id_ in found.duplicates:
        row = examples.table.iloc[examples.place[id_]]
        st.caption(f"Duplicate at rank {row['rank']}")
        st.text(row["text"])


def _table(title: str, rows: pd.DataFrame, number: str, *columns: str) -> None:
    if len(rows):
        st.caption(title)
        config = {column: st.column_config.NumberColumn(format=number, width="small") for column in columns}
        st.dataframe(rows, hide_index=True, column_config=config, alt=title, height="content")
