"""Choosing a data file: the demo, an upload kept in the workspace, or a path; its columns, and a preview of its first rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from biasdiff_core.config import ProbeConfig
from biasdiff_core.corpus.sources import DEMO, READERS, located, open_source, saved_by_datasets
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.workspace.artefacts import digest_json, write_atomic
from biasdiff_core.workspace.audits import default_workspace

PREVIEW_ROWS = 20
PATH = "Path or dataset id"
KINDS_OF_TEXTS = "CSV, TSV, JSONL, Parquet, a folder saved by `datasets`, or an id such as owner/name; #validation behind it: that split."
TEXTS = ("text", "sentence", "content")  # likely names of a column of texts
NOT_A_COLUMN = "none"
SPLIT = "train"


def choose_source(what: str, key: str, path_help: str) -> str | None:
    """What the config's `path` shall be, None until something is chosen. `key`: prefix of the widgets' keys."""
    demo, upload = f"Demo {what}", "Upload a file"
    st.session_state.setdefault(f"{key}_how", demo)  # not `default`, which would contradict what `preset_path` has set
    how = st.segmented_control(f"Source of the {what}", [demo, upload, PATH], key=f"{key}_how", required=True)
    if how == demo:
        return DEMO
    if how == upload:
        suffixes = [suffix.removeprefix(".") for suffix in READERS]
        file = st.file_uploader(f"File of the {what}", type=suffixes, key=f"{key}_upload")
        return str(store_upload(default_workspace() / "uploads", file)) if file is not None else None
    return st.text_input("Path on this machine, or Hugging Face dataset id", key=f"{key}_path", help=path_help).strip() or None


def preset_path(key: str, path: str) -> None:
    """Have `choose_source` with this `key` start from a path, on whichever page it is drawn next."""
    st.session_state[f"{key}_how"], st.session_state[f"{key}_path"] = PATH, path


def store_upload(folder: Path, file: UploadedFile) -> Path:
    """Keep an upload as `<sha256[:12]>-<safe name>`: the same bytes are kept once, and no name leads out of the folder."""
    content = file.getvalue()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(file.name).name).lstrip(".") or "upload"
    target = folder / f"{hashlib.sha256(content).hexdigest()[:12]}-{name[-80:]}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(target, content)
    return target


def stamp(path: str) -> str:
    """A digest of size and time of a file, or of all files of a folder saved by `datasets` (also of `folder#split`), so that what was
    read is read again once it has changed; empty for anything else."""
    try:
        local = None if path == DEMO else located(path, DEMO).local
        if local is None or local.is_dir() and not saved_by_datasets(local):
            return ""
        files = sorted(local.rglob("*")) if local.is_dir() else [local]
        return digest_json([[str(file), found.st_size, found.st_mtime_ns] for file in files if (found := file.stat())])
    except (BiasDiffError, FileNotFoundError):  # nothing is there, or it is being written: what reads it says so
        return ""


@st.cache_data(max_entries=16, show_spinner="Reading the columns")
def _header_and_preview(path: str, demo: str, stamp_key: str) -> tuple[tuple[str, ...], pd.DataFrame]:
    table = open_source(path, SPLIT, demo=demo)
    columns = table.columns()
    wanted = list(dict.fromkeys(columns))
    return columns, pd.DataFrame([row.cells for row in islice(table.rows(wanted), PREVIEW_ROWS)], columns=wanted)


def columns_of(path: str, demo: str) -> tuple[tuple[str, ...], pd.DataFrame]:
    """Columns of a source and its first rows as they are now. Raises DataError, MissingDependency."""
    return _header_and_preview(path, demo, stamp(path))


def choose_column(label: str, columns: Sequence[str], key: str, likely: Sequence[str], *, optional: bool = False) -> str | None:
    """A select box of the file's columns; the first of the `likely` names that is there is chosen already, anew for other columns."""
    options = [*columns] if not optional else [NOT_A_COLUMN, *columns]
    folded = {option.casefold(): number for number, option in reversed(list(enumerate(options)))}
    index = next((folded[name] for name in likely if name in folded), 0)
    of_these = f"{key}-{digest_json(list(columns))[:8]}"
    chosen = st.selectbox(label, range(len(options)), index=index, format_func=options.__getitem__, key=of_these)
    return None if optional and chosen == 0 else options[chosen]


def choose_probe_columns(path: str, columns: Sequence[str], key: str) -> ProbeConfig:
    """The columns of a probing set, side by side. `key`: prefix of the widgets' keys."""
    boxes = st.columns(3)
    with boxes[0]:
        text = choose_column("Text column", columns, f"{key}_text", (*TEXTS, "stereotype"))
    with boxes[1]:
        twin = choose_column("Twin column", columns, f"{key}_twin", ("twin", "anti_stereotype"), optional=True)
    with boxes[2]:
        kind = choose_column("Bias type column", columns, f"{key}_type", ("bias_type", "type"), optional=True)
    return ProbeConfig(path=path, text_column=str(text), twin_column=twin, bias_type_column=kind)


def show_preview(preview: pd.DataFrame, title: str) -> None:
    """The first rows as they are."""
    st.caption(f"{title}: the first {len(preview)} rows")
    st.dataframe(preview.map(_cell), hide_index=True, height=min(38 * (len(preview) + 1), 260), alt=title)


def _cell(value: object) -> str:
    return "" if value is None else str(value)
