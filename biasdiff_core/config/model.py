"""Which language model, and the LoRA that is put on it."""

from __future__ import annotations

from typing import Literal

from biasdiff_core.config.base import config_class, require, require_fraction, require_positive

BUNDLED_MODEL = "bundled:smollm2-135m"
Dtype = Literal["float32", "bfloat16"]


@config_class
class ModelConfig:
    """`name`: `bundled:smollm2-135m`, a folder, or a Hugging Face id (with `revision`).

    `adapter`: a peft adapter folder, or a `transformers.Trainer` checkpoint of one; it then takes the place of our warm-up.
    """

    name: str = BUNDLED_MODEL
    revision: str | None = None
    dtype: Dtype = "float32"
    adapter: str | None = None


@config_class
class LoraConfig:
    """LoRA as the paper's Table 8: r 16, alpha 32, dropout 0.05 on `q_proj`, `v_proj`, no bias.

    `target_modules`: linear maps by the end of their name (`q_proj`, `self_attn.q_proj`), or `all-linear` alone: all but the head.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        require_positive("lora", r=self.r, alpha=self.alpha)
        require_fraction("lora", dropout=self.dropout)
        require(bool(self.target_modules), "lora.target_modules is empty.", "Name at least one module, e.g. q_proj.")
