"""What variants and metrics are called."""

from __future__ import annotations

import pytest

from biasdiff_core.config import METHODS
from biasdiff_core.naming import metric_group, metric_label, variant_name


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("crows_pairs.sum.stereotype_score", "CrowS-Pairs (sum): stereotype score"),
        ("crows_pairs.paper.stereotype_score.age", "CrowS-Pairs (paper): stereotype score (age)"),
        ("perplexity", "Held-out text: perplexity"),
        ("perplexity_ratio", "Held-out text: perplexity over the reference's"),
        ("stereoset.ss", "StereoSet: stereotype score"),
        ("stereoset.icat.gender", "StereoSet: icat (gender)"),
        ("seat.weat6.effect_size", "SEAT: effect size (weat6)"),
        ("trex.exact_match", "T-REx: exact match"),
        ("lm_eval.arc_easy.acc", "lm-evaluation-harness: acc (arc_easy)"),
        ("lm_eval.gsm8k.exact_match.strict-match", "lm-evaluation-harness: exact_match strict-match (gsm8k)"),
        ("unheard.of", "unheard: of"),
    ],
)
def test_a_metric_is_named_with_its_evaluation_and_what_it_is_of(metric: str, name: str) -> None:
    assert f"{metric_group(metric)}: {metric_label(metric)}" == name


def test_variants_have_names_that_differ_and_seeds_are_kept() -> None:
    names = [variant_name(method) for method in METHODS]
    assert len(set(names)) == len(METHODS)
    assert (variant_name("npo"), variant_name("random-3"), variant_name("base")) == ("NPO", "random removal, seed 3", "base")
