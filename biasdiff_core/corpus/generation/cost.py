"""What a run will use, said before anything is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from biasdiff_core.config.generation import Budget
from biasdiff_core.corpus.generation.prompt import ROWS

CHARACTERS_PER_TOKEN = 4  # a rule of thumb for English; tokenizers differ
ANSWER_TOKENS_PER_PAIR = 60  # two sentences of 20 words and the keys around them


def estimated_tokens(characters: int) -> int:
    """Tokens of English text of this length, roughly."""
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Requests, tokens and money still to be spent: expected if every pair is accepted, and at most, by the budget. About, not exactly.

    Money is None without prices.
    """

    requests: int
    prompt_tokens: int
    answer_tokens: int
    money: float | None
    most_requests: int
    most_tokens: int
    most_money: float | None

    def sentence(self) -> str:
        """For people, before they agree."""
        expected = f"{requests_of(self.requests)}, about {self.prompt_tokens:,} prompt and {self.answer_tokens:,} answer tokens"
        most = f"{requests_of(self.most_requests)} and {self.most_tokens:,} tokens"
        if self.money is not None and self.most_money is not None:
            expected += f", price {self.money:.4f}"
            most += f", price {self.most_money:.4f}"
        return f"Expected if every pair is accepted: {expected}. At most: {most}."


def expected_cost(budget: Budget, *, missing: int, prompt_tokens: int, requests_made: int, tokens_used: int) -> Cost:
    """The cost of `missing` more pairs when a request takes `prompt_tokens`, and what the budget leaves."""
    most_requests = max(0, budget.max_requests - requests_made)
    requests = min(most_requests, math.ceil(missing / ROWS))
    answer = min(budget.answer_tokens, ROWS * ANSWER_TOKENS_PER_PAIR)
    full = prompt_tokens + budget.answer_tokens
    # Requests that use all their answer's tokens: the dearest that the budget lets through.
    most_full = min(float(most_requests), max(0, budget.max_tokens - tokens_used) / full)
    return Cost(
        requests=requests,
        prompt_tokens=requests * prompt_tokens,
        answer_tokens=requests * answer,
        money=money(budget, requests * prompt_tokens, requests * answer),
        most_requests=most_requests,
        most_tokens=round(most_full * full),
        most_money=money(budget, most_full * prompt_tokens, most_full * budget.answer_tokens),
    )


def requests_of(count: int) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} request{'' if count == 1 else 's'}"


def money(budget: Budget, prompt_tokens: float, answer_tokens: float) -> float | None:
    """By the budget's prices per million tokens; None without prices."""
    if budget.price_in is None or budget.price_out is None:
        return None
    return (prompt_tokens * budget.price_in + answer_tokens * budget.price_out) / 1_000_000
