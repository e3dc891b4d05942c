"""What each variant is judged by."""

from __future__ import annotations

from typing import Literal

from biasdiff_core.config.base import config_class, require, require_positive

Scoring = Literal["paper", "sum"]


@config_class
class CrowsPairsConfig:
    """`path`: `bundled` (the wheel fairllms) or a file in the original format. `pairs`: a seeded subset of so many, None for all 1508."""

    path: str = "bundled"
    scorings: tuple[Scoring, ...] = ("paper", "sum")
    pairs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(bool(self.scorings), "crows_pairs.scorings is empty.", "Name at least one of paper, sum.")
        require(self.pairs is None or self.pairs >= 10, f"crows_pairs.pairs is {self.pairs}, but fewer than 10 pairs say nothing.")


@config_class
class PerplexityConfig:
    """Held-out text, one document a line or a CSV/JSONL with `text_column`: `demo`, or a file. Never training rows (refused)."""

    path: str = "demo"
    text_column: str = "text"
    limit: int | None = 200


@config_class
class EvaluationConfig:
    """Evaluations of every variant, and the bootstrap that gives their intervals."""

    crows_pairs: CrowsPairsConfig = CrowsPairsConfig()
    perplexity: PerplexityConfig = PerplexityConfig()
    token_budget: int = 512
    bootstrap: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive("evaluation", token_budget=self.token_budget, bootstrap=self.bootstrap)
