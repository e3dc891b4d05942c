"""The table of all audits: model, corpus, size, stage reached, and the stereotype score before and after."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config.mitigation import REPAIRS
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.naming import variant_name
from biasdiff_core.results import Comparison
from biasdiff_core.workspace.audits import AuditFolder, list_audits
from biasdiff_ui.format import DASH, metric_text
from biasdiff_ui.state import choose_audit
from biasdiff_ui.style import WRAPPED
from biasdiff_ui.timeline import Standing, standing

log = logging.getLogger(__name__)

SELECTION = "audits_table"
SCORE_HELP = "CrowS-Pairs stereotype score with its 95 % interval; 50 is chance. Origin: trained on the whole corpus."

# Widths in pixels, such that all columns stand side by side from 1280 px on; longer cells take a second line.
WIDTHS = {"": 65, "audit": 125, "model": 105, "corpus": 95, "stage": 130, "last change": 95}
COLUMNS = {
    **{name: st.column_config.TextColumn(width=width) for name, width in WIDTHS.items()},
    "n": st.column_config.TextColumn(width=55, alignment="right"),
    "stereotype score": st.column_config.TextColumn(width=215, help=SCORE_HELP),
}


def audits_table(workspace: Path, current: str) -> None:
    """All audits, newest first; a row that is clicked becomes the current audit, until another one is chosen anywhere."""
    folders = list_audits(workspace)

    def choose() -> None:
        rows = st.session_state[SELECTION]["selection"]["rows"]
        if rows:
            choose_audit(folders[rows[0]].id)

    table = pd.DataFrame([_row(folder, folder.id == current) for folder in folders]).fillna(DASH)
    st.dataframe(
        table,
        hide_index=True,
        key=SELECTION,
        on_select=choose,  # not by the selection of every run: that stays while others are chosen and rows move
        selection_mode="single-row",
        column_config=COLUMNS,
        row_height=WRAPPED,
        alt="All audits of the workspace",
    )


def _row(folder: AuditFolder, current: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"": "current" if current else "", "audit": folder.id}
    try:
        audit = Audit(folder)
        config, at = folder.config, standing(audit)
        row |= {"model": _short(config.model.name), "corpus": _short(config.corpus.path), "n": _size(audit, at), "stage": _reached(at)}
        row |= {"last change": _last_change(folder), "stereotype score": _scores(audit)}
    except BiasDiffError as error:
        log.warning("%s cannot be read: %s", folder.id, error)
        row |= {"stage": "cannot be read (choose it to see why)", "last change": _last_change(folder)}
    return row


def _last_change(folder: AuditFolder) -> str:
    """In local time. A temporary file may be gone by the time it is looked at."""
    changed = folder.path.stat().st_mtime
    for path in folder.path.glob("*/*"):
        with suppress(FileNotFoundError):
            changed = max(changed, path.stat().st_mtime)
    return datetime.fromtimestamp(changed).astimezone().strftime("%Y-%m-%d %H:%M")


def _short(path: str) -> str:
    return Path(path).name if "/" in path and Path(path).exists() else path


def _size(audit: Audit, at: Standing) -> str:
    return f"{audit.artefact('corpus').facts['examples']:,}" if at.plan["corpus"].done else DASH


def _reached(at: Standing) -> str:
    if at.live:
        return "running"
    done = [step.title for step in at.steps() if step.state == "done"]
    reached = done[-1] if done else "not started"
    return reached if at.job is None or at.job.state == "finished" else f"{reached} (last job {at.job.state})"


def _scores(audit: Audit) -> str:
    """`origin 57.1 % [51, 63], n = 400 → NPO 54.2 % […]` of the newest report."""
    return before_after(audit.compare()) if audit.reports() else DASH


def before_after(comparison: Comparison) -> str:
    """The stereotype score of origin and of the first mitigation that is not a control, in the last scoring."""
    repaired = [variant for variant in comparison.variants if variant in REPAIRS]
    names = [name for name in comparison.metrics["origin"] if name.endswith(".stereotype_score")]
    if not repaired or not names:
        return DASH
    shown = [f"{variant_name(v)} {metric_text(comparison.metrics[v].get(names[-1]), with_n=False)}" for v in ("origin", repaired[0])]
    return " → ".join(shown)
