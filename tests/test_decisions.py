"""The decision log: what holds, undo, the hash chain, files, and many auditors at once."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.chain import GENESIS
from biasdiff_core.review.decisions import VERDICTS, Action, Decision, DecisionLog, fold, in_effect
from biasdiff_core.workspace.artefacts import digest_json
from biasdiff_core.workspace.database import DATABASE_VARIABLE, Database, database
from tests.databases import BACKENDS, fresh_url
from tests.reference import fold as slow


@pytest.fixture(params=BACKENDS)
def db(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    with fresh_url(request.param, tmp_path) as url:
        monkeypatch.setenv(DATABASE_VARIABLE, url)
        opened = database(tmp_path)
        yield opened
        opened.close()


@pytest.fixture
def log(db: Database) -> DecisionLog:
    return DecisionLog(db, "audit-1", known_ids=[f"e{number}" for number in range(6000)])


def _verdicts(log: DecisionLog) -> dict[str, str]:
    return {id_: decision.verdict for id_, decision in log.current().items()}


def test_one_decision_comes_back_as_it_was_made(log: DecisionLog) -> None:
    action = log.decide("e1", "biased", " Ann ", "says 'all' — ünïcode", selection={"filter": ["age"], "top": 3.5})
    decision = log.current()["e1"]
    assert decision == Decision(
        example_id="e1",
        verdict="biased",
        auditor="Ann",
        reason="says 'all' — ünïcode",
        created=action.created,
        inspected=True,
        action_id=action.action_id,
        selection={"filter": ["age"], "top": 3.5},
    )
    assert log.actions() == [action]
    assert log.head() == (1, action.hash)
    assert (action.kind, action.count, action.undoes) == ("decide", 1, None)


def test_the_hash_is_that_of_the_written_definition(log: DecisionLog) -> None:
    action = log.decide("e1", "unsure", "Ann")
    row = {"example_id": "e1", "verdict": "unsure", "auditor": "Ann", "reason": "", "created": action.created, "inspected": True}
    link = {"number": 1, "action_id": action.action_id, "kind": "decide", "auditor": "Ann", "created": action.created}
    assert action.hash == digest_json({**link, "selection": None, "undoes": None, "previous_hash": GENESIS, "decisions": [row]})


def test_a_bulk_of_5000_is_one_action_and_one_undo(log: DecisionLog) -> None:
    log.decide("e3", "not_biased", "Ann")
    action = log.decide_many([f"e{number}" for number in range(5000)], "biased", "Bea", "same frame", {"lasso": [[0, 1], [2, 3]]})
    assert (action.kind, action.number, action.count) == ("bulk", 2, 5000)
    assert len(log.current()) == 5000
    assert not any(decision.inspected for decision in log.current().values())
    log.undo("Bea")
    assert _verdicts(log) == {"e3": "not_biased"}
    assert log.verify() == []


def test_examples_judged_one_by_one_may_share_an_action(log: DecisionLog) -> None:
    action = log.decide_each([("e1", "biased", "a"), ("e2", "not_biased", "b"), ("e1", "unsure", "second thought")], "Ann")
    assert action.count == 3
    assert _verdicts(log) == {"e1": "unsure", "e2": "not_biased"}
    assert all(decision.inspected for decision in log.current().values())


def test_undo_takes_back_the_own_last_standing_action_again_and_again(log: DecisionLog) -> None:
    log.decide("e1", "biased", "Ann")
    log.decide("e1", "not_biased", "Ann")
    log.decide("e2", "biased", "Bea")
    log.undo("Ann")
    assert _verdicts(log) == {"e1": "biased", "e2": "biased"}
    log.undo("Ann")
    assert _verdicts(log) == {"e2": "biased"}
    with pytest.raises(ReviewError, match="Ann has no action"):
        log.undo("Ann")


def test_undo_of_undo_is_redo(log: DecisionLog) -> None:
    first = log.decide("e1", "biased", "Ann")
    undo = log.undo("Ann")
    assert undo.undoes == first.action_id
    log.undo("Bea", undo.action_id)
    assert _verdicts(log) == {"e1": "biased"}
    log.undo("Ann")
    assert _verdicts(log) == {}
    assert [action.kind for action in log.actions()] == ["decide", "undo", "undo", "undo"]


def test_what_cannot_be_accepted_is_refused_and_leaves_no_trace(log: DecisionLog) -> None:
    action = log.decide("e1", "biased", "Ann")
    log.undo("Ann")
    head = log.head()
    refused: list[tuple[Any, str]] = [
        (lambda: log.decide("e1", "biased", "  "), "auditor's name is empty"),
        (lambda: log.undo(""), "auditor's name is empty"),
        (lambda: log.decide("e1", "wrong", "Ann"), "'wrong'"),  # type: ignore[arg-type]
        (lambda: log.decide_many([], "biased", "Ann"), "No example"),
        (lambda: log.decide_many(["e1", "x", "y"], "biased", "Ann"), "2 id.*e.g. x"),
        (lambda: log.undo("Ann", action.action_id), "undone already"),
        (lambda: log.undo("Ann", "nowhere"), "no action nowhere"),
        (lambda: log.decide("e1", "biased", "Ann", "NUL \0"), "the reason holds"),
        (lambda: log.decide("e1", "biased", "Ann\ud800"), "auditor's name holds"),
        (lambda: log.decide("e1", "biased", "Ann", selection={"score": float("nan")}), "cannot be written as JSON"),
        (lambda: log.decide("e1", "biased", "Ann", selection={"a": {1, 2}}), "cannot be written as JSON"),
    ]
    for act, message in refused:
        with pytest.raises(ReviewError, match=message):
            act()
    assert log.head() == head


def test_audits_do_not_see_each_other(db: Database, log: DecisionLog) -> None:
    log.decide("e1", "biased", "Ann")
    other = DecisionLog(db, "audit-2")
    assert (other.current(), other.head(), other.verify()) == ({}, (0, GENESIS), [])
    assert other.decide("e1", "unsure", "Ann").number == 1
    with pytest.raises(ReviewError, match="no action"):
        other.undo("Ann", log.actions()[0].action_id)


# Laws of the fold

Step = tuple[str, int]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Action], list[Decision]]:
    """Actions 1 … n: decisions on a few ids, or undo of an action that stands (also of an undo)."""
    actions: list[Action] = []
    decisions: list[Decision] = []
    for number in range(1, draw(st.integers(0, 12)) + 1):
        standing = sorted(in_effect(actions))
        undoes: str | None = draw(st.sampled_from([None, *standing]))
        ids: list[str] = [] if undoes else draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
        actions.append(_action(number, undoes))
        decisions += [_decision(id_, draw(st.sampled_from(VERDICTS)), number) for id_ in ids]
    return actions, decisions


def _action(number: int, undoes: str | None) -> Action:
    kind = "undo" if undoes else "decide"
    rest: dict[str, Any] = {"auditor": "Ann", "created": "", "selection": None, "hash": "", "count": 0}
    return Action(number=number, action_id=f"{number:03}", kind=kind, undoes=undoes, **rest)  # type: ignore[arg-type]


def _decision(id_: str, verdict: Any, number: int) -> Decision:
    rest: dict[str, Any] = {"auditor": "Ann", "reason": "", "created": "", "inspected": True, "selection": None}
    return Decision(example_id=id_, verdict=verdict, action_id=f"{number:03}", **rest)


@given(histories())
def test_the_fold_agrees_with_its_slow_twin(history: tuple[list[Action], list[Decision]]) -> None:
    assert fold(*history) == slow.fold(*history)


@given(histories())
def test_folding_twice_is_folding_once(history: tuple[list[Action], list[Decision]]) -> None:
    actions, decisions = history
    once = fold(actions, decisions)
    assert fold(actions, once.values()) == once


@given(histories(), st.data())
def test_undo_restores_exactly_the_former_fold(history: tuple[list[Action], list[Decision]], data: st.DataObject) -> None:
    actions, decisions = history
    before, n = fold(actions, decisions), len(actions)
    verdict = data.draw(st.sampled_from(VERDICTS))
    after = [*actions, _action(n + 1, None)]
    made = [*decisions, _decision("a", verdict, n + 1), _decision("new", verdict, n + 1)]
    undone = [*after, _action(n + 2, after[-1].action_id)]
    redone = [*undone, _action(n + 3, undone[-1].action_id)]
    assert fold(undone, made) == before
    assert fold(redone, made) == fold(after, made)


@pytest.fixture(scope="module")
def shared_db(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sa.make_url(f"sqlite:///{tmp_path_factory.mktemp('laws') / 'biasdiff.db'}"))


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("abcu"), st.integers(0, 3)), max_size=10), audit=st.uuids())
def test_a_log_that_follows_holds_what_a_fresh_one_reads(shared_db: Database, steps: list[Step], audit: Any) -> None:
    following, writing = DecisionLog(shared_db, str(audit)), DecisionLog(shared_db, str(audit))
    for what, which in steps:
        if what != "u":
            writing.decide_many([what, "d"], VERDICTS[which], "Ann")
        elif standing := sorted(in_effect(writing.actions())):
            writing.undo("Ann", standing[which % len(standing)])
        assert following.current() == DecisionLog(shared_db, str(audit)).current()
    assert writing.verify() == []


# Tampering


def _tamper(db: Database, statement: str) -> None:
    """Alter the rows behind the log's back."""
    with db.write("tamper") as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("UPDATE decisions SET verdict = 'not_biased' WHERE example_id = 'e2'", "action 2 .*content"),
        ("UPDATE decisions SET inspected = (1 = 1) WHERE example_id = 'e3'", "action 3 .*content"),
        ("UPDATE decisions SET position = 9 - position WHERE example_id IN ('e3', 'e4')", "action 3 .*content"),
        ("DELETE FROM decisions WHERE example_id = 'e4'", "action 3 .*content"),
        ("UPDATE actions SET auditor = 'Eve' WHERE number = 2", "action 2 .*content"),
        ("UPDATE actions SET undoes = NULL WHERE number = 4", "action 4 .*content"),
        ("UPDATE actions SET number = CASE number WHEN 1 THEN 12 ELSE 11 END WHERE number IN (1, 2)", "action 3 .*number 1 was expected"),
        ("UPDATE actions SET number = 11 WHERE number = 1", "action 2 .*number 1 was expected"),
    ],
)
def test_tampering_is_found_and_the_first_action_named(db: Database, log: DecisionLog, statement: str, first: str) -> None:
    _history(log)
    assert log.verify() == []
    _tamper(db, statement)
    assert _matches(log.verify()[0], first)


def _history(log: DecisionLog) -> list[str]:
    log.decide("e1", "biased", "Ann")
    second = log.decide("e2", "biased", "Ann")
    log.decide_many(["e3", "e4"], "biased", "Ann")
    log.undo("Ann", second.action_id)
    return [action.hash for action in log.actions()]


def _matches(text: str, pattern: str) -> bool:
    parts = pattern.split(".*")
    return text.startswith(parts[0]) and parts[-1] in text


def test_reordered_links_are_found(db: Database, log: DecisionLog) -> None:
    _history(log)
    for step in ("number = 99 WHERE number = 1", "number = 1 WHERE number = 2", "number = 2 WHERE number = 99"):
        _tamper(db, f"UPDATE actions SET {step}")
    assert _matches(log.verify()[0], "action 1 .*it follows")


def test_a_deleted_link_is_found(db: Database, log: DecisionLog) -> None:
    _history(log)
    _tamper(db, "DELETE FROM decisions WHERE example_id IN ('e3', 'e4')")
    _tamper(db, "DELETE FROM actions WHERE number = 3")
    assert _matches(log.verify()[0], "action 4 .*number 3 was expected")


def test_cutting_off_the_newest_links_shows_against_a_noted_head(db: Database, log: DecisionLog) -> None:
    heads = _history(log)
    assert log.verify(known_heads=[GENESIS, *heads]) == []
    _tamper(db, "DELETE FROM actions WHERE number = 4")
    assert log.verify() == []
    assert heads[3][:12] in log.verify(known_heads=heads)[0]


# Files


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_exported_decisions_come_back_with_their_auditors(db: Database, log: DecisionLog, tmp_path: Path, suffix: str) -> None:
    log.decide("e1", "biased", "Ann", '=1+1, "quoted"\nsecond line', {"filter": "age"})
    log.decide_many(["e2", "e3"], "not_biased", "Bea")
    log.decide("e3", "unsure", "Ann")
    assert log.export(tmp_path / f"decisions{suffix}") == 3
    other = DecisionLog(db, "audit-2", known_ids=["e1", "e2", "e3"])
    action = other.import_(tmp_path / f"decisions{suffix}", "Cem")
    assert (action.kind, action.auditor, action.count, action.number) == ("import", "Cem", 3, 1)
    assert action.selection is not None and action.selection["imported"] == f"decisions{suffix}"
    names = ("verdict", "auditor", "reason", "created", "inspected")
    mine, theirs = log.current(), other.current()
    assert {id_: [getattr(d, n) for n in names] for id_, d in mine.items()} == {
        id_: [getattr(d, n) for n in names] for id_, d in theirs.items()
    }
    assert other.verify() == []


def test_csv_carries_no_formula(log: DecisionLog, tmp_path: Path) -> None:
    log.decide("e1", "biased", "@Ann", "=HYPERLINK(1)")
    log.export(tmp_path / "decisions.csv")
    with (tmp_path / "decisions.csv").open(newline="") as handle:
        row = next(csv.DictReader(handle))
    assert (row["reason"], row["auditor"], row["inspected"]) == ("'=HYPERLINK(1)", "'@Ann", "true")


def test_parquet_holds_every_column(log: DecisionLog, tmp_path: Path) -> None:
    action = log.decide("e1", "biased", "Ann", "why", {"top": 5})
    log.export(tmp_path / "decisions.parquet")
    (row,) = pq.read_table(tmp_path / "decisions.parquet").to_pylist()
    assert row["action_id"] == action.action_id and row["inspected"] is True and json.loads(row["selection"]) == {"top": 5}


def test_a_csv_by_hand_needs_neither_time_nor_auditor(log: DecisionLog, tmp_path: Path) -> None:
    (tmp_path / "hand.csv").write_text(
        "\ufeffexample_id,verdict,reason,auditor,inspected\ne1,biased,,,1\ne2,unsure,,Bea,FALSE\n", encoding="utf8"
    )
    action = log.import_(tmp_path / "hand.csv", "Ann")
    first, second = (log.current()[id_] for id_ in ("e1", "e2"))
    assert (first.auditor, first.inspected, first.created) == ("Ann", True, action.created)
    assert (second.auditor, second.inspected) == ("Bea", False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "example_id,verdict,inspected\ne1,biased,true\ne2,wrong,true\n", "a.csv line 3: the verdict is 'wrong'"),
        ("a.csv", "example_id,verdict\ne1,biased\n", "line 2 lacks"),
        ("a.csv", "example_id,verdict,inspected\ne1,biased,perhaps\n", "inspected is 'perhaps'"),
        ("a.csv", "example_id,verdict,inspected\nzzz,biased,true\n", "e.g. zzz"),
        ("a.csv", "example_id,verdict,inspected\n", "No example"),
        ("a.jsonl", '{"example_id": "e1"}\n', "line 1 lacks"),
        ("a.jsonl", "[1]\n", "line 1 lacks"),
        ("a.jsonl", "{\n", "line 1 is not JSON"),
        ("a.xlsx", "", "cannot be read"),
    ],
)
def test_files_that_cannot_be_imported(log: DecisionLog, tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf8")
    with pytest.raises(ReviewError, match=message):
        log.import_(tmp_path / name, "Ann")
    assert log.head() == (0, GENESIS)


def test_unreadable_files_and_suffixes_are_refused(log: DecisionLog, tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("example_id,verdict,inspected\né,biased,true\n".encode("latin-1"))
    for path in (tmp_path / "latin.csv", tmp_path / "absent.jsonl"):
        with pytest.raises(ReviewError, match="cannot be read"):
            log.import_(path, "Ann")
    log.decide("e1", "biased", "Ann")
    with pytest.raises(ReviewError, match="cannot be written"):
        log.export(tmp_path / "decisions.xlsx")


# Many at once


def test_ten_threads_of_one_log_lose_no_decision(log: DecisionLog) -> None:
    """As the app's sessions do: one log object, ten auditors, each decision an action; and it is read while they write."""

    def decide_200(auditor: int) -> None:
        for number in range(200):
            log.decide(f"e{200 * auditor + number}", VERDICTS[number % 4], f"auditor{auditor}")
            if number % 50 == 0:
                log.current()

    with ThreadPoolExecutor(10) as threads:
        for done in [threads.submit(decide_200, auditor) for auditor in range(10)]:
            done.result()  # raises what the thread raised
    assert _verdicts(log) == {f"e{number}": VERDICTS[number % 200 % 4] for number in range(2000)}
    assert {auditor: len(held) for auditor, held in log.by_auditor().items()} == {f"auditor{n}": 200 for n in range(10)}
    assert log.head()[0] == 2000
    assert log.verify() == []


def _decide_50(folder: str, auditor: str) -> None:
    log = DecisionLog(database(Path(folder)), "audit-1")
    for number in range(50):
        log.decide(f"{auditor}-{number}", "biased", auditor)


def test_ten_processes_lose_no_decision(db: Database, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_decide_50, args=(str(tmp_path), f"auditor{number}")) for number in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 10
    log = DecisionLog(db, "audit-1")
    assert set(log.current()) == {f"auditor{a}-{number}" for a in range(10) for number in range(50)}
    assert log.head()[0] == 500
    assert log.verify() == []
