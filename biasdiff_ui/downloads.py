"""Files to take away; each is made when its button is pressed."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.corpus.export import export_without, safe_cell
from biasdiff_core.corpus.sources import local_path
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.report import COMPARISON_FILE, HTML_FILE, MARKDOWN_FILE
from biasdiff_core.review.decisions import Decision
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import Artefact, open_artefact
from biasdiff_ui.examples import Examples
from biasdiff_ui.notices import show_error
from biasdiff_ui.verdicts import UNDECIDED


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
    """The ranking with texts."""
    return csv_bytes(audit.ranking())


def selected_rows(examples: Examples, decisions: Mapping[str, Decision], rows: np.ndarray) -> pd.DataFrame:
    """What is taken away of a selection. `rows`: in the ranking's table, in the order wanted; `decisions`: those that hold."""
    table = examples.table.iloc[rows]
    held = [decisions.get(id_) for id_ in table["id"]]
    return table[["rank", "id", "score", "text", "source", "group", "bias_type"]].assign(
        label=table["label"].astype("Int64"),
        decision=[decision.verdict if decision else UNDECIDED for decision in held],
        auditor=[decision.auditor if decision else "" for decision in held],
        note=[decision.reason if decision else "" for decision in held],
    )


def csv_bytes(table: pd.DataFrame) -> bytes:
    """The table for a spreadsheet: cells that it would take for a formula are made inert."""
    safe = table.map(lambda cell: safe_cell(cell) if isinstance(cell, str) else cell)
    return safe.to_csv(index=False).encode()


def jsonl_bytes(table: pd.DataFrame) -> bytes:
    """The table as one JSON object a row. By json itself: pandas would round small scores."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """The table for a data frame."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


FORMATS: Mapping[str, Callable[[pd.DataFrame], bytes]] = {"CSV": csv_bytes, "JSONL": jsonl_bytes, "Parquet": parquet_bytes}


def selection_downloads(audit_id: str, count: int, rows: Callable[[], pd.DataFrame]) -> None:
    """A selection of `count` rows as a file; `rows()` is asked for when a button is pressed."""
    with st.popover(f"Download these {count:,}", disabled=not count), st.container(horizontal=True):
        for name, made in FORMATS.items():
            _button(name, partial(_file, made, rows), f"{audit_id}-selection.{name.lower()}")


def _file(made: Callable[[pd.DataFrame], bytes], rows: Callable[[], pd.DataFrame]) -> bytes:
    return made(rows())
