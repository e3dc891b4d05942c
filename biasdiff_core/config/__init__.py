"""Every choice of an audit, as frozen dataclasses: one file a stage; `file` reads and writes them; `presets` names sets."""

from biasdiff_core.config.audit import AuditConfig, ReviewConfig
from biasdiff_core.config.data import CorpusConfig, ProbeConfig
from biasdiff_core.config.evaluation import (
    AnswersConfig,
    CrowsPairsConfig,
    EvaluationConfig,
    LmEvalConfig,
    PerplexityConfig,
    SeatConfig,
    StereoSetConfig,
    TrexConfig,
)
from biasdiff_core.config.gradients import GradientConfig, MapConfig, ScoreConfig
from biasdiff_core.config.mitigation import METHODS, MitigationConfig, PromptConfig, RemovalConfig, StopConfig, UnlearnConfig
from biasdiff_core.config.model import LoraConfig, ModelConfig
from biasdiff_core.config.training import TrainingConfig, WarmupConfig

__all__ = [
    "METHODS",
    "AnswersConfig",
    "AuditConfig",
    "CorpusConfig",
    "CrowsPairsConfig",
    "EvaluationConfig",
    "GradientConfig",
    "LmEvalConfig",
    "LoraConfig",
    "MapConfig",
    "MitigationConfig",
    "ModelConfig",
    "PerplexityConfig",
    "ProbeConfig",
    "PromptConfig",
    "RemovalConfig",
    "ReviewConfig",
    "ScoreConfig",
    "SeatConfig",
    "StereoSetConfig",
    "StopConfig",
    "TrainingConfig",
    "TrexConfig",
    "UnlearnConfig",
    "WarmupConfig",
]
