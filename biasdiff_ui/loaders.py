"""Cached reads of finished stage results. A stage's key is its content, so a cache by folder can never be stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.errors import ArtefactError
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


def archived(audit: Audit, *, vectors: bool = False, weights: bool = False) -> str:
    """Why the examples' vectors, or the adapter's weights, of the last checkpoint cannot be read, or nothing where those asked for can."""
    try:
        gradients = audit.artefact("gradients")
        last = gradients.facts["checkpoints"][-1]
        if vectors:
            _require_payload(gradients, f"{last}/train/shard-", ".npy")
        if weights:
            _require_payload(audit.artefact("warmup"), f"{last}/", ".safetensors")
    except ArtefactError as error:
        return str(error)
    return ""


def _require_payload(artefact: Artefact, start: str, suffix: str) -> None:
    """Raise ArtefactError when any file of the result whose name begins and ends so is archived or lost."""
    for name in artefact.files:
        if name.startswith(start) and name.endswith(suffix):
            artefact.path(name)


def record(artefact: Artefact, name: str) -> Any:
    """One JSON file of a finished result. Shared between sessions: never changed in place."""
    return _json(str(artefact.folder), name, artefact.key, artefact)
