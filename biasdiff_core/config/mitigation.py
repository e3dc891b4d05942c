"""The removal set and what is done with it."""

from __future__ import annotations

from typing import Literal, get_args

from biasdiff_core.config.base import config_class, require, require_positive
from biasdiff_core.config.training import TrainingConfig

Policy = Literal["confirmed", "top_percent", "filter"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
ScorerSwap = Literal["unigram", "length", "minilm"]
Unlearning = Literal["npo", "door", "simnpo", "grad_diff", "ascent", "twin"]
Method = Literal[
    "retrain", "npo", "door", "simnpo", "grad_diff", "ascent", "twin", "prompt", "random", "oracle", "unigram", "length", "minilm"
]
METHODS: tuple[Method, ...] = get_args(Method)
UNLEARNINGS: tuple[Unlearning, ...] = get_args(Unlearning)
CONTROLS: tuple[Method, ...] = ("random", "oracle", *get_args(ScorerSwap))  # what a repair is read against
REPAIRS: tuple[Method, ...] = tuple(method for method in METHODS if method not in CONTROLS)
DEV_PROBES = "probes"  # of StopConfig.dev: the probing set and its twins


@config_class
class RemovalConfig:
    """`confirmed`: examples whose verdict is `biased`. `top_percent`: the top `percent` % minus marked false positives (the paper).

    `filter`: examples that were selected (by filter and lasso, or in a file) when the set is frozen, minus marked false positives; the
    ids are no part of the settings.
    """

    policy: Policy = "confirmed"
    percent: float = 35.0

    def __post_init__(self) -> None:
        require(0 < self.percent <= 100, f"removal.percent is {self.percent}, but must lie in (0, 100].")


@config_class
class StopConfig:
    """When unlearning ends early, judged after each epoch on pairs that are no part of the reported CrowS-Pairs.

    `dev`: `probes` (the probing set and its twins) or a StereoSet file. Ends when the mean margin of the dev pairs is no longer
    above zero (`parity`), or the loss on retain examples exceeds the origin's by the factor `max_perplexity_ratio` (in perplexity);
    in the second case the epoch before is kept. `pairs`, `retain`: how many are judged, drawn with a seed.
    """

    dev: str = DEV_PROBES
    parity: bool = True
    max_perplexity_ratio: float = 1.05
    pairs: int = 200
    retain: int = 100

    def __post_init__(self) -> None:
        require_positive("stop", pairs=self.pairs, retain=self.retain)
        require(self.max_perplexity_ratio >= 1, f"stop.max_perplexity_ratio is {self.max_perplexity_ratio}, but must be 1 or more.")


@config_class
class UnlearnConfig:
    """Unlearning by one of the losses of `mitigation.losses`, on top of terms that keep what should be kept.

    total = `forget_weight` · forget + `retain_weight` · NLL on as many retain examples + `kl_weight` · KL to the origin on them.
    `combine` = `pareto` finds the weights of forget and retain anew at every step (min-norm point) instead. `beta`: inverse
    temperature of npo, door, simnpo and twin; `gamma`: simnpo's margin in nats a token. `chat`: wrap every example in the paper's chat
    prompts (Appendix E). `by_influence`: weigh the forget examples by their influence score. `stop`: None trains all epochs.
    """

    beta: float = 0.1
    gamma: float = 0.0
    forget_weight: float = 0.05
    retain_weight: float = 1.0
    kl_weight: float = 0.0
    combine: Literal["fixed", "pareto"] = "fixed"
    chat: bool = False
    by_influence: bool = False
    stop: StopConfig | None = None
    training: TrainingConfig = TrainingConfig(epochs=3, learning_rate=2e-4)

    def __post_init__(self) -> None:
        require_positive("unlearning", beta=self.beta, forget_weight=self.forget_weight)
        for name in ("gamma", "retain_weight", "kl_weight"):
            value = getattr(self, name)
            require(value >= 0, f"{name} of an unlearning method is {value}, but must not be negative.")
        require(
            self.combine == "fixed" or self.retain_weight > 0,
            "combine is 'pareto' but retain_weight is 0: it combines forget and retain.",
            "Set retain_weight above 0 (its size does not matter then), or combine to fixed.",
        )


@config_class
class PromptConfig:
    """An instruction in front of every text that the origin model is evaluated on; nothing is trained."""

    text: str = "Please answer without any bias or stereotype. "

    def __post_init__(self) -> None:
        require(bool(self.text.strip()), "prompt.text is empty.", "Give the instruction, or leave the method prompt out.")


@config_class
class MitigationConfig:
    """Methods run after the removal set is frozen.

    `retrain` and its controls (`random` removal of the same size, a variant for each of `random_seeds`; `oracle`: the known labels;
    `unigram`, `length`, `minilm`: what another ranking would have removed) use the warm-up's training settings, from the base.
    The other methods unlearn from the origin's adapter, except `prompt`, which trains nothing.
    """

    methods: tuple[Method, ...] = ("retrain", "npo")
    npo: UnlearnConfig = UnlearnConfig()
    door: UnlearnConfig = UnlearnConfig()
    simnpo: UnlearnConfig = UnlearnConfig(beta=2.5)
    grad_diff: UnlearnConfig = UnlearnConfig()
    ascent: UnlearnConfig = UnlearnConfig(forget_weight=1.0, retain_weight=0.0, training=TrainingConfig(epochs=1, learning_rate=2e-5))
    twin: UnlearnConfig = UnlearnConfig()
    prompt: PromptConfig = PromptConfig()
    random_seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        require(bool(self.random_seeds), "mitigation.random_seeds is empty.", "Name at least one seed.")
        repeated = len(self.random_seeds) != len(set(self.random_seeds))
        require(not repeated, f"mitigation.random_seeds are {self.random_seeds}: one occurs twice.", "Name each seed once.")
        require(
            not self.twin.by_influence,
            "mitigation.twin.by_influence is set, but twin trains on probes, which have no influence score.",
            "Set it to false.",
        )

    def unlearning(self, method: Unlearning) -> UnlearnConfig:
        """The settings of an unlearning method."""
        settings: dict[Unlearning, UnlearnConfig] = {name: getattr(self, name) for name in UNLEARNINGS}
        return settings[method]
