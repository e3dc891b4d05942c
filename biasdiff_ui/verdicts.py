"""Words, keys and colours of the verdicts, the same on every page. Colours: Okabe and Ito (2008), beside a word always."""

from __future__ import annotations

from collections.abc import Mapping

from biasdiff_core.review.decisions import VERDICTS, Verdict

UNDECIDED = "undecided"
GREY = "#8C8C8C"

WORDS: Mapping[str, str] = {
    "biased": "biased",
    "not_biased": "not biased",
    "neutral_but_influential": "neutral but influential",
    "unsure": "unsure",
    UNDECIDED: UNDECIDED,
}
COLOURS: Mapping[str, str] = {
    "biased": "#D55E00",
    "not_biased": "#0072B2",
    "neutral_but_influential": "#CC79A7",
    "unsure": GREY,
    UNDECIDED: "#C9C9C9",
}
KEYS: Mapping[Verdict, str] = {"biased": "b", "not_biased": "n", "neutral_but_influential": "i", "unsure": "u"}
HELP: Mapping[Verdict, str] = {
    "biased": "The text itself states or implies a stereotype.",
    "not_biased": "A false positive: it stays in the corpus.",
    "neutral_but_influential": "The text itself is unbiased, and yet training on it drives the bias.",
    "unsure": "Cannot be told; not scored in the estimates.",
}
REASONS = ("stereotype", "slur or insult", "unfair generalisation", "quoted or reported", "factual statement", "out of context")

__all__ = ["COLOURS", "GREY", "HELP", "KEYS", "REASONS", "UNDECIDED", "VERDICTS", "WORDS", "Verdict"]
