"""The log as people read it, and the stop rule that is chosen in it: who, what, from where, what takes it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import DecisionLog, last_of, regarded_head
from biasdiff_core.review.history import history, undone_words
from biasdiff_core.review.stop_rule import choose, chosen
from biasdiff_core.review.suggest import StopRule
from biasdiff_core.workspace.database import Database


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(Database(sa.make_url(f"sqlite:///{tmp_path / 'biasdiff.db'}")), "audit-1")


def words(log: DecisionLog) -> list[tuple[str, str]]:
    return [(entry.what, entry.state) for entry in history(log)]


def test_undone_and_restored_each_names_what_would_turn_it_round(log: DecisionLog) -> None:
    first = log.decide_each([("e1", "unsure", ""), ("e2", "biased", ""), ("e3", "unsure", "")], "Ann")
    undo = log.undo("Bea", first.action_id)
    assert words(log) == [("undid action 1", "holds"), ("2 unsure, 1 biased", "undone by action 2")]
    assert history(log)[1].undo == undo
    restored = log.undo("Ann", history(log)[1].undo.action_id)
    assert words(log) == [("restored action 1", "holds"), ("undid action 1", "undone by action 3"), ("2 unsure, 1 biased", "holds")]
    assert [entry.undo for entry in history(log)] == [restored, restored, first]
    assert len(log.current()) == 3 and log.verify() == []


def test_every_second_undo_of_an_action_restores_it(log: DecisionLog) -> None:
    last = log.decide("e1", "biased", "Ann")
    for number in range(4):
        last = log.undo("Bea", last.action_id)
        taken = number % 2 == 0
        assert undone_words(log, last) == ("undid action 1" if taken else "restored action 1", taken)
        assert words(log)[0][0] == undone_words(log, last)[0] and (log.current() == {}) == taken


def test_one_decision_of_several_is_taken_back_and_restored(log: DecisionLog) -> None:
    log.decide_each([("e1", "unsure", ""), ("e2", "biased", "")], "Ann")
    decision = log.current()["e2"]
    withdrawal = log.withdraw("Ann", decision)
    assert words(log) == [("took back the decision on e2 of action 1", "holds"), ("1 unsure, 1 biased", "holds")]
    assert set(log.current()) == set(DecisionLog(log._db, "audit-1").current()) == {"e1"}
    with pytest.raises(ReviewError, match="e2 is taken back already"):
        log.withdraw("Ann", decision)
    last = last_of(log.actions(), "Ann")
    assert last is not None and last.number == 1  # taking back is no act of one's own to be taken back next
    log.undo("Ann", withdrawal.action_id)
    assert log.current()["e2"] == decision and log.verify() == []


def test_the_only_decision_of_an_action_is_taken_back_with_it(log: DecisionLog) -> None:
    for id_ in ("e1", "e2"):
        log.decide(id_, "biased", "Ann", selection={"card": "c"})
    undo = log.withdraw("Ann", log.current()["e2"], {"card": "c", "last": 3})
    assert (undo.kind, undo.selection, words(log)[1][1]) == ("undo", {"card": "c", "last": 3}, "undone by action 3")
    last = last_of(log.actions(), "Ann")
    assert last is not None and last.number == 1 and set(log.current()) == {"e1"}
    log.withdraw("Ann", log.current()["e1"])
    choose(log, StopRule(target=0.8, confidence=0.9), "Ann")
    assert not chosen(log.actions()).late  # nothing was judged that stands


def test_any_action_can_be_undone_and_only_once(log: DecisionLog) -> None:
    old = log.decide("e1", "biased", "Ann")
    log.decide("e1", "not_biased", "Bea")
    log.undo("Cleo", old.action_id)
    assert log.current()["e1"].verdict == "not_biased"
    with pytest.raises(ReviewError, match="undone already.*Undo action 3"):
        log.undo("Cleo", old.action_id)
    with pytest.raises(ReviewError, match="no action 9"):
        log.action(9)


def test_a_freezing_stands_in_the_log_and_cannot_be_undone(log: DecisionLog) -> None:
    judged = log.decide("e1", "biased", "Ann")
    frozen = log.declare("freeze", {"removal": "abc", "examples": 1_234, "ids_digest": "f00"}, "Ann")
    assert words(log)[0] == ("froze a removal set of 1,234 examples", "holds")
    assert history(log)[0].origin == "removal abc"
    with pytest.raises(ReviewError, match="froze a removal set"):
        log.undo("Ann", frozen.action_id)
    assert last_of(log.actions(), "Ann") == judged
    assert regarded_head(log.actions()) == judged.hash != log.head()[1]
    assert log.undo("Ann").undoes == judged.action_id


def test_the_rule_is_the_default_until_one_is_chosen(log: DecisionLog) -> None:
    assert chosen(log.actions()).rule == StopRule(target=0.95, confidence=0.95)
    action = choose(log, StopRule(target=0.9, confidence=0.99), "Ann")
    log.decide("e1", "biased", "Ann")
    found = chosen(log.actions())
    assert (found.rule, found.action, found.late) == (StopRule(target=0.9, confidence=0.99), action, ())
    assert found.words() == "To be found: at least 90 % of the biased examples, with 99 % confidence (chosen by Ann in action 1)."
    assert history(log)[1].what == "set what is to be found: 90 % of the biased examples, with 99 % confidence"


def test_a_change_after_the_first_decision_is_named_also_by_undo(log: DecisionLog) -> None:
    before = choose(log, StopRule(target=0.9), "Ann")
    log.decide("e1", "biased", "Ann")
    undo = log.undo("Bea", before.action_id)
    assert chosen(log.actions()).rule == StopRule()
    assert chosen(log.actions()).late == (undo,)
    restored = log.undo("Bea", undo.action_id)
    late = choose(log, StopRule(target=0.8), "Cleo")
    log.undo("Ann", log.decide("e2", "biased", "Ann").action_id)  # concerns no rule
    found = chosen(log.actions())
    assert (found.rule.target, found.late) == (0.8, (undo, restored, late))
    assert "Changed after the review had begun (action 3 of Bea, action 4 of Bea, action 5 of Cleo)" in found.words()


def test_bulk_acts_are_no_review_so_a_rule_chosen_after_them_is_in_time(log: DecisionLog) -> None:
    log.decide_many(["e1", "e2"], "biased", "Ann")
    choose(log, StopRule(target=0.9), "Ann")
    assert chosen(log.actions()).late == ()


def test_an_action_without_a_rule_in_it_is_refused(log: DecisionLog) -> None:
    log.declare("stop_rule", {"share": 0.9}, "Ann")
    with pytest.raises(ReviewError, match="holds no stop rule"):
        chosen(log.actions())
