"""The whole audit: one config a stage."""

from __future__ import annotations

import re
from pathlib import Path

from biasdiff_core.config.base import config_class, require
from biasdiff_core.config.data import CorpusConfig, ProbeConfig
from biasdiff_core.config.evaluation import EvaluationConfig
from biasdiff_core.config.gradients import GradientConfig, ScoreConfig
from biasdiff_core.config.mitigation import DEV_PROBES, UNLEARNINGS, MitigationConfig, RemovalConfig
from biasdiff_core.config.model import LoraConfig, ModelConfig
from biasdiff_core.config.training import WarmupConfig


@config_class
class ReviewConfig:
    """`simulate_from_labels`: a simulated auditor decides by the corpus's known labels (demo, benchmarks), marked so in every report."""

    simulate_from_labels: bool = False


@config_class
class AuditConfig:
    """Every choice of an audit. Read and written by `config.file`; `parent`: the audit whose repaired model this one audits."""

    name: str
    parent: str | None = None
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    corpus: CorpusConfig = CorpusConfig()
    probes: ProbeConfig = ProbeConfig()
    warmup: WarmupConfig = WarmupConfig()
    gradients: GradientConfig = GradientConfig()
    scores: ScoreConfig = ScoreConfig()
    review: ReviewConfig = ReviewConfig()
    removal: RemovalConfig = RemovalConfig()
    mitigation: MitigationConfig = MitigationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,47}", self.name) is not None,
            f"name is {self.name!r}.",
            "Use 1 to 48 small letters, digits, - and _, starting with a letter or digit.",
        )
        demo_probes = self.probes.path == "demo"
        if self.scores.kind == "contrast" and not demo_probes:
            require(
                self.probes.twin_column is not None,
                "scores.kind is 'contrast' but probes.twin_column is not set: the contrast needs each probe's anti-stereotype twin.",
                "Name the twin column, or set scores.kind to mean.",
            )
        self._require_disjoint_dev()
        if self.review.simulate_from_labels:
            require(
                self.corpus.label_column is not None,
                "review.simulate_from_labels is set but corpus.label_column is not.",
                "Name the column of the known labels.",
            )

    def _require_disjoint_dev(self) -> None:
        """What a stop rule is judged on is no part of what is reported, nor of what is trained on."""
        reported = self.evaluation.stereoset
        for method in UNLEARNINGS:
            stop = self.mitigation.unlearning(method).stop
            if stop is None:
                continue
            where = f"mitigation.{method}.stop.dev"
            require(
                reported is None or stop.dev == DEV_PROBES or Path(stop.dev).resolve() != Path(reported.path).resolve(),
                f"{where} is the file that evaluation.stereoset reports on, so its figures would be chosen and not measured.",
                "Stop on another file or on the probes, or leave evaluation.stereoset out.",
            )
            require(
                method != "twin" or stop.dev != DEV_PROBES,
                f"{where} is {DEV_PROBES!r}, the pairs that twin trains on.",
                "Name a StereoSet file, or set stop to null.",
            )
