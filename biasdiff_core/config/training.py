"""The training loop that warm-up, retraining and NPO share."""

from __future__ import annotations

from typing import Literal

from biasdiff_core.config.base import config_class, require, require_fraction, require_positive


@config_class
class TrainingConfig:
    """AdamW with a warm-up and a cosine schedule counted in optimizer steps.

    `batch_size`: examples an optimizer step. `token_budget`: padded tokens of one forward pass (about 500 on a 2-core CPU;
    it cuts a batch into micro-batches and changes nothing but rounding and which dropout masks are drawn).
    """

    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 16
    weight_decay: float = 0.001
    warmup_ratio: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    token_budget: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(
            "training",
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            token_budget=self.token_budget,
            max_grad_norm=self.max_grad_norm,
            epsilon=self.epsilon,
        )
        require(self.weight_decay >= 0, f"training.weight_decay is {self.weight_decay}, but must not be negative.")
        require_fraction("training", warmup_ratio=self.warmup_ratio)
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"training.{name} is {value}, but must lie in [0, 1).")


@config_class
class WarmupConfig:
    """Scope `full`: all of the corpus; `few`: a seeded share of it (paper, section 3.2: 5 %)."""

    scope: Literal["full", "few"] = "full"
    few_fraction: float = 0.05
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        require(0 < self.few_fraction <= 1, f"warmup.few_fraction is {self.few_fraction}, but must lie in (0, 1].")
