"""What to review next: the stop hint by hand, against a slow twin and as a martingale; the yield of more reviews; which queue."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binom

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.design import mixed_order
from biasdiff_core.review.suggest import StopRule, expected_found, next_queue, stop_hint
from tests.reference.estimate_slow import Inspection, evidence_slow
from tests.reviews import read_in_part, review, reviewed

DEFAULT = StopRule()


def inspected(rows: list[Inspection]) -> list[tuple[int, bool, bool]]:
    """At places 0, 1, … in order: for the hint, only the order counts."""
    return [(place, biased, drawn) for place, (biased, drawn) in enumerate(rows)]


# --- the stop hint ----------------------------------------------------------------------------------------------------


def test_the_hint_by_hand() -> None:
    # 19 found by rank. 19 of 20 is 95 %, so the target is missed from 21 on, met with min(20, 0.95 · 21 = 19.95) = 19.95.
    # 3 draws of the 81 open, none biased: (1 − 0.95/81)(1 − 0.95/80)(1 − 0.95/79) / (1 − 2/81)(1 − 2/80)(1 − 2/79).
    hint = stop_hint(review(100, inspected([(True, False)] * 19 + [(False, True)] * 3)), DEFAULT)
    assert hint.evidence == pytest.approx((80.05 * 79.05 * 78.05) / (79 * 78 * 77))
    assert not hint.reached


def test_with_nothing_found_the_hint_is_that_nothing_is_left() -> None:
    # 1 biased example would miss the target, 0 meet it. n clean draws of 100: each is probable by 1 − 1/open: in all (100 − n)/100.
    hint = stop_hint(review(100, inspected([(False, True)] * 90)), DEFAULT)
    assert hint.evidence == pytest.approx(10)
    # 20 is reached when 5 are open; 5 draws more.
    assert hint.draws == 5
    assert stop_hint(review(100, inspected([(False, True)] * 96)), DEFAULT).reached


def test_where_the_target_cannot_be_missed_any_more_it_is_reached() -> None:
    # 40 found, 2 open: 40 of 42 is more than 95 %.
    hint = stop_hint(review(50, inspected([(True, False)] * 40 + [(False, False)] * 8)), DEFAULT)
    assert (hint.reached, hint.evidence) == (True, inf)
    assert not stop_hint(review(50, inspected([(True, False)] * 40 + [(False, False)] * 7)), DEFAULT).reached  # 40 of 43 is less
    assert not stop_hint(reviewed({}), DEFAULT).reached


def test_choices_alone_are_no_evidence() -> None:
    assert stop_hint(review(100, inspected([(True, False)] * 19 + [(False, False)] * 60)), DEFAULT).evidence == 1


rows = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12)


@given(rows, st.integers(1, 12), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_evidence_equals_the_slow_twin(made: list[Inspection], left_open: int, target: float) -> None:
    hint = stop_hint(review(len(made) + left_open, inspected(made)), StopRule(target=target))
    if hint.evidence != inf:
        assert hint.evidence == pytest.approx(float(evidence_slow(made, left_open, Fraction(str(target)))))


@given(rows, st.integers(1, 12), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.5, 0.8, 0.95]))
def test_it_takes_as_many_clean_draws_as_it_says(made: list[Inspection], left_open: int, target: float, confidence: float) -> None:
    size = len(made) + left_open
    rule = StopRule(target=target, confidence=confidence)
    hint = stop_hint(review(size, inspected(made)), rule)
    assert hint.draws <= left_open
    for more in range(hint.draws + 1):
        later = stop_hint(review(size, inspected([*made, *[(False, True)] * more])), rule)
        assert later.reached == (more == hint.draws)
        assert later.draws == hint.draws - more


def test_where_the_target_is_just_missed_the_evidence_is_a_martingale() -> None:
    """All outcomes of 4 draws, after the second of which a biased example is chosen: the mean of the evidence is 1 exactly.

    12 examples, 3 of them biased, which is the least total that misses a target of 0.8 where 2 are found. Where fewer are, the hint
    supposes a smaller total, and its evidence is no larger.
    """
    size, total = 12, 3
    mean = Fraction(0)
    for outcome in product([False, True], repeat=4):
        made: list[Inspection] = []
        chance = Fraction(1)
        for number, biased in enumerate(outcome):
            if number == 2 and sum(b for b, _ in made) < total:
                made.append((True, False))
            share = Fraction(total - sum(b for b, _ in made), size - len(made))
            chance *= share if biased else 1 - share
            made.append((biased, True))
        if chance:
            mean += chance * supposing(made, size, total)
            if sum(b for b, _ in made) < total:
                assert evidence_slow(made, size - len(made), Fraction(4, 5)) <= supposing(made, size, total)
    assert mean == 1


def supposing(made: list[Inspection], size: int, missed: int) -> Fraction:
    """The ratio with this total in place of the least that misses the target."""
    met, ratio, before = min(Fraction(missed - 1), Fraction(4, 5) * missed), Fraction(1), 0
    for number, (biased, drawn) in enumerate(made):
        if drawn:
            enough, too_few = max(Fraction(0), met - before) / (size - number), Fraction(missed - before, size - number)
            if biased or too_few:
                ratio *= enough / too_few if biased else (1 - enough) / (1 - too_few)
        before += biased
    return ratio


def test_who_stops_at_the_first_hint_is_wrong_no_more_often_than_granted() -> None:
    """300 reviews that look after every decision. With confidence 0.8 at most 60 may be wrong, and 3 standard errors, 7 each, more."""
    wrong, rule = 0, StopRule(target=0.8, confidence=0.8)
    for seed in range(300):
        generator = np.random.default_rng(seed)
        biased = np.arange(150) < 40
        labels = biased[np.argsort(-(generator.normal(size=150) + 1.5 * biased))]
        ids, drawn = mixed_order(tuple(map(str, range(150))), str(seed))
        order, flags = [int(id_) for id_ in ids], [id_ in drawn for id_ in ids]
        read = next(n for n in range(151) if stop_hint(read_in_part(labels, order[:n], flags[:n]), rule).reached)
        wrong += labels[order[:read]].sum() < 0.8 * 40
    assert wrong <= binom.ppf(0.999, 300, 0.2)


@pytest.mark.parametrize("shares", [{"target": 1.0}, {"target": 0.0}, {"confidence": 1.0}, {"confidence": -0.5}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ReviewError, match="between 0 and 1"):
        StopRule(**shares)


# --- the yield of more reviews ----------------------------------------------------------------------------------------


def test_the_yield_by_hand() -> None:
    # All 4 inspected examples are about the ranks to come, 3 biased: rate 3.5 / 5 with the weight of 5. Of 2 more: beta-binomial with
    # shapes 3.5 and 1.5: P(2) = 3.5 · 4.5 / (5 · 6) = 0.525, P(0) = 1.5 · 2.5 / 30 = 0.125, P(1) = 0.35.
    found = review(20, [(0, True, False), (1, True, False), (2, True, False), (3, False, False)])
    assert betabinom.pmf([0, 1, 2], 2, 3.5, 1.5) == pytest.approx([0.125, 0.35, 0.525])
    figure = expected_found(found, [4, 5])
    assert (figure.value, figure.low, figure.high) == (2, 0, 2)
    assert (figure.n, figure.not_scored, figure.unit) == (4, 16, "examples")


def test_the_yield_comes_from_the_ranks_about() -> None:
    """100 biased ranks, then 100 others, all inspected but 20 in the midst of either."""
    found = review(200, [(n, n < 100, False) for n in range(200) if not 40 <= n % 100 < 60])
    above, below = expected_found(found, range(40, 60)), expected_found(found, range(140, 160))
    assert above.value == 20 and above.low is not None and above.low > 15
    assert below.value == 0 and below.high is not None and below.high < 5


def test_no_yield_is_foretold_before_anything_is_inspected_or_of_nothing() -> None:
    assert expected_found(reviewed({}), [0, 1]).value is None
    assert expected_found(reviewed({0: "biased"}), []).value is None


# --- which queue ------------------------------------------------------------------------------------------------------


def test_ranks_go_on_while_they_promise_more() -> None:
    draws = [(n, False, True) for n in range(150, 400, 10)]
    assert next_queue(reviewed({})) == "mixed"
    assert next_queue(review(400, [(0, True, False), (9, True, True)])) == "mixed"
    assert next_queue(review(400, [(n, True, False) for n in range(60)])) == "mixed"  # without draws nothing is known of the others
    assert next_queue(review(400, [(n, True, False) for n in range(60)] + draws)) == "mixed"
    spent = [(n, n < 30, False) for n in range(140)]
    assert next_queue(review(400, spent + draws)) == "random"
