"""Loss and influence of each token of a candidate, cut to fit its text; where there are none, how to get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.plan import TOKENS_FILE, PlannedStage, require_done, tokens_stage
from biasdiff_ui.examples import Examples
from biasdiff_ui.format import count
from biasdiff_ui.jobs_view import job_panel, start_job
from biasdiff_ui.loaders import archived, table
from biasdiff_ui.notices import errors_shown, plain
from biasdiff_ui.timeline import Standing

PARTS = ("prompt", "text")
COMMAND = "tokens"
Piece = list[Any]  # characters, loss, influence; None where no token says


@dataclass(frozen=True, kw_only=True)
class Shading:
    """`cards`: what the review card shades, by example id; `unshaded`: what it says of any other; `can_start`: whether a job would help."""

    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unshaded: str
    can_start: bool = False


def load_shading(audit: Audit, examples: Examples) -> Shading:
    """The shades of the audit's candidates, or why there are none."""
    stage = tokens_stage(audit.folder)
    if stage.done:
        cards = _cards(str(audit.folder.path), stage.key, examples.key, audit, stage, examples)
        return Shading(cards=cards, unshaded=f"Only the {count(len(cards), 'candidate')} ranked first are shaded by token.")
    why_not = _obstacle(audit)
    if why_not:
        return Shading(unshaded=f"This audit cannot be shaded by token. {why_not}")
    return Shading(unshaded="Not measured yet: press “Shade the candidates by token” below the card.", can_start=True)


def _obstacle(audit: Audit) -> str:
    """Why a job could not measure them, or nothing."""
    if audit.config.gradients.block_size != 1:
        return f"Its neighbours share a vector (gradients.block_size {audit.config.gradients.block_size})."
    return archived(audit, weights=True)


@st.cache_resource(max_entries=4, show_spinner=False)
def _cards(folder: str, key: str, ranking: str, _audit: Audit, _stage: PlannedStage, _examples: Examples) -> dict[str, dict[str, Any]]:
    tokens = table(require_done(_stage, _audit.folder), TOKENS_FILE)
    return {str(id_): _card(rows, _examples.table.iloc[_examples.place[str(id_)]]) for id_, rows in tokens.groupby("id", sort=False)}


def _card(tokens: pd.DataFrame, example: pd.Series) -> dict[str, Any]:
    """Pieces of prompt and text, and `rest`: the influence that stands nowhere in them (special tokens, shared momentum)."""
    shown = tokens[tokens["end"] > tokens["start"]]
    lengths = {part: len(example[part]) if isinstance(example[part], str) else 0 for part in PARTS}
    pieces = {part: cut_to_fit(lengths[part], _rows(shown[shown["part"] == part])) for part in PARTS}
    return {**pieces, "rest": round(float(tokens["influence"].sum() - shown["influence"].sum()), 6)}


def _rows(tokens: pd.DataFrame) -> Iterable[tuple[int, int, float, float]]:
    return zip(tokens["start"], tokens["end"], tokens["loss"], tokens["influence"], strict=True)


def cut_to_fit(length: int, tokens: Iterable[tuple[int, int, float, float]]) -> list[Piece]:
    """A text of `length` characters as pieces that follow each other without a gap.

    `tokens`: start, end, loss (NaN: none) and influence, by start. Tokens that share a character, of which each is a few bytes, become
    one piece with the sums of both figures; between tokens stand pieces without figures.
    """
    pieces: list[Piece] = []
    at = 0
    for start, end, loss, influence in tokens:
        if start >= at:
            if start > at:
                pieces.append([start - at, None, None])
            pieces.append([end - start, None, 0.0])
        else:
            pieces[-1][0] += max(0, end - at)
        at = max(at, end)
        pieces[-1][1:] = [pieces[-1][1] if isnan(loss) else (pieces[-1][1] or 0.0) + loss, pieces[-1][2] + influence]
    if at < length:
        pieces.append([length - at, None, None])
    return [[int(n), *(None if v is None else round(float(v), 6) for v in figures)] for n, *figures in pieces]


def shading_panel(at: Standing, shading: Shading) -> None:
    """The button that starts the job, and the job while it is the newest one and not finished."""
    if at.job is not None and at.job.command[0] == COMMAND and at.job.state != "finished":
        job_panel(at)
    elif not shading.can_start:
        st.caption(plain(shading.unshaded))
    elif st.button(
        "Shade the candidates by token",
        key="shade",
        disabled=at.live,
        help="A job loads the model and measures loss and influence of each token of the candidates at the cut.",
    ):
        with errors_shown():
            start_job(at.audit, [COMMAND, at.audit.folder.id])
            st.rerun()
