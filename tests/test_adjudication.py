"""Verdicts kept apart by auditor, the queue of those that differ, and how an adjudicator settles them without overwriting any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from biasdiff_core.review.adjudication import disagreements, given_on
from biasdiff_core.review.decisions import ADJUDICATION, VERDICTS, DecisionLog, Verdict, in_effect
from biasdiff_core.workspace.database import Database, database
from tests.reference import fold as slow

IDS = list("abcdef")
SETTLING = {"queue": ADJUDICATION}


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(database(tmp_path), "audit", known_ids=IDS)


def open_ones(log: DecisionLog, to_review: str = "") -> str:
    return "".join(disagreements(IDS, log.by_auditor(), log.current(), to_review))


def own(log: DecisionLog, id_: str) -> dict[str, str]:
    return {decision.auditor: decision.verdict for decision in given_on(id_, log.by_auditor())}


# --- each auditor's own verdicts --------------------------------------------------------------------------------------


def test_the_latest_inspected_verdict_of_each_is_kept_apart(log: DecisionLog) -> None:
    log.decide("a", "biased", "Ana")
    log.decide("a", "unsure", "Bo")
    log.decide("a", "not_biased", "Ana")
    log.decide_many(["a", "b"], "biased", "Ana")  # in bulk, so nobody's judgement of this example
    assert own(log, "a") == {"Ana": "not_biased", "Bo": "unsure"}
    assert own(log, "b") == {}
    log.undo("Ana")
    log.undo("Ana")
    assert own(log, "a") == {"Ana": "biased", "Bo": "unsure"}
    log.undo("Ana")
    assert log.by_auditor().keys() == {"Bo"}


def test_an_import_counts_for_the_auditors_it_names(log: DecisionLog, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("example_id,verdict,auditor,inspected\na,biased,Cem,true\nb,biased,Cem,false\n", encoding="utf8")
    log.import_(tmp_path / "more.csv", "Ana")
    assert {auditor: set(held) for auditor, held in log.by_auditor().items()} == {"Cem": {"a"}}


@pytest.fixture(scope="module")
def shared_db(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sa.make_url(f"sqlite:///{tmp_path_factory.mktemp('laws') / 'biasdiff.db'}"))


acts = st.tuples(
    st.sampled_from(["decide", "bulk", "settle", "undo"]), st.sampled_from("ab"), st.sampled_from(VERDICTS), st.sampled_from(["Ana", "Bo"])
)


@settings(max_examples=25, deadline=None)
@given(history=st.lists(acts, max_size=10), audit=st.uuids())
def test_each_auditor_holds_what_a_log_of_theirs_alone_would(
    shared_db: Database, history: list[tuple[str, str, Verdict, str]], audit: Any
) -> None:
    following, log = DecisionLog(shared_db, str(audit)), DecisionLog(shared_db, str(audit))
    for act, id_, verdict, auditor in history:
        if act == "bulk":
            log.decide_many([id_], verdict, auditor)
        elif act != "undo":
            log.decide(id_, verdict, auditor, selection=SETTLING if act == "settle" else None)
        elif standing := sorted(in_effect(log.actions())):
            log.undo(auditor, standing[len(standing) // 2])
        fresh = DecisionLog(shared_db, str(audit))
        assert (following.by_auditor(), following.actions()) == (fresh.by_auditor(), fresh.actions())
    actions, decisions = log.actions(), log.decisions()
    for auditor in ("Ana", "Bo"):
        theirs = [d for d in decisions if d.auditor == auditor and d.inspected and d.selection != SETTLING]
        assert log.by_auditor().get(auditor, {}) == slow.fold(actions, theirs)
    assert log.current() == slow.fold(actions, decisions)


# --- disagreements ----------------------------------------------------------------------------------------------------


def test_the_queue_holds_what_inspected_verdicts_differ_on(log: DecisionLog) -> None:
    log.decide_each([("c", "biased", ""), ("a", "biased", ""), ("b", "biased", ""), ("d", "unsure", "")], "Ana")
    log.decide_each([("c", "not_biased", ""), ("b", "biased", ""), ("d", "biased", "")], "Bo")
    log.decide_many(["a"], "not_biased", "Bo")
    assert open_ones(log) == "cd"  # a: Bo did not inspect it; b: agreed
    assert open_ones(log, to_review="c") == "d"
    log.decide("c", "biased", "Bo")
    assert open_ones(log) == "d"


def test_an_adjudication_settles_and_overwrites_no_verdict(log: DecisionLog) -> None:
    log.decide("a", "biased", "Ana", "slur")
    log.decide("a", "not_biased", "Bo")
    before = log.links()
    log.decide("a", "biased", "Cem", "quoted with approval", SETTLING)
    held = log.current()["a"]
    assert (held.verdict, held.auditor, held.adjudication) == ("biased", "Cem", True)
    assert own(log, "a") == {"Ana": "biased", "Bo": "not_biased"}
    assert open_ones(log) == ""
    assert log.links()[:2] == before and log.verify() == []


def test_an_auditor_may_settle_what_they_disagree_on_and_keeps_their_own_verdict(log: DecisionLog) -> None:
    log.decide("a", "biased", "Ana")
    log.decide("a", "not_biased", "Bo")
    log.decide("a", "not_biased", "Ana", "talked it over with Bo", SETTLING)
    assert (log.current()["a"].verdict, open_ones(log)) == ("not_biased", "")
    assert own(log, "a") == {"Ana": "biased", "Bo": "not_biased"}


def test_what_comes_after_an_adjudication_opens_it_again(log: DecisionLog) -> None:
    log.decide("a", "biased", "Ana")
    log.decide("a", "not_biased", "Bo")
    log.decide("a", "unsure", "Cem", selection=SETTLING)
    assert open_ones(log) == "a"  # an adjudicator who cannot tell settles nothing
    log.decide("a", "biased", "Cem", selection=SETTLING)
    assert open_ones(log) == ""
    log.undo("Cem")
    assert open_ones(log) == "a"
    log.decide("a", "biased", "Cem", selection=SETTLING)
    log.decide("a", "not_biased", "Dee")  # a third verdict, given without seeing the others
    assert (open_ones(log), log.current()["a"].auditor) == ("a", "Dee")
    log.undo("Dee")
    assert (open_ones(log), log.current()["a"].auditor) == ("", "Cem")


def test_one_verdict_or_none_is_no_disagreement(log: DecisionLog) -> None:
    assert open_ones(log) == ""
    log.decide("a", "biased", "Ana")
    log.decide("a", "not_biased", "Ana")  # a change of mind
    log.decide("a", "biased", "Cem", selection=SETTLING)
    assert open_ones(log) == ""
    assert given_on("b", log.by_auditor()) == []
