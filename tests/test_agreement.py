"""Krippendorff's alpha and Cohen's kappa: published cases, slow twins, laws, and how often the interval holds the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.results import MetricResult
from biasdiff_core.review.agreement import ALL, agreement, cohen_kappa, krippendorff_alpha
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, Decision, Verdict
from tests.reference import agreement_slow as slow


def table(*rows: str) -> dict[str, dict[str, str]]:
    """Auditors' verdicts as letters, one row an auditor, one column an example; a dot is none."""
    return {f"auditor{n}": {f"e{i:02}": letter for i, letter in enumerate(row.split()) if letter != "."} for n, row in enumerate(rows)}


# --- published cases --------------------------------------------------------------------------------------------------


def test_alpha_of_two_auditors_and_two_verdicts() -> None:
    """Krippendorff 2011, example A."""
    # 10 examples: 14 zeros and 6 ones. 4 examples disagree, 8 ordered pairs; to be expected: 20² − 14² − 6² = 168 of 20 · 19.
    # alpha = 1 − 19 · 8 / 168 = 0.0952.
    found = krippendorff_alpha(table("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"))
    assert found.value == pytest.approx(1 - 152 / 168)
    assert (round(found.value or 0, 3), found.n, found.not_scored, found.chance) == (0.095, 10, 0, 0.0)


def test_alpha_of_two_auditors_and_five_verdicts() -> None:
    """Krippendorff 2011, example B."""
    # 24 verdicts: a 4, b 6, c 6, d 6, e 2, so 24² − (16 + 36 + 36 + 36 + 4) = 448. 3 examples disagree, 6 ordered pairs.
    # alpha = 1 − 23 · 6 / 448 = 0.6920.
    found = krippendorff_alpha(table("a a b b d c c c e d d a", "b a b b b c c c e d d d"))
    assert found.value == pytest.approx(1 - 138 / 448)
    assert round(found.value or 0, 3) == 0.692


def test_alpha_of_four_auditors_with_missing_verdicts() -> None:
    """Krippendorff 2011, example C; the last example has one verdict, which pairs with none."""
    # 40 verdicts that pair: 9, 13, 10, 5, 3 of the five kinds, so 40² − (81 + 169 + 100 + 25 + 9) = 1216.
    # Ordered pairs that differ, each example's divided by its verdicts − 1: 2 2 3 2 gives 6/3, 1 2 3 4 gives 12/3, 1 1 2 1 gives 6/3.
    # alpha = 1 − 39 · (2 + 4 + 2) / 1216 = 0.7434.
    rows = ("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 .")
    found = krippendorff_alpha(table(*rows))
    assert found.value == pytest.approx(1 - 312 / 1216)
    assert (round(found.value or 0, 3), found.n, found.not_scored) == (0.743, 11, 1)


def test_kappa_of_three_verdicts() -> None:
    """Cohen 1960, table 1: 200 cases."""
    # Margins .60 .30 .10 and .50 .30 .20: by chance .60 · .50 + .30 · .30 + .10 · .20 = .41; seen (88 + 40 + 12) / 200 = .70.
    # kappa = (.70 − .41) / .59 = .4915.
    cells = {"aa": 88, "ab": 10, "ac": 2, "ba": 14, "bb": 40, "bc": 6, "ca": 18, "cb": 10, "cc": 12}
    pairs = [pair for pair, times in cells.items() for _ in range(times)]
    found = cohen_kappa({str(i): one for i, (one, _) in enumerate(pairs)}, {str(i): other for i, (_, other) in enumerate(pairs)})
    assert found.value == pytest.approx(0.29 / 0.59)
    assert (round(found.value or 0, 3), found.n, found.not_scored) == (0.492, 200, 0)


# --- slow twins and laws ----------------------------------------------------------------------------------------------

verdicts_of_one = st.dictionaries(st.sampled_from("pqrstuvw"), st.sampled_from(["x", "y", "z", None]), max_size=8)


@given(st.lists(verdicts_of_one, min_size=1, max_size=4))
def test_alpha_equals_the_pairs_counted_one_by_one(rows: list[dict[str, str | None]]) -> None:
    ratings = {f"auditor{n}": row for n, row in enumerate(rows)}
    assert_equal(krippendorff_alpha(ratings), slow.krippendorff_alpha(ratings))


@given(verdicts_of_one, verdicts_of_one)
def test_kappa_equals_the_pairs_counted_one_by_one(first: dict[str, str | None], second: dict[str, str | None]) -> None:
    assert_equal(cohen_kappa(first, second), slow.cohen_kappa(first, second))


def assert_equal(found: MetricResult, expected: object) -> None:
    if expected is None:
        assert found.value is None and "Not defined" in found.convention
    else:
        assert found.value == pytest.approx(float(expected))  # type: ignore[arg-type]


@given(st.lists(verdicts_of_one, min_size=2, max_size=4), st.permutations("xyz"), st.randoms())
def test_neither_order_nor_names_count(rows: list[dict[str, str | None]], renamed: Sequence[str], random: object) -> None:
    names = dict(zip("xyz", renamed, strict=True)) | {None: None}  # type: ignore[operator]
    ratings = {f"auditor{n}": row for n, row in enumerate(rows)}
    other = {f"auditor{n}": {id_: names[v] for id_, v in reversed(row.items())} for n, row in enumerate(reversed(rows))}
    one, two = krippendorff_alpha(ratings), krippendorff_alpha(other)
    assert (two.n, two.not_scored) == (one.n, one.not_scored)
    assert two.value == (None if one.value is None else pytest.approx(one.value))


def test_verdicts_that_pair_with_none_change_nothing() -> None:
    ratings = table("a b b a b", "a b a a b")
    alone: dict[str, Mapping[str, str | None]] = {**ratings, "late": {"f1": "b", "f2": "a", "e00": None}}
    assert krippendorff_alpha(alone).value == krippendorff_alpha(ratings).value
    assert krippendorff_alpha(alone).not_scored == 2


def test_permuted_verdicts_agree_by_chance_alone() -> None:
    generator = np.random.default_rng(3)
    first, second = (list(generator.choice(list("aaabbc"), size=60)) for _ in range(2))
    values = []
    for _ in range(200):
        generator.shuffle(second)
        rows = table(" ".join(first), " ".join(second))
        values.append((krippendorff_alpha(rows).value or 0.0, cohen_kappa(rows["auditor0"], rows["auditor1"]).value or 0.0))
    # One kappa of 60 has a standard deviation below 0.13, the mean of 200 below 0.01; alpha's mean is 0 likewise, less 1 / (2 · 60).
    assert np.abs(np.mean(values, axis=0)).max() < 0.04


# --- intervals --------------------------------------------------------------------------------------------------------


def planted(generator: np.random.Generator, n: int, noise: float) -> dict[str, dict[str, str]]:
    """Two auditors who give the truth, or with probability `noise` a verdict drawn like it: true kappa and alpha (1 − noise)²."""
    shares = [0.5, 0.35, 0.15]
    truth = generator.choice(3, size=n, p=shares)
    rows = [np.where(generator.random(n) < noise, generator.choice(3, size=n, p=shares), truth) for _ in range(2)]
    return table(*(" ".join("abc"[v] for v in row) for row in rows))


def test_the_interval_holds_the_planted_value_as_often_as_it_says() -> None:
    generator, runs, true = np.random.default_rng(5), 200, 0.8**2
    held = np.zeros(2)
    for _ in range(runs):
        rows = planted(generator, 80, noise=0.2)
        for which, found in enumerate((krippendorff_alpha(rows), cohen_kappa(rows["auditor0"], rows["auditor1"]))):
            assert found.low is not None and found.high is not None
            held[which] += found.low <= true <= found.high
    # Binomial(200, 0.95) lies within 176 … 199 but for 1 in 10,000.
    assert (held >= 176).all() and (held <= 199).all()


def test_the_interval_is_that_of_examples_drawn_one_by_one() -> None:
    rows = planted(np.random.default_rng(7), 40, noise=0.3)
    generator, ids = np.random.default_rng(8), sorted(rows["auditor0"])
    values = []
    for _ in range(1000):
        drawn = [ids[i] for i in generator.integers(0, len(ids), len(ids))]
        values.append(slow.cohen_kappa(*({str(place): row[id_] for place, id_ in enumerate(drawn)} for row in rows.values())))
    found = cohen_kappa(rows["auditor0"], rows["auditor1"])
    low, high = np.quantile(np.array(values, dtype=float), [0.025, 0.975])
    # A bound of 1,000 draws has a standard error below 0.015 here.
    assert found.low == pytest.approx(low, abs=0.05)
    assert found.high == pytest.approx(high, abs=0.05)


def test_no_interval_where_resampling_says_nothing() -> None:
    unanimous = krippendorff_alpha(table("a b a b a b a b", "a b a b a b a b"))
    assert (unanimous.value, unanimous.low, unanimous.high) == (1.0, None, None)
    assert "every resample has the same value" in unanimous.convention
    # (2/3)³ = 30 % of the resamples of these 3 examples do not hold the third, and then `a` alone occurs.
    few = krippendorff_alpha(table("a a b", "a a a"))
    assert few.value is not None and few.low is None
    assert "in more than 5%" in few.convention


@pytest.mark.parametrize(
    ("rows", "n", "why"), [((), 0, "no example"), (("a b . .", ". . a b"), 0, "no example"), (("a a", "a a"), 2, "one verdict")]
)
def test_what_is_not_defined_says_why(rows: Sequence[str], n: int, why: str) -> None:
    found = krippendorff_alpha(table(*rows))
    assert (found.value, found.low, found.high, found.n) == (None, None, None, n)
    assert why in found.convention


# --- from decisions ---------------------------------------------------------------------------------------------------


def held(auditor: str, **verdicts: Verdict) -> dict[str, Decision]:
    common = {"auditor": auditor, "reason": "", "created": "", "inspected": True, "action_id": "1", "selection": None}
    return {id_: Decision(example_id=id_, verdict=verdict, **common) for id_, verdict in verdicts.items()}  # type: ignore[arg-type]


def test_figures_over_all_and_by_bias_type_by_hand() -> None:
    verdicts = {
        "Bo": held("Bo", a="biased", b="not_biased", c="biased", d="unsure", e="not_biased"),
        "Ana": held("Ana", a="biased", b="not_biased", c="not_biased", d="biased", f="biased"),
    }
    rows = agreement(verdicts, {"a": "age", "b": "age", "c": "gender", "d": "gender"})
    assert [row.bias_type for row in rows] == [ALL, "age", "gender"]
    overall, age, gender = rows
    assert list(overall.kappas) == [("Ana", "Bo")]
    # a, b, c have two verdicts; d has one (unsure is none), e and f have one.
    assert (overall.alpha.n, overall.alpha.not_scored) == (3, 3)
    # 3 biased and 3 not of 6; c disagrees, 2 ordered pairs: alpha = 1 − 5 · 2 / (36 − 18) = 4/9.
    assert overall.alpha.value == pytest.approx(4 / 9)
    # Ana 1 of 3 biased, Bo 2 of 3: by chance 1/3 · 2/3 + 2/3 · 1/3 = 4/9; kappa = (2/3 − 4/9) / (5/9) = 0.4.
    assert overall.kappas["Ana", "Bo"].value == pytest.approx(0.4)
    assert (age.alpha.value, age.alpha.n) == (1.0, 2)
    # c alone, and they differ: 1 − 1 · 2 / (4 − 2) = 0.
    assert (gender.alpha.value, gender.alpha.n, gender.alpha.not_scored) == (0.0, 1, 1)


def test_every_pair_has_a_kappa_and_the_simulated_auditor_is_named() -> None:
    verdicts = {name: held(name, a="biased", b="not_biased") for name in ("Cem", SIMULATED_AUDITOR, "Ana")}
    (overall,) = agreement(verdicts, {})
    assert list(overall.kappas) == [("Ana", "Cem"), ("Ana", SIMULATED_AUDITOR), ("Cem", SIMULATED_AUDITOR)]
    assert "simulated auditor" in overall.alpha.convention
    assert "simulated auditor" not in overall.kappas["Ana", "Cem"].convention
    assert "simulated auditor" in overall.kappas["Ana", SIMULATED_AUDITOR].convention


def test_without_decisions_there_is_one_row_and_no_figure() -> None:
    (overall,) = agreement({}, {})
    assert (overall.alpha.value, overall.alpha.n, overall.kappas) == (None, 0, {})
