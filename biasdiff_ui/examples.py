"""What Explore and Review show of an audit: one table of ranked examples and what explains their rank. Cached by stage key."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.plan import Plan, PlannedStage, require_done
from biasdiff_core.results import MetricResult
from biasdiff_core.workspace.artefacts import Artefact
from biasdiff_ui.loaders import record, table

UNKNOWN = "unknown"
SCORERS = ("mean", "centred", "contrast", "loss", "length", "unigram", "random")
CORPUS_COLUMNS = ["id", "text", "prompt", "source", "group", "label"]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A probe as the pages show it."""

    text: str
    twin: str
    bias_type: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """The ranked examples of one audit; shared between sessions, never changed in place, equal only to itself.

    `table`: best first, index = rank − 1; columns rank, id, score, text, prompt, source, group, label (NaN unknown), tokens, the
    scorers' scores, `rank:<scorer>` (1 = the scorer's first), `searched` (case-folded text) and, with a map, x and y.
    `top_probes`: columns probe, cosine, indexed by example id. `detection`: figures against known labels, by name.
    """

    key: str
    corpus_ids: tuple[str, ...]
    table: pd.DataFrame
    probes: Mapping[str, Probe]
    top_probes: pd.DataFrame
    detection: Mapping[str, MetricResult]
    duplicates: Mapping[str, tuple[str, ...]]

    @cached_property
    def ids(self) -> list[str]:
        """Ids, best first."""
        return list(self.table["id"])

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Row of each id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    @property
    def mapped(self) -> bool:
        return "x" in self.table

    @cached_property
    def labelled(self) -> bool:
        """Whether every ranked example has a known label."""
        return bool(self.table["label"].notna().all())

    @property
    def scorers(self) -> list[str]:
        return [name for name in SCORERS if name in self.table]


def load_examples(audit: Audit, plan: Plan) -> Examples | None:
    """The ranked examples of the audit, or None while there is no ranking."""
    names = ["corpus", "probes", "scores", "ranking", *(["map2d"] if plan["map2d"].done else [])]
    stages = {name: plan[name] for name in names}
    if not stages["ranking"].done:
        return None
    return _examples(str(audit.folder.path), tuple(stage.key for stage in stages.values()), audit, stages)


@st.cache_resource(max_entries=4, show_spinner="Loading the ranking …")
def _examples(folder: str, keys: tuple[str, ...], _audit: Audit, _stages: Mapping[str, PlannedStage]) -> Examples:
    found = {name: require_done(stage, _audit.folder) for name, stage in _stages.items()}
    corpus = table(found["corpus"], "corpus.parquet")
    top = table(found["scores"], "top_probes.parquet")
    probes = table(found["probes"], "probes.parquet").astype("str").fillna("")
    ranking = found["ranking"]
    detection = record(ranking, "detection.json") if "detection.json" in ranking.files else []
    report = record(found["corpus"], "report.json")
    return Examples(
        key=ranking.key,
        corpus_ids=tuple(corpus["id"]),
        table=_joined(found, corpus),
        probes={str(row["id"]): _probe(row) for row in probes.to_dict("records")},
        top_probes=top.sort_values(["id", "place"]).set_index("id")[["probe", "cosine"]],
        detection={metric["name"]: MetricResult.from_json(metric) for metric in detection},
        duplicates=_others(report["duplicate_groups"] + report["near_duplicate_groups"]),
    )


def _joined(found: Mapping[str, Artefact], corpus: pd.DataFrame) -> pd.DataFrame:
    scores = table(found["scores"], "scores.parquet")
    scorers = [name for name in SCORERS if name in scores]
    joined = table(found["ranking"], "ranking.parquet").merge(corpus[CORPUS_COLUMNS], on="id", how="left")
    joined = joined.merge(scores[["id", "tokens", *scorers]], on="id", how="left")
    if "map2d" in found:
        joined = joined.merge(table(found["map2d"], "map2d.parquet"), on="id", how="left")
    joined = joined.assign(
        label=joined["label"].astype(float),
        source=joined["source"].astype("str").fillna(UNKNOWN),
        group=joined["group"].astype("str").fillna(UNKNOWN),
    )
    joined["searched"] = (joined["prompt"].astype("str").fillna("") + " " + joined["text"]).str.casefold()
    for name in scorers:
        joined[f"rank:{name}"] = joined[name].rank(ascending=False, method="min").fillna(0).astype(np.int64)
    return joined


def _probe(row: Mapping[Hashable, Any]) -> Probe:
    return Probe(text=row["text"], twin=row["twin"], bias_type=row["bias_type"])


def _others(groups: Iterable[list[str]]) -> dict[str, tuple[str, ...]]:
    """For each id the other ids of its duplicate groups."""
    found: dict[str, dict[str, None]] = {}
    for group in groups:
        for id_ in group:
            found.setdefault(id_, {}).update(dict.fromkeys(other for other in group if other != id_))
    return {id_: tuple(others) for id_, others in found.items()}
