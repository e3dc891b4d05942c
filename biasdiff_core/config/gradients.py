"""Per-example gradients, their projection, and the influence score made of them."""

from __future__ import annotations

from typing import Literal

from biasdiff_core.config.base import added, config_class, require, require_fraction, require_positive

OptimizerMap = Literal["sgd", "rms", "less", "adam", "adam_own"]
ScoreKind = Literal["mean", "centred", "contrast"]
ProjectionKind = Literal["countsketch", "rademacher"]
StoreDtype = Literal["float16", "int8"]
LARGEST_BLOCK = 32


@config_class
class MapConfig:
    """Which vector stands for an example: `attribution.optimizer_map` has the formulas. The paper: `less` and `sgd`."""

    train: OptimizerMap = "adam"
    probe: OptimizerMap = "sgd"


@config_class
class GradientConfig:
    """`checkpoints`: `all` (Eq. 5, weighted by the mean learning rate of each epoch) or `last` (Eq. 6).

    `shard_size`: examples a shard of the store, the unit of resuming. `token_budget`: padded tokens of one forward pass.
    `projection` to `proj_dim` numbers: `countsketch`, or `rademacher`, the dense signs of LESS and the paper, which cost `proj_dim`
    operations for each LoRA weight of each example (`attribution.projection`). `sketch_seed`: seed of its integer hash.
    `pool_size`: examples of the corpus (a seeded sample) whose mean direction in the probes' map is what `centred` scores are
    measured from. `block_size`: neighbours in the corpus that share one gradient, as the paper's batches (Tables 3 and 10); 1 gives
    each example its own. `hidden_depths`: layers whose mean hidden state over an example's tokens is kept beside its gradient, each as a
    share of the model's depth, 1 the last; the ranking by them (RepSim) costs no pass of its own. `store_dtype`: of the projected
    vectors on disk; `int8` takes half the space of `float16` (`attribution.store`).
    """

    maps: MapConfig = MapConfig()
    checkpoints: Literal["all", "last"] = "last"
    proj_dim: int = 8192
    sketch_seed: int = 0
    shard_size: int = 256
    pool_size: int = 256
    block_size: int = 1
    token_budget: int = 512
    projection: ProjectionKind = added(default="countsketch")
    hidden_depths: tuple[float, ...] = added(default=())
    store_dtype: StoreDtype = added(default="float16")

    def __post_init__(self) -> None:
        require_fraction("gradients", **{f"hidden_depths[{place}]": depth for place, depth in enumerate(self.hidden_depths)})
        sizes = {"proj_dim": self.proj_dim, "shard_size": self.shard_size, "pool_size": self.pool_size}
        require_positive("gradients", **sizes, block_size=self.block_size, token_budget=self.token_budget)
        largest = f"but must be at most {LARGEST_BLOCK}, the largest batch of the paper."
        require(self.block_size <= LARGEST_BLOCK, f"gradients.block_size is {self.block_size}, {largest}")
        whole = self.shard_size % self.block_size == 0
        require(whole, f"gradients.shard_size is {self.shard_size}, no multiple of gradients.block_size, {self.block_size}.")


@config_class
class ScoreConfig:
    """How the ranking is formed.

    `source`: `exact` (dot products in the full gradient space) or `store` (projected vectors, as the paper).
    `kind`: `mean` cosine to the probes (Eq. 5); `centred`: less the mean cosine to a sample of the corpus, so what all text
    shares cancels; or `contrast`: less the mean cosine to the probes' twins.
    """

    source: Literal["exact", "store"] = "exact"
    kind: ScoreKind = "mean"
    top_probes: int = 5

    def __post_init__(self) -> None:
        require_positive("scores", top_probes=self.top_probes)
