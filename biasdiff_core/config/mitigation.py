"""The removal set and what is done with it."""

from __future__ import annotations

from typing import Literal

from biasdiff_core.config.base import config_class, require, require_positive
from biasdiff_core.config.training import TrainingConfig

Policy = Literal["confirmed", "top_percent"]
Method = Literal["retrain", "npo", "random"]
METHODS: tuple[Method, ...] = ("retrain", "npo", "random")


@config_class
class RemovalConfig:
    """`confirmed`: examples whose verdict is `biased`. `top_percent`: the top `percent` % minus marked false positives (the paper)."""

    policy: Policy = "confirmed"
    percent: float = 35.0

    def __post_init__(self) -> None:
        require(0 < self.percent <= 100, f"removal.percent is {self.percent}, but must lie in (0, 100].")


@config_class
class NPOConfig:
    """Negative Preference Optimization (Zhang et al. 2024; paper Eq. 7 with 2/β) + NLL on as many retain examples."""

    beta: float = 0.1
    forget_weight: float = 0.05
    retain_weight: float = 1.0
    training: TrainingConfig = TrainingConfig(epochs=3, learning_rate=2e-4)

    def __post_init__(self) -> None:
        require_positive("npo", beta=self.beta, forget_weight=self.forget_weight)
        require(self.retain_weight >= 0, f"npo.retain_weight is {self.retain_weight}, but must not be negative.")


@config_class
class MitigationConfig:
    """Methods run after the removal set is frozen. Retrain and random use the warm-up's training settings, from the base."""

    methods: tuple[Method, ...] = ("retrain", "npo")
    npo: NPOConfig = NPOConfig()
    random_seed: int = 0
