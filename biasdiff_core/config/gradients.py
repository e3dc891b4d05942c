"""Per-example gradients, their projection, and the influence score made of them."""

from __future__ import annotations

from typing import Literal

from biasdiff_core.config.base import config_class, require_positive

OptimizerMap = Literal["sgd", "rms", "less", "adam", "adam_own"]


@config_class
class MapConfig:
    """Which vector stands for an example: `attribution.optimizer_map` has the formulas. The paper: `less` and `sgd`."""

    train: OptimizerMap = "adam"
    probe: OptimizerMap = "sgd"


@config_class
class GradientConfig:
    """`checkpoints`: `all` (Eq. 5, weighted by the mean learning rate of each epoch) or `last` (Eq. 6).

    `shard_size`: examples a shard of the store, the unit of resuming. `token_budget`: padded tokens of one forward pass.
    `sketch_seed`: seed of the CountSketch's integer hash.
    """

    maps: MapConfig = MapConfig()
    checkpoints: Literal["all", "last"] = "last"
    proj_dim: int = 8192
    sketch_seed: int = 0
    shard_size: int = 256
    token_budget: int = 512

    def __post_init__(self) -> None:
        require_positive("gradients", proj_dim=self.proj_dim, shard_size=self.shard_size, token_budget=self.token_budget)


@config_class
class ScoreConfig:
    """How the ranking is formed.

    `source`: `exact` (dot products in the full gradient space) or `store` (projected vectors, as the paper).
    `kind`: `mean` cosine to the probes (Eq. 5), or `contrast`: mean cosine to the probes minus mean cosine to their twins.
    """

    source: Literal["exact", "store"] = "exact"
    kind: Literal["mean", "contrast"] = "mean"
    top_probes: int = 5

    def __post_init__(self) -> None:
        require_positive("scores", top_probes=self.top_probes)
