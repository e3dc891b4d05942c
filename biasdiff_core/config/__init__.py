"""Every choice of an audit, as frozen dataclasses: one file a stage; `file` reads and writes them; `presets` names sets."""

from biasdiff_core.config.audit import AuditConfig, ReviewConfig
from biasdiff_core.config.data import CorpusConfig, ProbeConfig
from biasdiff_core.config.evaluation import CrowsPairsConfig, EvaluationConfig, PerplexityConfig
from biasdiff_core.config.gradients import GradientConfig, MapConfig, ScoreConfig
from biasdiff_core.config.mitigation import METHODS, MitigationConfig, NPOConfig, RemovalConfig
from biasdiff_core.config.model import LoraConfig, ModelConfig
from biasdiff_core.config.training import TrainingConfig, WarmupConfig

__all__ = [
    "METHODS",
    "AuditConfig",
    "CorpusConfig",
    "CrowsPairsConfig",
    "EvaluationConfig",
    "GradientConfig",
    "LoraConfig",
    "MapConfig",
    "MitigationConfig",
    "ModelConfig",
    "NPOConfig",
    "PerplexityConfig",
    "ProbeConfig",
    "RemovalConfig",
    "ReviewConfig",
    "ScoreConfig",
    "TrainingConfig",
    "WarmupConfig",
]
