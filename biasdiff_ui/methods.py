"""What is done with the removal set: methods with what each costs, their loss curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import streamlit as st

from biasdiff_core.attribution.baselines import minilm_folder
from biasdiff_core.audit import Audit
from biasdiff_core.config import METHODS, AuditConfig
from biasdiff_core.config.mitigation import CONTROLS, Method
from biasdiff_core.cost import Cost, Predictor
from biasdiff_core.errors import MissingDependency
from biasdiff_core.naming import variant_name
from biasdiff_core.plan import TITLES, PlannedStage, removals
from biasdiff_core.review.removal import RemovalSet
from biasdiff_core.workspace.artefacts import open_artefact
from biasdiff_ui.charts import show, training
from biasdiff_ui.format import duration, uncounted_words
from biasdiff_ui.loaders import table
from biasdiff_ui.notices import plain

STEPS = "steps.jsonl"  # written by the training loop, which loads torch and is therefore not imported
WHAT: Mapping[Method, str] = {
    "retrain": "A fresh adapter from the base, on the corpus without the removed examples. The cleanest answer, and the dearest.",
    "npo": "The trained adapter unlearns the removed examples (Negative Preference Optimization) and keeps the others by their loss.",
    "door": "Unlearns token by token without a reference model (DOOR, the paper's Eq. 8), and keeps the others by their loss.",
    "simnpo": "As NPO, without a reference model and by the mean token loss.",
    "grad_diff": "Raises the loss of the removed examples while it lowers that of the others.",
    "ascent": "Raises the loss of the removed examples and keeps nothing: the paper's baseline, which harms the model first.",
    "twin": "Teaches the trained adapter to prefer each probe's anti-stereotype twin (DPO).",
    "prompt": "Trains nothing: an instruction stands in front of every text.",
    "random": "A fresh adapter without as many examples drawn at random: what removing any examples does. The result is read against it.",
    "oracle": "A fresh adapter without all examples whose known label is biased: the most that removal can do.",
    "unigram": "A fresh adapter without as many examples ranked first by their words: what gradients add is read against it.",
    "length": "A fresh adapter without as many of the shortest examples: what gradients add is read against it.",
    "minilm": "A fresh adapter without as many examples nearest to the probes by sentence embedding (MiniLM).",
}


# Title, methods, and whether they stand in an expander that is closed at first.
GROUPS: tuple[tuple[str, tuple[Method, ...], bool], ...] = (
    ("Repair", ("retrain", "npo"), False),
    ("Other repairs", ("door", "simnpo", "grad_diff", "ascent", "twin", "prompt"), True),
    ("Controls", CONTROLS, False),
)
FIRST_CURVES = 4
ENDED: Mapping[str, str] = {
    "parity": "stopped at parity of the dev pairs",
    "capability": "stopped for loss of capability",
    "all epochs": "trained all epochs",
}


def choose_methods(audit: Audit, removal: RemovalSet) -> list[Method]:
    """A card a method with a tick box and its cost, in three groups; those chosen."""
    chosen: list[Method] = []
    costs = method_costs(audit, removal)
    for title, methods, folded in GROUPS:
        with st.expander(title) if folded else st.container():
            if not folded:
                st.caption(title)
            chosen += [method for method in methods if _card(audit, method, costs.seconds[method])]
    if chosen:
        st.markdown(plain(total_words(costs, chosen)))
    return chosen


def _card(audit: Audit, method: Method, seconds: float) -> bool:
    """Whether the method is chosen; one that cannot be is greyed and says why."""
    obstacle = obstacle_to(audit, method)
    with st.container(border=True, gap="xsmall"):
        wanted = method in audit.config.mitigation.methods and not obstacle
        ticked = st.checkbox(TITLES[method], value=wanted, key=f"mitigate_{method}-{audit.folder.id}", disabled=bool(obstacle))
        instruction = f" It is: {audit.config.mitigation.prompt.text.strip()}" if method == "prompt" else ""
        cost = obstacle or f"About {duration(seconds)} with its evaluation."
        st.caption(plain(f"{WHAT[method]}{instruction} {cost}"))
    return ticked and not obstacle


def obstacle_to(audit: Audit, method: Method) -> str:
    """Why a method cannot be run on this audit and machine; empty where it can."""
    if method == "oracle":
        labels = table(audit.artefact("corpus"), "corpus.parquet")["label"]
        if labels.isna().any():
            return "Not available: not every example of the corpus has a known label."
        return "" if (labels == 1).any() else "Not available: no example has the label 1."
    if method == "twin" and not table(audit.artefact("probes"), "probes.parquet")["twin"].notna().any():
        return "Not available: the probes have no anti-stereotype twins."
    if method == "minilm":
        try:
            minilm_folder()
        except MissingDependency as error:
            return f"Not available: {error.what} {error.mend}"
    return ""


@dataclass(frozen=True, kw_only=True)
class MethodCosts:
    """Predicted seconds of each method with the evaluation of its variants; `measured`, `uncounted`: as in `Cost`."""

    seconds: Mapping[Method, float]
    measured: bool
    uncounted: Sequence[str]


def total_words(costs: MethodCosts, methods: Sequence[Method]) -> str:
    """`Retraining, NPO: about 9 min with the evaluations (measured here).`"""
    total = sum(costs.seconds[method] for method in methods)
    source = "measured here" if costs.measured else "not all measured here yet"
    names = ", ".join(map(variant_name, methods))
    return f"{names[:1].upper()}{names[1:]}: about {duration(total)} with the evaluations ({source}){uncounted_words(costs.uncounted)}."


def method_costs(audit: Audit, removal: RemovalSet) -> MethodCosts:
    """What each method adds to the cost of the audit."""
    percent = 100.0 * len(removal.ids) / removal.ranked
    config = replace(audit.config, removal=replace(audit.config.removal, percent=min(100.0, max(0.01, percent))))
    probes = table(audit.artefact("probes"), "probes.parquet")
    return _costs(audit.folder.workspace, config, removal.ranked, len(probes) + int(probes["twin"].notna().sum()))


@st.cache_data(ttl=60, max_entries=32, show_spinner=False)
def _costs(workspace: Path, config: AuditConfig, examples: int, sentences: int) -> MethodCosts:
    """Kept for a minute: it reads the manifests of the whole workspace."""
    predictor = Predictor.of(workspace, config)

    def cost(methods: tuple[Method, ...]) -> Cost:
        return predictor.cost(replace(config, mitigation=replace(config.mitigation, methods=methods)), examples, sentences)

    without, whole = cost(()), cost(METHODS)
    seconds = {method: cost((method,)).seconds - without.seconds for method in METHODS}
    return MethodCosts(seconds=seconds, measured=whole.measured, uncounted=whole.uncounted)


def loss_curves(audit: Audit, methods: Sequence[Method]) -> None:
    """Loss terms, gradient norm and weights over steps on the newest removal set, also of a method that is training now."""
    frozen = removals(audit.folder)
    stages = audit.repair_plan(frozen[0], methods).stages if frozen else ()
    found = {stage.title: steps for stage in stages if stage.stage == "mitigation" and (steps := _steps(audit, stage)) is not None}
    ended = {stage.title: _ended(audit, stage) for stage in stages if stage.title in found}
    if not found:
        return
    st.subheader("Training on the newest removal set")
    titles = list(found)
    shown = titles
    if len(titles) > FIRST_CURVES:
        shown = st.pills("Methods shown", titles, selection_mode="multi", default=titles[:FIRST_CURVES], key="curves_shown")
    for first in range(0, len(shown), 2):
        for box, title in zip(st.columns(2, gap="large"), shown[first : first + 2], strict=False):
            with box:
                alt = f"{title}: loss terms, gradient norm and weights over {len(found[title])} optimizer steps"
                show(training(found[title], f"{title}: losses by step"), f"losses_{title}", alt)
                if ended[title]:
                    st.caption(ended[title])


def _steps(audit: Audit, stage: PlannedStage) -> pd.DataFrame | None:
    """The log of a mitigation, finished or under way."""
    folder = audit.folder.path / stage.stage
    return next((steps for name in (stage.key, f"{stage.key}.partial") if (steps := read_steps(folder / name)) is not None), None)


def _ended(audit: Audit, stage: PlannedStage) -> str:
    """How unlearning ended, where a stop rule watched it."""
    facts = open_artefact(audit.folder.path, stage.stage, stage.key).facts if stage.done else {}
    return f"It {ENDED[facts['ended']]}; the adapter of epoch {facts['kept_epoch']} is kept." if "ended" in facts else ""


def read_steps(folder: Path) -> pd.DataFrame | None:
    """The training's log of steps as far as it is written; None when there is none."""
    try:
        lines = (folder / STEPS).read_text(encoding="utf8").splitlines()
    except FileNotFoundError:
        return None
    return pd.DataFrame([json.loads(line) for line in lines]) if lines else None
