"""Every figure that the program can produce has a definition, an ideal, a direction and a source."""

from __future__ import annotations

import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.config.evaluation import SeatConfig
from biasdiff_core.evaluation import seat, stereoset, suites
from biasdiff_core.evaluation.detection import SCORES
from biasdiff_core.guide import GUIDES, guide_key, guide_of, guides
from biasdiff_core.results import MetricResult
from biasdiff_core.review.agreement import agreement
from biasdiff_core.review.estimate import biased_examples, biased_left, coverage_at, precision_at, share_found
from biasdiff_core.review.suggest import expected_found
from tests.reviews import decisions, reviewed
from tests.test_seat import seat_test
from tests.test_stereoset import context_test, scores_of
from tests.tiny_models import tiny_base
from tests.tiny_tokenizer import byte_tokenizer


def produced(audit: Audit) -> set[str]:
    """Names of what the suites, detection, the review and the probing set's judgement give."""
    review = reviewed({0: "biased", 1: "not_biased"})
    metrics: list[MetricResult] = [figure(review) for figure in (biased_examples, biased_left, share_found)]
    metrics += [coverage_at(review, 5), precision_at(review, 5), expected_found(review, [5])]
    metrics += [
        figure
        for row in agreement({"Ann": decisions({0: "biased"}), "Bo": decisions({0: "unsure"})}, {})
        for figure in (row.alpha, *row.kappas.values())
    ]
    metrics += [figure for rows in audit.compare().metrics.values() for figure in rows.values()]
    metrics += [*audit.detection(), *audit.probe_quality().metrics]
    metrics += stereoset.figures(scores_of([[0.3, 0.2, 0.1]], [context_test(0)]), bootstrap=20, seed=0)
    tests = [seat_test(name) for name in ("weat6", "weat8b")]
    metrics += seat.figures(tiny_base(), byte_tokenizer(), tests, SeatConfig(path="none"), token_budget=128, bootstrap=20)
    named = {f"detection.{name}.auroc" for name in SCORES} | suites.ITEM_METRICS.keys() | {"effect.rank_correlation", "lm_eval.piqa.acc"}
    return {metric.name for metric in metrics} | named


def test_every_figure_has_a_guide(finished_audit: Audit) -> None:
    names = produced(finished_audit)
    assert {"crows_pairs", "perplexity", "perplexity_ratio", "stereoset", "seat", "trex", "probes", "detection"} <= {
        name.partition(".")[0] for name in names
    }
    assert "seat.gender.mean_abs_effect_size" in names and "stereoset.icat" in names
    for name in names:
        guide = guide_of(name)
        assert all((guide.definition.endswith("."), guide.ideal, guide.direction, guide.source)), name


def test_no_entry_is_of_a_figure_that_nothing_gives(finished_audit: Audit) -> None:
    used = {guide_key(name) for name in produced(finished_audit)}
    strip = {"examples", "candidates", "decided", "style_alarm"}
    others = {"crows_pairs.removable_undone"}  # beside the oracle alone, which this audit has not
    assert GUIDES.keys() - used == strip | others


def test_parts_of_a_name_that_do_not_matter_are_passed_over() -> None:
    assert guide_key("crows_pairs.sum.stereotype_score.age") == "crows_pairs.stereotype_score"
    assert guide_key("probes.margin.gender") == "probes.margin"
    assert list(guides(["detection.score.auroc", "crows_pairs.paper.stereotype_score", "crows_pairs.sum.stereotype_score.age"])) == [
        "detection: auroc",
        "CrowS-Pairs: stereotype score",
    ]
    with pytest.raises(KeyError, match="crows_pairs.sum.other"):
        guide_of("crows_pairs.sum.other")
