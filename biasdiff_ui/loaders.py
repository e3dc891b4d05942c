"""Cached reads of finished stage results. A stage's key is its content, so a cache by folder can never be stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from biasdiff_core.workspace.artefacts import Artefact


@st.cache_resource(max_entries=64, show_spinner=False)
def _table(path: str) -> pd.DataFrame:
    return pd.read_parquet(path)


@st.cache_resource(max_entries=64, show_spinner=False)
def _json(folder: str, name: str, key: str, _artefact: Artefact) -> Any:
    return _artefact.read_json(name)


def table(artefact: Artefact, name: str) -> pd.DataFrame:
    """One Parquet file of a finished result. Shared between sessions: never changed in place."""
    path: Path = artefact.path(name)
    return _table(str(path))


def record(artefact: Artefact, name: str) -> Any:
    """One JSON file of a finished result. Shared between sessions: never changed in place."""
    return _json(str(artefact.folder), name, artefact.key, artefact)
