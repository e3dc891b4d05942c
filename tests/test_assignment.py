"""Who reviews what: balanced at every depth, deterministic, finished work stays where it is; what is hidden until one's own verdict."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.assignment import Terms, announce, announced, assign, assignment_by, reviewed_twice, terms_of
from biasdiff_core.review.blind import second_reviews, still_to_review, visible
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, DecisionLog
from biasdiff_core.workspace.database import database

IDS = [f"e{n}" for n in range(60)]
NAMES = ("Ana", "Bo", "Cem", "Dee")


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(database(tmp_path), "audit", known_ids=IDS)


def in_force(log: DecisionLog) -> dict[str, tuple[str, ...]]:
    action = announced(log.actions())
    assert action is not None
    return assignment_by(action, log, IDS)


def terms(*auditors: str, overlap: float = 0.0, seed: int = 0) -> Terms:
    return Terms(auditors=auditors, overlap=overlap, seed=seed)


# --- the deal ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(2, 4), st.integers(0, 200), st.integers(0, 9))
def test_every_depth_is_balanced_and_nobody_reviews_twice(n: int, people: int, halves: int, seed: int) -> None:
    found = assign(IDS[:n], terms(*NAMES[:people], overlap=halves / 2, seed=seed), {})
    assert list(found) == IDS[:n]
    dealt = Counter(dict.fromkeys(NAMES[:people], 0))
    for auditors in found.values():
        assert len(set(auditors)) == len(auditors) in (1, 2)
        dealt.update(auditors)
        assert max(dealt.values()) - min(dealt.values()) <= 1


@given(st.integers(0, 60), st.integers(0, 200), st.integers(0, 9))
def test_the_overlap_is_met_at_every_depth(n: int, halves: int, seed: int) -> None:
    twice = reviewed_twice(IDS, terms("Ana", "Bo", overlap=halves / 2, seed=seed))
    # One of each 100 / overlap ranks: at any depth the share is met but for the one group that is cut through.
    assert abs(len(twice & set(IDS[:n])) - n * halves / 200) <= 1


def test_one_of_each_five_is_reviewed_twice() -> None:
    twice = reviewed_twice(IDS, terms("Ana", "Bo", overlap=20.0))
    assert [len(twice & set(IDS[start : start + 5])) for start in range(0, 60, 5)] == [1] * 12
    assert len({IDS.index(id_) % 5 for id_ in twice}) > 1  # drawn, not always the same place
    assert reviewed_twice(IDS, terms("Ana", "Bo", overlap=100.0)) == set(IDS)


def test_names_and_seed_alone_decide() -> None:
    one = assign(IDS, terms("Ana", "Bo", "Cem", overlap=30), {})
    assert assign(IDS, terms("Cem", "Ana", "Bo", overlap=30), {}) == one
    assert assign(IDS, terms("Ana", "Bo", "Cem", overlap=30, seed=1), {}) != one
    # Written down once: the deal is the same on every machine and in every version, or an audit's assignment would change.
    first_four = {"e0": ("Bo",), "e1": ("Ana", "Bo"), "e2": ("Ana", "Bo"), "e3": ("Ana",)}
    assert assign(IDS[:4], terms("Ana", "Bo", overlap=50), {}) == first_four


finished_work = st.dictionaries(st.sampled_from(["Ana", "Bo", "Zoe"]), st.sets(st.sampled_from(IDS)), max_size=3)


@given(finished_work, st.integers(0, 9))
def test_who_joins_changes_no_finished_work(finished: dict[str, set[str]], seed: int) -> None:
    now = terms("Ana", "Bo", "Cem", overlap=20, seed=seed)
    found, twice = assign(IDS, now, finished), reviewed_twice(IDS, now)
    for id_ in IDS:
        seated = {name for name, done in finished.items() if id_ in done}
        seats = 2 if id_ in twice else 1
        assert seated <= set(found[id_])
        assert len(found[id_]) == max(len(seated), seats)
        assert "Cem" not in found[id_] or len(seated) < seats  # the newcomer takes what was open, and no more


def test_finished_work_is_not_made_up_for() -> None:
    # Ana did the first 20; of the 40 that are open each of the three gets a third.
    found = assign(IDS, terms("Ana", "Bo", "Cem"), {"Ana": set(IDS[:20])})
    assert [found[id_] for id_ in IDS[:20]] == [("Ana",)] * 20
    assert sorted(Counter(name for id_ in IDS[20:] for name in found[id_]).values()) == [13, 13, 14]


@pytest.mark.parametrize(
    ("given_terms", "why"),
    [
        ({"auditors": (), "overlap": 0}, "needs auditors"),
        ({"auditors": ("Ana", " "), "overlap": 0}, "each with a name"),
        ({"auditors": ("Ana", "Ana"), "overlap": 0}, "once"),
        ({"auditors": ("Ana", SIMULATED_AUDITOR), "overlap": 0}, "nobody but persons"),
        ({"auditors": ("Ana",), "overlap": 10}, "needs two auditors"),
        ({"auditors": ("Ana", "Bo"), "overlap": 101}, "overlap is 101"),
    ],
)
def test_terms_that_cannot_be_dealt_by(given_terms: dict[str, Any], why: str) -> None:
    with pytest.raises(ReviewError, match=why):
        Terms(**given_terms)


# --- the terms in the log ---------------------------------------------------------------------------------------------


def test_nothing_is_assigned_before_it_is_announced(log: DecisionLog) -> None:
    log.decide(IDS[0], "biased", "Ana")
    assert announced(log.actions()) is None


def test_terms_stand_in_the_log_and_an_undo_brings_the_former_back(log: DecisionLog) -> None:
    first, second = terms("Ana", "Bo", overlap=12.5, seed=3), terms("Ana", "Bo", "Cem")
    action = announce(log, first, "Ana")
    assert (action.kind, action.count, action.auditor) == ("assign", 0, "Ana")
    assert terms_of(action) == first
    announce(log, second, "Bo")
    assert in_force(log) == assign(IDS, second, {})
    log.undo("Bo")
    assert in_force(log) == assign(IDS, first, {})
    assert log.current() == {} and log.verify() == []


def test_an_assignment_stays_while_people_work_by_it_or_beside_it(log: DecisionLog) -> None:
    announce(log, terms("Ana", "Bo", overlap=20), "Ana")
    before = in_force(log)
    log.decide(IDS[0], "biased", "Ana")
    log.decide(IDS[1], "biased", "Zoe")
    assert in_force(log) == before


def test_what_was_inspected_before_the_new_terms_is_finished(log: DecisionLog) -> None:
    log.decide_each([(id_, "biased", "") for id_ in IDS[:10]], "Ana")
    log.decide_many(IDS[10:20], "biased", "Bo")  # in bulk: not reviewed
    log.decide(IDS[20], "biased", "Bo", selection={"queue": "disagreements"})  # not a judgement of Bo's own
    log.decide(IDS[21], "biased", SIMULATED_AUDITOR)  # nobody's
    log.decide(IDS[22], "biased", "Bo")
    log.undo("Bo")
    announce(log, terms("Bo", "Cem"), "Cem")
    assert in_force(log) == assign(IDS, terms("Bo", "Cem"), {"Ana": set(IDS[:10])})


def test_terms_of_another_kind_are_refused(log: DecisionLog) -> None:
    for selection in ({}, {"assignment": {"auditors": ["Ana"], "overlap": 0, "new": 1}}, {"assignment": None}):
        log.declare("assign", selection, "Ana")
        with pytest.raises(ReviewError, match="holds no terms"):
            in_force(log)


# --- blind ------------------------------------------------------------------------------------------------------------


def test_what_an_auditor_sees_before_their_own_verdict(log: DecisionLog) -> None:
    assignment = {"e0": ("Ana", "Bo"), "e1": ("Bo",), "e2": ("Ana",), "e3": ("Bo", "Ana")}
    log.decide("e0", "biased", "Ana")
    log.decide("e1", "biased", "Ana")
    log.decide("e2", "unsure", "Cem")
    log.decide_many(["e3"], "biased", "Cem")
    verdicts, current = log.by_auditor(), log.current()
    assert still_to_review(assignment, "Bo", verdicts) == ["e0", "e1", "e3"]
    assert set(visible(current, "Bo", still_to_review(assignment, "Bo", verdicts))) == {"e2"}
    assert still_to_review(assignment, "Ana", verdicts) == ["e2", "e3"]
    assert set(visible(current, "Ana", still_to_review(assignment, "Ana", verdicts))) == {"e0", "e1"}
    # Cem has no seat: he sees all, and his own bulk decision in any case.
    assert still_to_review(assignment, "Cem", verdicts) == []
    assert visible(current, "Cem", ["e3"]) == current
    log.decide("e0", "not_biased", "Bo")
    assert "e0" not in still_to_review(assignment, "Bo", log.by_auditor())


def test_second_reviews_are_of_what_others_have_inspected(log: DecisionLog) -> None:
    log.decide_each([("e3", "biased", ""), ("e1", "biased", ""), ("e2", "biased", "")], "Ana")
    log.decide("e2", "biased", "Bo")
    log.decide_many(["e5"], "biased", "Ana")
    verdicts = log.by_auditor()
    assert second_reviews(IDS, {}, "Bo", verdicts) == ("e1", "e3")
    assert second_reviews(IDS, {}, "Ana", verdicts) == ()
    assert second_reviews(IDS, {"e1": ("Ana",), "e3": ("Ana", "Bo"), "e4": ("Bo",)}, "Bo", verdicts) == ("e3",)
    assert second_reviews(IDS, {}, "Cem", verdicts) == ("e1", "e2", "e3")
