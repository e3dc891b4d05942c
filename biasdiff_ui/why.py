"""Why an example stands where it stands: nearest probes, word differences, twins, duplicates, ranks by other scorers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import pandas as pd
import streamlit as st

from biasdiff_core.attribution.baselines import WORD
from biasdiff_ui.examples import Examples, Probe

Segment = tuple[str, bool]
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
class Evidence:
    """What explains one example. `nearest`: probes with their cosines, best first; `scorers`: name, score, rank."""

    id: str
    rank: int
    score: float
    text: str
    prompt: str
    source: str
    group: str
    tokens: int
    nearest: tuple[tuple[str, Probe, float], ...]
    difference: tuple[Segment, ...]
    duplicates: tuple[str, ...]
    scorers: tuple[tuple[str, float, int], ...]


def evidence(examples: Examples, id_: str) -> Evidence:
    """All that is known about why the example has its rank. Raises KeyError for an id without one."""
    row = examples.table.iloc[examples.place[id_]]
    top = examples.top_probes.loc[[id_]] if id_ in examples.top_probes.index else examples.top_probes.iloc[:0]
    nearest = tuple((probe, examples.probes[probe], float(cosine)) for probe, cosine in zip(top["probe"], top["cosine"], strict=True))
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
        difference=word_difference(row["text"], nearest[0][1].text) if nearest else (),
        duplicates=examples.duplicates.get(id_, ()),
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
    """Plain values of what the review card shows of one example; probes by id (see `probe_records`)."""
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
        "nearest": [[probe, round(cosine, 4)] for probe, _, cosine in found.nearest],
        "difference": [[piece, flag] for piece, flag in found.difference],
        "duplicates": len(found.duplicates),
        "scorers": [[name, rank] for name, _, rank in found.scorers],
        "contrast": next((round(score, 5) for name, score, _ in found.scorers if name == "contrast"), None),
    }


def draw_evidence(found: Evidence, examples: Examples) -> None:
    """The example, its figures and its neighbours, as inert text."""
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
    nearest = [{"cosine": cosine, "probe": probe.text, "twin": probe.twin, "type": probe.bias_type} for _, probe, cosine in found.nearest]
    _table("Nearest probes, by cosine of projected gradients", pd.DataFrame(nearest), "%.3f", "cosine")
    scorers = [{"scorer": name, "rank": rank, "score": score, "meaning": SCORER_HELP[name]} for name, score, rank in found.scorers]
    _table("Ranks by other scorers", pd.DataFrame(scorers), "%.4f", "score")
    for id_ in found.duplicates:
        if id_ in examples.place:
            row = examples.table.iloc[examples.place[id_]]
            st.caption(f"Duplicate at rank {row['rank']}")
            st.text(row["text"])


def _table(title: str, rows: pd.DataFrame, number: str, column: str) -> None:
    if len(rows):
        st.caption(title)
        config = {column: st.column_config.NumberColumn(format=number, width="small")}
        st.dataframe(rows, hide_index=True, column_config=config, alt=title, height="content")
