"""How a review is drawn, and how its decisions are read back: order by hash, the mixed queue, what counts as a draw and when."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from biasdiff_core.review.decisions import SIMULATED_AUDITOR, Decision, DecisionLog
from biasdiff_core.review.design import EVERY, Review, mixed_order, origin, review_so_far, uniform_order
from biasdiff_core.workspace.database import database
from tests.reviews import RANKING, decisions, review, reviewed

SEED = "audit-1"
SLICE = uniform_order(tuple(RANKING), SEED)


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(database(tmp_path), "audit", known_ids=[*RANKING, "unranked"])


def seen(log: DecisionLog) -> Review:
    return review_so_far(RANKING, log.current(), log.first_inspected())


def inspect(log: DecisionLog, ids: list[str], drawn: tuple[str, ...] = (), verdict: str = "not_biased") -> None:
    """One action on these, some of them drawn."""
    log.decide_each([(id_, verdict, "") for id_ in ids], "Ann", origin("mixed", ids, drawn, SEED))  # type: ignore[misc]


def places(review: Review, *, drawn: bool) -> list[int]:
    return review.places[review.drawn == drawn].tolist()


# --- drawing ----------------------------------------------------------------------------------------------------------


@given(st.sets(st.text(max_size=4), max_size=12), st.data())
def test_the_order_of_a_part_is_that_of_the_whole_without_the_others(ids: set[str], data: st.DataObject) -> None:
    part = data.draw(st.permutations(sorted(ids)))[: len(ids) // 2]
    whole = uniform_order(tuple(sorted(ids)), SEED)
    assert sorted(whole) == sorted(ids)
    assert uniform_order(tuple(part), SEED) == tuple(id_ for id_ in whole if id_ in part)


def test_every_order_is_as_likely() -> None:
    seeds = 2_400
    counts = Counter(uniform_order(("a", "b", "c", "d"), str(seed)) for seed in range(seeds))
    # 24 orders, 100 expected of each; chi-square with 23 degrees of freedom.
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < chi2.ppf(0.999, 23)


def test_each_fifth_of_the_mixed_order_is_the_next_of_the_slice() -> None:
    ids, drawn = mixed_order(RANKING, SEED)
    at_random, by_rank, expected = list(SLICE), list(RANKING), []
    for number in range(1, 21):
        source = at_random if number % EVERY == 0 else by_rank
        expected.append(source[0])
        at_random.remove(expected[-1])
        by_rank.remove(expected[-1])
    assert ids == tuple(expected)
    assert drawn == frozenset(expected[EVERY - 1 :: EVERY])
    assert mixed_order([], SEED) == ((), frozenset())


def test_the_origin_names_only_what_of_these_is_drawn() -> None:
    assert origin("mixed", ["a", "b"], {"b", "c"}, SEED) == {"queue": "mixed", "drawn": ["b"], "seed": SEED}
    assert origin("mixed", ["a"], {"b"}, SEED) == {"queue": "mixed"}


# --- reading back -----------------------------------------------------------------------------------------------------


def test_what_is_inspected_and_what_is_open() -> None:
    verdicts = {3: "biased", 0: "not_biased", 1: "neutral_but_influential", 2: "unsure"}
    found = reviewed(verdicts)
    assert found.places.tolist() == [3, 0, 1]  # in the order of the decisions; the unsure one is neither scored nor open
    assert found.biased.tolist() == [True, False, False]
    assert np.flatnonzero(found.open).tolist() == list(range(4, 20))
    assert not found.drawn.any() and not found.simulated
    assert reviewed({0: "biased"}, auditor=SIMULATED_AUDITOR).simulated


def test_bulk_decisions_and_unranked_examples_never_enter(log: DecisionLog) -> None:
    log.decide_many(RANKING, "biased", "Ann")
    log.decide("unranked", "biased", "Ann")
    assert len(seen(log).places) == 0
    assert seen(log).open.all()
    inspect(log, ["e4"])
    log.decide_many(["e4"], "biased", "Ann")  # what holds on it now is no inspected verdict
    assert len(seen(log).places) == 0


def test_a_later_verdict_holds_and_the_first_look_says_how_it_was_selected(log: DecisionLog) -> None:
    inspect(log, ["e0", SLICE[0]], drawn=SLICE)
    log.decide(SLICE[0], "biased", "Bo", selection={"page": "explore"})
    found = seen(log)
    assert places(found, drawn=True)[-1] == RANKING.index(SLICE[0])
    assert found.biased.sum() == 1


def test_draws_after_one_that_is_passed_over_wait_for_it(log: DecisionLog) -> None:
    inspect(log, list(SLICE[:2]), drawn=SLICE)
    inspect(log, [SLICE[3]], drawn=SLICE)
    assert places(seen(log), drawn=True) == [RANKING.index(id_) for id_ in SLICE[:2]]
    assert places(seen(log), drawn=False) == [RANKING.index(SLICE[3])]
    inspect(log, [SLICE[5]])
    inspect(log, [SLICE[2]], drawn=SLICE)
    # Only now SLICE[3] counts as a draw, and after all that was inspected before.
    assert [RANKING[place] for place in seen(log).places] == [SLICE[0], SLICE[1], SLICE[5], SLICE[2], SLICE[3]]
    assert places(seen(log), drawn=False) == [RANKING.index(SLICE[5])]


def test_what_is_chosen_by_rank_is_no_draw_though_the_slice_comes_to_it(log: DecisionLog) -> None:
    inspect(log, [SLICE[0]])
    inspect(log, [SLICE[1]], drawn=SLICE)
    assert places(seen(log), drawn=True) == [RANKING.index(SLICE[1])]


def test_a_draw_of_another_slice_counts_in_its_own_order(log: DecisionLog) -> None:
    other = uniform_order(tuple(RANKING), "parent")
    log.decide(other[0], "biased", "Ann", selection=origin("random", [other[0]], other, "parent"))
    assert places(seen(log), drawn=True) == [RANKING.index(other[0])]


def test_undone_decisions_leave_no_trace(log: DecisionLog) -> None:
    inspect(log, ["e1"])
    inspect(log, ["e0"])
    log.undo("Ann")
    inspect(log, ["e2"])
    log.undo("Ann", log.actions()[0].action_id)
    assert seen(log).places.tolist() == [2]


def test_the_first_look_is_followed_as_it_is_read_anew(log: DecisionLog, tmp_path: Path) -> None:
    inspect(log, ["e3", "e1"])
    assert list(log.first_inspected()) == ["e3", "e1"]
    log.decide_many(["e2"], "biased", "Ann")
    log.decide_each([("e1", "biased", ""), ("e2", "biased", "")], "Bo")
    first = log.first_inspected()
    assert [(id_, decision.auditor) for id_, decision in first.items()] == [("e3", "Ann"), ("e1", "Ann"), ("e2", "Bo")]
    assert first == DecisionLog(database(tmp_path), "audit").first_inspected()


@pytest.mark.parametrize(
    ("inspected", "expected"),
    [
        ([], 0),
        ([0, 1, 2], 3),
        ([0, 1, 5], 2),  # above rank 6, 3 of 6 are open
        ([1], 0),  # above rank 2, 1 of 2
        ([*range(1, 11)], 11),  # above rank 11, 1 of 11 is open: passed over
        ([*range(1, 9)], 0),  # above rank 9, 1 of 9 is open, more than a tenth
    ],
)
def test_ranks_count_as_reached_where_hardly_any_above_is_open(inspected: list[int], expected: int) -> None:
    assert review(20, [(place, False, False) for place in inspected]).reached == expected


def test_a_draw_reaches_no_rank() -> None:
    assert review(20, [(0, False, False), (1, False, True), (2, False, True)]).reached == 1


def test_whatever_is_chosen_a_draw_is_uniform_over_what_is_open() -> None:
    """An auditor who pursues finds: after a biased draw they read its neighbours. The next draw is still any of the open ones."""
    biased = {f"e{n}" for n in range(0, 20, 3)}
    hits, expected, variance = 0, 0.0, 0.0
    for seed in range(1_500):
        order = uniform_order(tuple(RANKING), str(seed))
        done = {order[0]}
        if order[0] in biased:
            place = RANKING.index(order[0])
            done |= set(RANKING[max(0, place - 3) : place + 4])
        left = [id_ for id_ in RANKING if id_ not in done]
        share = len(biased & set(left)) / len(left)
        hits += next(id_ for id_ in order if id_ not in done) in biased
        expected, variance = expected + share, variance + share * (1 - share)
    assert abs(hits - expected) < 3.5 * variance**0.5


def test_a_decision_from_elsewhere_needs_no_origin() -> None:
    made = decisions({0: "biased", 1: "biased"}, selection={"imported": "a.csv"})
    assert not review_so_far(RANKING, made, made).drawn.any()
    assert isinstance(made["e0"], Decision)
