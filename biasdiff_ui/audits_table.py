"""The table of all audits: model, corpus, size, stage reached, and the stereotype score before and after."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.results import Comparison
from biasdiff_core.workspace.audits import AuditFolder, list_audits
from biasdiff_ui.format import DASH, metric_text, variant_name
from biasdiff_ui.state import choose_audit
from biasdiff_ui.timeline import Standing, standing

SELECTION = "audits_table"
SCORE_HELP = "CrowS-Pairs stereotype score with its 95 % interval; 50 is chance. Origin: trained on the whole corpus."


def audits_table(workspace: Path, current: str) -> None:
    """All audits, newest first; a selected row becomes the current audit."""
    folders = list_audits(workspace)
    table = pd.DataFrame([_row(folder, folder.id == current) for folder in folders])
    event = st.dataframe(
        table,
        hide_index=True,
        key=SELECTION,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "stereotype score": st.column_config.TextColumn(help=SCORE_HELP),
            "n": st.column_config.TextColumn(alignment="right"),
        },
        alt="All audits of the workspace",
    )
    rows = event["selection"]["rows"]
    if rows and folders[rows[0]].id != current:
        choose_audit(folders[rows[0]].id)
        st.rerun()


def _row(folder: AuditFolder, current: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"": "current" if current else "", "audit": folder.id}
    try:
        audit = Audit(folder)
        config, at = folder.config, standing(audit)
        row |= {"model": _short(config.model.name), "corpus": _short(config.corpus.path), "n": _size(audit, at), "stage": _reached(at)}
        row |= {"last change": _last_change(folder), "stereotype score": _scores(audit)}
    except BiasDiffError as error:
        row |= {"stage": f"cannot be read: {error.what}", "last change": _last_change(folder)}
    return row


def _last_change(folder: AuditFolder) -> str:
    changed = max(path.stat().st_mtime for path in [folder.path, *folder.path.glob("*/*")])
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
    repaired = [variant for variant in comparison.variants if variant not in ("base", "origin", "random")]
    names = [name for name in comparison.metrics["origin"] if name.endswith(".stereotype_score")]
    if not repaired or not names:
        return DASH
    shown = [f"{variant_name(v)} {metric_text(comparison.metrics[v].get(names[-1]))}" for v in ("origin", repaired[-1])]
    return " → ".join(shown)
