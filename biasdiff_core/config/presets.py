"""Named sets of choices: `quick` (minutes on a laptop), `standard` (longer warm-up, all pairs), `paper` (as published)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from biasdiff_core.config.audit import AuditConfig
from biasdiff_core.config.data import CorpusConfig, ProbeConfig
from biasdiff_core.config.evaluation import CrowsPairsConfig, EvaluationConfig, PerplexityConfig
from biasdiff_core.config.gradients import GradientConfig, MapConfig, ScoreConfig
from biasdiff_core.config.mitigation import MitigationConfig, RemovalConfig, UnlearnConfig
from biasdiff_core.config.training import TrainingConfig, WarmupConfig
from biasdiff_core.errors import ConfigError

DEMO_CORPUS = CorpusConfig(path="demo", label_column="is_biased", source_column="kind", group_column="group")
DEMO_PROBES = ProbeConfig(path="demo", twin_column="twin", bias_type_column="bias_type")
HIDDEN_DEPTHS = (0.5, 0.75, 1.0)


def quick(name: str) -> AuditConfig:
    """Minutes on two cores: 2 epochs, last checkpoint, 400 CrowS-Pairs pairs."""
    return AuditConfig(
        name=name,
        warmup=WarmupConfig(training=TrainingConfig(epochs=2, learning_rate=5e-4)),
        gradients=GradientConfig(maps=MapConfig(train="adam_own", probe="sgd"), checkpoints="last", hidden_depths=HIDDEN_DEPTHS),
        mitigation=MitigationConfig(methods=("retrain", "npo"), npo=UnlearnConfig(training=TrainingConfig(epochs=2, learning_rate=2e-4))),
        evaluation=EvaluationConfig(crows_pairs=CrowsPairsConfig(pairs=400), perplexity=PerplexityConfig(limit=100)),
    )


def standard(name: str) -> AuditConfig:
    """3 gentle epochs, Eq. 5 over all of them, centred scores (docs/log.md), all 1508 pairs of CrowS-Pairs, and the random control."""
    base = quick(name)
    return replace(
        base,
        warmup=WarmupConfig(training=TrainingConfig(epochs=3, learning_rate=1e-4)),
        gradients=GradientConfig(maps=MapConfig(train="less", probe="sgd"), checkpoints="all", hidden_depths=HIDDEN_DEPTHS),
        scores=ScoreConfig(kind="centred"),
        mitigation=MitigationConfig(methods=("retrain", "npo", "random")),
        evaluation=EvaluationConfig(perplexity=PerplexityConfig(limit=None)),
    )


def paper(name: str) -> AuditConfig:
    """As published (Table 8, section 3.2): `less`/`sgd` maps, last checkpoint, ranking from gradients projected by dense signs, top 35 %.

    What is not as published, and why: docs/decisions/paper-preset.md.
    """
    training = TrainingConfig(epochs=5, learning_rate=1.5e-6)
    return AuditConfig(
        name=name,
        warmup=WarmupConfig(training=training),
        gradients=GradientConfig(maps=MapConfig(train="less", probe="sgd"), checkpoints="last", projection="rademacher"),
        scores=ScoreConfig(source="store"),
        removal=RemovalConfig(policy="top_percent", percent=35.0),
        mitigation=MitigationConfig(
            methods=("retrain", "npo"),
            npo=UnlearnConfig(
                beta=0.5,
                forget_weight=0.8,
                retain_weight=0.2,
                training=replace(training, epochs=10, learning_rate=3e-7),
            ),
        ),
    )


PRESETS: dict[str, Callable[[str], AuditConfig]] = {"quick": quick, "standard": standard, "paper": paper}


def preset(which: str, name: str) -> AuditConfig:
    """The preset `which` for an audit called `name`. Raises ConfigError for an unknown preset."""
    if which not in PRESETS:
        raise ConfigError(f"There is no preset {which!r}.", f"Choose one of {', '.join(PRESETS)}.")
    return PRESETS[which](name)


def demo(which: str, name: str = "demo") -> AuditConfig:
    """The demo audit: our own corpus and probes, decided by the simulated auditor from the known labels."""
    from biasdiff_core.config.audit import ReviewConfig

    return replace(preset(which, name), corpus=DEMO_CORPUS, probes=DEMO_PROBES, review=ReviewConfig(simulate_from_labels=True))
