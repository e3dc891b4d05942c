"""Where an example stands at each checkpoint, where the ranking is a sum over several (Eq. 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pandas as pd
import streamlit as st

from biasdiff_core.attribution.influence import mean_cosines
from biasdiff_core.attribution.ranking import rank
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.audit import Audit
from biasdiff_core.plan import Plan

Ranks = Mapping[str, "pd.Series[int]"]  # checkpoint in words → rank (1 = most influential) by example id


def checkpoint_ranks(audit: Audit, plan: Plan) -> Ranks:
    """The ranks by mean cosine to the probes at each checkpoint alone, in order; empty where there is but one checkpoint."""
    stages = [plan[name] for name in ("gradients", "probes")]
    return _ranks(str(audit.folder.path), tuple(stage.key for stage in stages), audit) if all(s.done for s in stages) else {}


@st.cache_resource(max_entries=4, show_spinner=False)
def _ranks(folder: str, keys: tuple[str, ...], _audit: Audit) -> Ranks:
    gradients = _audit.artefact("gradients")
    names = gradients.facts["checkpoints"]
    if len(names) < 2:
        return {}
    counts = Counter(probe.bias_type for probe in _audit.probes())
    found = {}
    for name in names:
        store = GradientStore.open(gradients.folder / name / "train")
        table = rank(store.ids, mean_cosines(store, counts)["mean"].to_numpy())
        found[f"epoch {int(name.rpartition('-')[2])}"] = table.set_index("id")["rank"]
    return found
