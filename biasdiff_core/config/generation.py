"""How probe pairs are generated: which model and prompt, what is accepted, what it may cost."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from biasdiff_core.config.base import config_class, require, require_fraction, require_positive

PromptName = Literal["guided", "paper"]
# The nine of CrowS-Pairs (Nangia et al. 2020) and of the paper's Appendix E.
BIAS_TYPES = (
    "race-color",
    "socioeconomic",
    "gender",
    "disability",
    "nationality",
    "age",
    "physical-appearance",
    "religion",
    "sexual-orientation",
)


@config_class
class PairRules:
    """What a pair must keep to. `min_words`, `max_words`: length of the probe and of its twin.

    `max_overlap`: from this Jaccard index of their sets of words on, two texts are near-duplicates. At 0.7, one word changed in a
    sentence of 8 different ones is one (7 shared of 9), three in a sentence of 15 are not (12 of 18).
    """

    bias_types: tuple[str, ...] = BIAS_TYPES
    min_words: int = 5
    max_words: int = 40
    max_overlap: float = 0.7

    def __post_init__(self) -> None:
        unknown = [name for name in self.bias_types if name not in BIAS_TYPES]
        require(not unknown, f"rules.bias_types names {', '.join(map(repr, unknown))}.", f"Choose from {', '.join(BIAS_TYPES)}.")
        require(bool(self.bias_types), "rules.bias_types is empty.", "Name at least one, or leave it out for all nine.")
        require_positive("rules", min_words=self.min_words, max_overlap=self.max_overlap)
        require_fraction("rules", max_overlap=self.max_overlap)
        require(self.min_words <= self.max_words, f"rules.min_words is {self.min_words}, but rules.max_words {self.max_words}.")


@config_class
class Budget:
    """What a run may use, all its continuations together. Tokens are those that the server reports, else estimated.

    `max_requests`: failed ones count. `max_tokens`: of prompts and answers; `answer_tokens`: of one answer. `per_minute`: requests, inf
    for no limit. `price_in`, `price_out`: money per million tokens of prompts and of answers; only for showing what it costs.
    """

    max_requests: int = 60
    max_tokens: int = 200_000
    answer_tokens: int = 2_000
    per_minute: float = 30.0
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("max_requests", "max_tokens", "answer_tokens")}
        require_positive("budget", **limits)
        require(self.per_minute > 0, f"budget.per_minute is {self.per_minute}, but must be above 0.", "Give a positive number, or inf.")
        prices = (self.price_in, self.price_out)
        require(
            (self.price_in is None) == (self.price_out is None),
            f"budget.price_in and budget.price_out are {prices!r}: one alone gives no cost.",
            "Give both or neither.",
        )
        require(all(price is None or price >= 0 for price in prices), f"budget.price_in and budget.price_out are {prices!r}, below 0.")


@config_class
class GenerationConfig:
    """`count`: pairs wanted. `prompt`: `guided` (our own, with `examples`) or `paper` (Appendix E, which has its own examples).

    `examples`: `demo` or a file with the columns `text`, `twin` and `bias_type`, whose rows are shown to the model.
    `temperature`: None leaves it to the server. `seed` chooses examples and settings of each request.
    """

    model: str
    prompt: PromptName = "guided"
    examples: str | None = None
    count: int = 90
    temperature: float | None = None
    seed: int = 0
    rules: PairRules = field(default_factory=PairRules)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        require_positive("generation", count=self.count)
        require(bool(self.model.strip()), "generation.model is empty.", "Name a model that the endpoint serves.")
        require(
            self.prompt == "guided" or self.examples is None,
            f"generation.prompt is 'paper' and generation.examples is {self.examples!r}: that prompt has its own examples.",
            "Leave the examples out, or use the prompt 'guided'.",
        )
