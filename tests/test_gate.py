"""Conditions on a comparison: grammar, which figures are meant, and reasons in words."""

from __future__ import annotations

import pytest

from biasdiff_core.errors import ConfigError
from biasdiff_core.gate import parse_condition, reasons_to_fail
from biasdiff_core.results import Comparison, MetricResult


def figure(name: str, value: float | None, low: float | None = None, high: float | None = None) -> MetricResult:
    return MetricResult(name=name, value=value, low=low, high=high, n=9, convention="as made here")


def comparison() -> Comparison:
    """Base at 0.1, origin at 0.8, retrain at 0.4, each ± 0.05, in `sum`; `paper` is elsewhere, to be told apart."""
    rows = {}
    for variant, value in (("base", 0.1), ("origin", 0.8), ("retrain", 0.4)):
        made = [
            figure("crows_pairs.paper.stereotype_margin", -value),
            figure("crows_pairs.sum.stereotype_margin", value, value - 0.05, value + 0.05),
            figure("perplexity", 20.0, 19.0, 21.0),
        ]
        rows[variant] = {m.name: m for m in made}
    rows["retrain"]["crows_pairs.sum.rise_undone"] = figure("crows_pairs.sum.rise_undone", None)
    return Comparison(audit="a", variants=("base", "origin", "retrain"), metrics=rows, tests=(), provenance={})


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("stereotype_margin.high > base.high", True),  # 0.45 > 0.15
        ("stereotype_margin.high > origin.high", False),  # 0.45 > 0.85 does not hold
        ("sum.stereotype_margin.value>=0.4", True),
        ("crows_pairs.paper.stereotype_margin.value > 0", False),  # −0.4
        ("perplexity.low <= 18.5", False),
        ("perplexity.low < 2e1", True),
    ],
)
def test_a_condition_that_holds_fails_with_its_reason(text: str, fails: bool) -> None:
    reasons = reasons_to_fail(comparison(), [parse_condition(text)], ["retrain"])
    assert bool(reasons) == fails
    if fails:
        assert reasons[0].startswith(f"retrain: {text.strip()}: ")


def test_both_sides_stand_in_the_reason() -> None:
    (reason,) = reasons_to_fail(comparison(), [parse_condition("stereotype_margin.high > base.high")], ["retrain"])
    assert "crows_pairs.sum.stereotype_margin high is 0.4500 > 0.1500 (base's high)" in reason


def test_a_figure_that_is_not_defined_fails() -> None:
    (reason,) = reasons_to_fail(comparison(), [parse_condition("rise_undone.low < 50")], ["retrain"])
    assert "not defined" in reason and "as made here" in reason


@pytest.mark.parametrize("text", ["", "stereotype_margin > 1", "a.high = 1", "a.high > base", "a.high > one", "a.high > 1 > 2"])
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="perplexity_ratio"):
        parse_condition(text)


def test_an_end_that_several_metrics_have_is_refused_with_them() -> None:
    made = comparison()
    for variant, figures in made.metrics.items():
        for name in ("stereoset.icat.gender", "crows_pairs.sum.stereotype_score.gender", "seat.gender.effect", "seat.race.effect"):
            figures[name] = figure(name, 0.1 if variant == "base" else 0.9)
    for text in ("gender.value > base.value", "effect.value > base.value"):
        with pytest.raises(ConfigError, match=r"may be .*, .*\. Write more"):
            reasons_to_fail(made, [parse_condition(text)], ["retrain"])
    assert len(reasons_to_fail(made, [parse_condition("seat.race.effect.value > base.value")], ["retrain"])) == 1


def test_a_whole_name_is_meant_before_an_end() -> None:
    made = comparison()
    made.metrics["retrain"]["lm_eval.wikitext.perplexity"] = figure("lm_eval.wikitext.perplexity", 90.0)
    (reason,) = reasons_to_fail(made, [parse_condition("perplexity.value > 1")], ["retrain"])
    assert "perplexity value is 20.0000" in reason


def test_unknown_metrics_and_variants_are_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'nothing'.*perplexity"):
        reasons_to_fail(comparison(), [parse_condition("nothing.high > 1")], ["retrain"])
    with pytest.raises(ConfigError, match=r"no variant 'npo'.*retrain"):
        reasons_to_fail(comparison(), [parse_condition("perplexity.high > npo.high")], ["retrain"])
