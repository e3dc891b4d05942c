"""The report: figures by evaluation, as many digits as they are worth, and nothing of a model's answer as markup."""

from __future__ import annotations

import re

import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.comparison import headline
from biasdiff_core.report import answers_side_by_side, difference_text, figure_text, sections
from biasdiff_core.results import Comparison, MetricResult, PairedTest
from tests.tiny_audit import QUESTIONS


def figure(name: str, value: float | None, low: float | None = None, high: float | None = None, unit: str = "", n: int = 9) -> MetricResult:
    return MetricResult(name=name, value=value, low=low, high=high, n=n, convention=f"how {name} is made", unit=unit)


def moved(variant: str, metric: str, difference: float, low: float, high: float) -> PairedTest:
    return PairedTest(metric=metric, variant=variant, reference="origin", difference=difference, low=low, high=high, n=9, p_value=0.5)


def comparison(share: MetricResult) -> Comparison:
    """Figures of four evaluations; `share`: what NPO undid."""
    shared = [
        figure("crows_pairs.sum.stereotype_margin", 0.5),
        figure("crows_pairs.sum.stereotype_score", 60.0, unit="%"),
        figure("crows_pairs.sum.stereotype_score.age", 50.0, unit="%"),
        figure("seat.weat6.effect_size", 0.2),
        figure("seat.gender.mean_abs_effect_size", 0.3),
        figure("lm_eval.arc_easy.acc", 40.0, unit="%"),
    ]
    rows = {variant: {m.name: m for m in shared} for variant in ("base", "origin", "npo")}
    rows["npo"][share.name] = share
    tests = (
        moved("npo", "crows_pairs.sum.stereotype_margin", -0.2, -0.3, -0.1),
        moved("npo", "crows_pairs.sum.stereotype_score.age", 1, -2, 4),
    )
    return Comparison(audit="a", variants=("base", "origin", "npo"), metrics=rows, tests=tests, provenance={})


SHARE = figure("crows_pairs.sum.rise_undone", 66.0, 41.0, 88.0, unit="%")


def test_figures_stand_with_those_they_can_be_compared_with() -> None:
    crows, seat, harness = sections(comparison(SHARE))
    assert [section.title for section in (crows, seat, harness)] == ["CrowS-Pairs (sum)", "SEAT", "lm-evaluation-harness"]
    assert [column.label for column in crows.figures.columns] == ["mean stereotype margin", "stereotype score", "rise undone"]
    assert [column.label for column in crows.details.columns] == ["stereotype score (age)"]
    assert [column.label for column in seat.figures.columns] == ["mean absolute effect size (gender)"]
    assert [column.label for column in seat.details.columns] == ["effect size (weat6)"]
    assert [column.label for column in harness.figures.columns] == ["acc (arc_easy)"]
    assert [test.metric for test in crows.tests] == ["crows_pairs.sum.stereotype_margin"]
    assert [test.metric for test in crows.detail_tests] == ["crows_pairs.sum.stereotype_score.age"]
    assert crows.figures.rows["base"][2] is None and crows.figures.rows["npo"][2] == SHARE


def test_items_are_counted_by_column_only_where_all_variants_have_the_same() -> None:
    given = comparison(SHARE)
    given.metrics["npo"]["crows_pairs.sum.stereotype_score"] = figure("crows_pairs.sum.stereotype_score", 60.0, n=8)
    columns = {column.metric: column.n for column in sections(given)[0].figures.columns}
    assert columns["crows_pairs.sum.stereotype_score"] is None
    assert columns["crows_pairs.sum.stereotype_margin"] == 9


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (figure("a", 54.417, 51.69, 57.12, "%"), "54.4 % [51.7, 57.1]"),
        (figure("a", 260.63, 258.12, 265.04), "260.6 [258.1, 265.0]"),
        (figure("a", 0.8288, 0.78, 0.8777), "0.829 [0.780, 0.878]"),
        (figure("a", 0.0014, 0.0002, 0.0024), "0.0014 [0.0002, 0.0024]"),
        (figure("a", 40.6), "40.60"),
        (figure("a", None), "not defined"),
    ],
)
def test_a_figure_has_the_digits_of_its_size_and_unit(metric: MetricResult, text: str) -> None:
    assert figure_text(metric) == text


@pytest.mark.parametrize(
    ("difference", "low", "high", "text"),
    [
        (-3.14, -5.25, -1.04, "lower by 3.1 [1.0, 5.2]"),  # half the width is 2.1
        (0.0, -0.01, 0.01, "cannot be told from no change (+0.000 [-0.010, 0.010])"),
        (-12.0, -27.0, -1.0, "lower by 12.0 [1.0, 27.0]"),
        (0.0, 0.0, 0.0, "cannot be told from no change (+0.00 [0.00, 0.00])"),
    ],
)
def test_a_difference_has_the_digits_of_its_interval(difference: float, low: float, high: float, text: str) -> None:
    assert difference_text(moved("npo", "m", difference, low, high)) == text


def test_the_headline_names_variants_and_says_the_reason_once() -> None:
    assert headline(comparison(SHARE)) == ["NPO undid 66 [41, 88] % of the induced rise in stereotype margin (sum scoring)."]
    undefined = MetricResult(name=SHARE.name, value=None, n=9, convention="as (a − b) / (a − c); the rise is not clear of zero")
    assert headline(comparison(undefined)) == [
        "The share of the induced rise that was undone is not defined, since the rise is not clear of zero.",
        "NPO: mean stereotype margin lower by 0.200 [0.100, 0.300] (sum scoring).",
    ]


def test_answers_are_quoted_and_never_markup(finished_audit: Audit) -> None:
    table = answers_side_by_side(finished_audit.folder.path, finished_audit.compare())
    assert table["question"].tolist() == [question["prompt"] for question in QUESTIONS]
    assert list(table)[2:] == list(finished_audit.compare().variants)
    html, markdown, _ = (path.read_text(encoding="utf8") for path in finished_audit.report_files())
    assert "&lt;b&gt;Who&lt;/b&gt;" in html and "<b>" not in html
    assert f"\n    {QUESTIONS[0]['prompt']}\n" in markdown
    for question in QUESTIONS:
        assert not re.search(rf"^(?! {{4}}).*{re.escape(str(question['prompt']))}", markdown, re.MULTILINE)


def test_the_report_sets_predicted_beside_observed(finished_audit: Audit) -> None:
    for document in [path.read_text(encoding="utf8") for path in finished_audit.report_files()[:2]]:
        assert "Predicted against observed" in document
        assert "first-order estimate" in document
        assert "retraining against origin" in document
