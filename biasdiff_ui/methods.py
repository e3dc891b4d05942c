"""What is done with the removal set: methods with what each costs, their loss curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config import METHODS
from biasdiff_core.config.mitigation import Method
from biasdiff_core.plan import TITLES, predicted_cost, removals
from biasdiff_core.review.removal import RemovalSet
from biasdiff_ui.charts import losses, show
from biasdiff_ui.format import duration
from biasdiff_ui.notices import plain

STEPS = "steps.jsonl"  # written by the training loop, which loads torch and is therefore not imported
WHAT: Mapping[Method, str] = {
    "retrain": "A fresh adapter from the base, on the corpus without the removed examples. The cleanest answer, and the dearest.",
    "npo": "The trained adapter unlearns the removed examples (Negative Preference Optimization) and keeps the others by their loss.",
    "random": "A fresh adapter without as many examples drawn at random: what removing any examples does. The result is read against it.",
}


def choose_methods(audit: Audit, removal: RemovalSet) -> list[Method]:
    """A card a method with a tick box and its cost; those chosen."""
    chosen: list[Method] = []
    for method in METHODS:
        with st.container(border=True):
            if st.checkbox(TITLES[method], value=method in audit.config.mitigation.methods, key=f"mitigate_{method}"):
                chosen.append(method)
            st.markdown(f"{WHAT[method]} {plain(method_cost(audit, removal, method))}")
    return chosen


def method_cost(audit: Audit, removal: RemovalSet, method: Method) -> str:
    """What a method and the evaluation of its variant add to the cost of the audit."""
    percent = 100.0 * len(removal.ids) / removal.ranked
    config = replace(audit.config, removal=replace(audit.config.removal, percent=min(100.0, max(0.01, percent))))
    seconds, measured = [], False
    for methods in ((), (method,)):
        with_methods = replace(config, mitigation=replace(config.mitigation, methods=methods))
        cost = predicted_cost(audit.folder.workspace, with_methods, removal.ranked, 0)
        seconds.append(cost.seconds)
        measured = cost.measured
    return f"About {duration(seconds[1] - seconds[0])} with its evaluation ({'measured here' if measured else 'not measured here yet'})."


def loss_curves(audit: Audit, methods: Sequence[Method]) -> None:
    """Loss over steps of each method on the newest removal set, also of one that is training now."""
    frozen = removals(audit.folder)
    if not frozen:
        return
    found = {}
    for stage in audit.repair_plan(frozen[0], methods).stages:
        if stage.stage == "mitigation" and stage.variant:
            folder = audit.folder.path / stage.stage
            steps = next((s for s in (read_steps(folder / name) for name in (stage.key, f"{stage.key}.partial")) if s is not None), None)
            if steps is not None:
                found[stage.title] = steps
    if not found:
        return
    st.subheader("Training on the newest removal set")
    for box, (title, steps) in zip(st.columns(len(found)), found.items(), strict=True):
        with box:
            show(losses(steps, f"{title}: loss by step"), f"losses_{title}", f"{title}: loss over {len(steps)} optimizer steps")


def read_steps(folder: Path) -> pd.DataFrame | None:
    """The training's log of steps as far as it is written; None when there is none."""
    try:
        lines = (folder / STEPS).read_text(encoding="utf8").splitlines()
    except FileNotFoundError:
        return None
    return pd.DataFrame([json.loads(line) for line in lines]) if lines else None
