"""Files to take away; each is made when its button is pressed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.corpus.export import export_without, safe_cell
from biasdiff_core.corpus.sources import local_path
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.report import COMPARISON_FILE, HTML_FILE, MARKDOWN_FILE
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import Artefact, open_artefact
from biasdiff_ui.notices import show_error


def downloads(audit: Audit, report: Artefact) -> None:
    """The report, the cleaned corpus, decisions and ranking."""
    st.subheader("Downloads")
    name = audit.folder.id
    with st.container(horizontal=True):
        for label, file in (("Report (HTML)", HTML_FILE), ("Report (Markdown)", MARKDOWN_FILE), ("Figures (JSON)", COMPARISON_FILE)):
            _button(label, report.path(file).read_bytes(), f"{name}-{file}")
        _cleaned(audit, report)
        _button("Decisions (CSV)", lambda: decisions_csv(audit), f"{name}-decisions.csv")
        _button("Ranking (CSV)", lambda: ranking_csv(audit), f"{name}-ranking.csv")


def _button(label: str, data: object, file_name: str) -> None:
    st.download_button(label, data, file_name=file_name, on_click="ignore", key=f"download_{label}")  # type: ignore[arg-type]


def _cleaned(audit: Audit, report: Artefact) -> None:
    try:
        source = local_path(audit.config.corpus.path, "corpus.csv")
    except BiasDiffError as error:
        show_error(error)
        return
    suffix = source.suffix if source is not None and source.is_file() else ".zip"
    removal = open_artefact(audit.folder.path, "removal", report.inputs["removal"])
    _button("Cleaned corpus", lambda: cleaned_corpus(audit, removal), f"{audit.folder.id}-cleaned{suffix}")


def cleaned_corpus(audit: Audit, removal: Artefact) -> bytes:
    """The corpus without the frozen set, in its own format; a folder as a zip of it."""
    config = audit.config.corpus
    source = local_path(config.path, "corpus.csv")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"cleaned{source.suffix if source is not None and source.is_file() else ''}"
        export_without(config, load_removal(removal).ids, target)
        return target.read_bytes() if target.is_file() else Path(shutil.make_archive(str(target), "zip", target)).read_bytes()


def decisions_csv(audit: Audit) -> bytes:
    """The decisions in force."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "decisions.csv"
        audit.log.export(target)
        return target.read_bytes()


def ranking_csv(audit: Audit) -> bytes:
    """The ranking with texts; cells that a spreadsheet would take for a formula are made inert."""
    safe = audit.ranking().map(lambda cell: safe_cell(cell) if isinstance(cell, str) else cell)
    return safe.to_csv(index=False).encode()
