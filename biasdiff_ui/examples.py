"""What Explore and Review show of an audit: one table of ranked examples and what explains their rank. Cached by stage key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import streamlit as st
from scipy.spatial import KDTree

from biasdiff_core.attribution.influence import NULL_FILE
from biasdiff_core.audit import Audit
from biasdiff_core.evidence import nearest_types
from biasdiff_core.plan import Plan, PlannedStage, require_done
from biasdiff_core.results import MetricResult
from biasdiff_core.workspace.artefacts import Artefact
from biasdiff_ui.loaders import record

UNKNOWN = "unknown"
SCORERS = ("mean", "centred", "contrast", "loss", "length", "unigram", "repsim", "random")
CORPUS_COLUMNS = ("id", "text", "prompt", "source", "group", "label")
NEAREST_COLUMNS = ("id", "place", "probe", "cosine", "twin_cosine")  # the last is NaN where it is not known


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A probe as the pages show it."""

    text: str
    twin: str
    bias_type: str


class Duplicates(Mapping[str, tuple[str, ...]]):
    """For each id that has duplicates, the ids of the others. A group is kept once, however large it is."""

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        """`groups`: exact ones, then near ones; a near group holds all of the exact ones in it, so an id's last group is the whole one."""
        self._groups = groups
        self._group_of = {id_: number for number, group in enumerate(groups) for id_ in group}

    def __getitem__(self, id_: str) -> tuple[str, ...]:
        return tuple(other for other in self._groups[self._group_of[id_]] if other != id_)

    def __iter__(self) -> Iterator[str]:
        return iter(self._group_of)

    def __len__(self) -> int:
        return len(self._group_of)

    def numbered(self, ids: Sequence[str]) -> np.ndarray:
        """[ids]: 1 for the first of its group among them, 2 for the second, …; 0 for what has no duplicates."""
        groups = pd.Series([self._group_of.get(id_, -1) for id_ in ids], dtype=np.int64)
        return np.where(groups < 0, 0, groups.groupby(groups).cumcount() + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """The ranked examples of one audit; shared between sessions, never changed in place, equal only to itself.

    `table`: best first, index = rank − 1; columns rank, id, score, text, prompt, source, group, label (NaN unknown), bias_type (of the
    nearest probe), copy (`Duplicates.numbered`), tokens, the scorers' scores, `rank:<scorer>` (1 = the scorer's first) and, with a map,
    x and y. `nearest`: `NEAREST_COLUMNS`. `detection`: figures against known labels, by name. `null`: quantiles of the scores by chance,
    columns share and score; None where the audit keeps none.
    """

    key: str
    corpus_ids: tuple[str, ...]
    table: pd.DataFrame
    probes: Mapping[str, Probe]
    nearest: pd.DataFrame
    detection: Mapping[str, MetricResult]
    duplicates: Duplicates
    null: pd.DataFrame | None

    @cached_property
    def ids(self) -> list[str]:
        """Ids, best first."""
        return self.table["id"].tolist()

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Row of each id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    @cached_property
    def top_probes(self) -> pd.DataFrame:
        """Columns probe, cosine, twin_cosine by example id, the nearest first. Sorted when a card first asks, since that takes a while."""
        return self.nearest.sort_values(["id", "place"]).set_index("id")[["probe", "cosine", "twin_cosine"]]

    @property
    def mapped(self) -> bool:
        return "x" in self.table

    @cached_property
    def _places(self) -> tuple[np.ndarray, KDTree]:
        """Rows of the table that are on the map, and where they lie."""
        xy = self.table[["x", "y"]].to_numpy(float)
        rows = np.flatnonzero(np.isfinite(xy).all(axis=1))
        return rows, KDTree(xy[rows])

    def map_neighbours(self, id_: str, k: int) -> tuple[str, ...]:
        """Ids of the k others that lie nearest to this one on the map, nearest first; none where it has no place there."""
        if not self.mapped:
            return ()
        rows, tree = self._places
        xy = self.table[["x", "y"]].iloc[self.place[id_]].to_numpy(float)
        if not np.isfinite(xy).all():
            return ()
        _, found = tree.query(xy, min(k + 1, len(rows)))
        others = [self.ids[row] for row in rows[np.atleast_1d(found)]]
        return tuple(other for other in others if other != id_)[:k]  # with many at one place it is not always among them

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
    corpus = _columns(found["corpus"], "corpus.parquet", CORPUS_COLUMNS)
    nearest = _columns(found["scores"], "top_probes.parquet", NEAREST_COLUMNS).reindex(columns=list(NEAREST_COLUMNS))
    probes = _columns(found["probes"], "probes.parquet", ("id", "text", "twin", "bias_type")).astype("str").fillna("")
    ranking = found["ranking"]
    detection = record(ranking, "detection.json") if "detection.json" in ranking.files else []
    report = record(found["corpus"], "report.json")
    duplicates = Duplicates([*report["duplicate_groups"], *report["near_duplicate_groups"]])
    ranked = pd.read_parquet(ranking.path("ranking.parquet"))
    return Examples(
        key=ranking.key,
        corpus_ids=tuple(corpus["id"].tolist()),
        table=_joined(ranked, found, corpus).assign(
            bias_type=nearest_types(nearest, probes).reindex(ranked["id"]).fillna(UNKNOWN).replace("", UNKNOWN).to_numpy(),
            copy=duplicates.numbered(ranked["id"].tolist()),
        ),
        probes={id_: Probe(text=text, twin=twin, bias_type=kind) for id_, text, twin, kind in probes.itertuples(index=False)},
        nearest=nearest,
        detection={metric["name"]: MetricResult.from_json(metric) for metric in detection},
        duplicates=duplicates,
        null=pd.read_parquet(found["scores"].path(NULL_FILE)) if NULL_FILE in found["scores"].files else None,
    )


def _columns(artefact: Artefact, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table, those that it has."""
    path = artefact.path(name)
    return pd.read_parquet(path, columns=[column for column in columns if column in pq.read_schema(path).names])


def _joined(ranked: pd.DataFrame, found: Mapping[str, Artefact], corpus: pd.DataFrame) -> pd.DataFrame:
    scores = _columns(found["scores"], "scores.parquet", ("id", "tokens", *SCORERS))
    others = [corpus, scores, *([pd.read_parquet(found["map2d"].path("map2d.parquet"))] if "map2d" in found else [])]
    ids = pd.Index(ranked["id"])
    # By position, for ids are unique in each: the merges of pandas sort them and took three times as long.
    joined = pd.concat([ranked, *(_taken(other, ids) for other in others)], axis=1)
    joined = joined.assign(
        label=joined["label"].astype(float),
        source=joined["source"].astype("str").fillna(UNKNOWN),
        group=joined["group"].astype("str").fillna(UNKNOWN),
    )
    ranks = {f"rank:{name}": _ranks(joined[name]) for name in SCORERS if name in joined}
    return joined.assign(**ranks)


def _taken(frame: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    """The columns of `frame` but id, in the order of `ids`; missing values where it has no such row."""
    return frame.set_index("id").reindex(ids).reset_index(drop=True)


def _ranks(scores: pd.Series) -> pd.Series:
    return scores.rank(ascending=False, method="min").fillna(0).astype(np.int64)
