"""The removal set: policies by hand, freezing with its decisions, replay; and the simulated auditor who feeds it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from biasdiff_core.config.mitigation import RemovalConfig
from biasdiff_core.errors import ArtefactError, ReviewError
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, DecisionLog, regarded_head
from biasdiff_core.review.removal import Selected, freeze, load_removal, removal_set, replay
from biasdiff_core.review.simulate import decide_from_labels
from biasdiff_core.workspace.artefacts import MANIFEST, digest_json, open_artefact, verify
from biasdiff_core.workspace.database import Database

RANKING = [f"e{number}" for number in range(10)]
CONFIRMED = RemovalConfig(policy="confirmed")
FILTER = RemovalConfig(policy="filter")


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(sa.make_url(f"sqlite:///{tmp_path / 'biasdiff.db'}"))


@pytest.fixture
def log(db: Database) -> DecisionLog:
    return DecisionLog(db, "audit-1", known_ids=[*RANKING, "unranked"])


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    folder = tmp_path / "audits" / "audit-1"
    folder.mkdir(parents=True)
    return folder


def _make(config: RemovalConfig, log: DecisionLog) -> Any:
    return removal_set(config, RANKING, log.current(), log.head()[1])


def test_confirmed_takes_what_is_judged_biased_and_nothing_else(log: DecisionLog) -> None:
    log.decide_each([("e7", "biased", ""), ("e0", "biased", ""), ("e1", "neutral_but_influential", ""), ("unranked", "biased", "")], "Ann")
    log.decide_each([("e2", "unsure", ""), ("e3", "not_biased", "")], "Ann")
    removal = _make(CONFIRMED, log)
    assert removal.ids == ("e0", "e7", "unranked")
    assert removal.digest == digest_json(["e0", "e7", "unranked"])
    assert (removal.percent, removal.decision_head, removal.simulated) == (None, log.head()[1], False)
    assert (removal.ranked, removal.candidates, removal.false_positives, removal.confirmed, removal.undecided) == (10, 3, 0, 3, 0)


def test_top_percent_takes_the_cut_less_its_false_positives(log: DecisionLog) -> None:
    log.decide_each([("e1", "not_biased", ""), ("e3", "biased", ""), ("e2", "unsure", ""), ("e9", "biased", "")], "Ann")
    # 10 * 45 / 100 = 4.5, half up: 5, so e0 to e4; e1 is a false positive, e9 lies below the cut; e0 and e4 are undecided.
    removal = _make(RemovalConfig(policy="top_percent", percent=45), log)
    assert removal.ids == ("e0", "e2", "e3", "e4")
    assert (removal.percent, removal.candidates, removal.false_positives, removal.confirmed, removal.undecided) == (45, 5, 1, 1, 2)


def test_it_is_simulated_when_a_simulated_decision_had_a_part_in_it(log: DecisionLog) -> None:
    log.decide("e5", "biased", SIMULATED_AUDITOR)
    log.decide("e0", "biased", "Ann")
    top = RemovalConfig(policy="top_percent", percent=30)
    assert not _make(top, log).simulated
    log.decide("e1", "not_biased", SIMULATED_AUDITOR)
    assert _make(top, log).simulated
    assert _make(CONFIRMED, log).simulated
    log.decide("e5", "biased", "Ann")
    assert not _make(CONFIRMED, log).simulated


def test_too_little_and_too_much_are_refused(log: DecisionLog) -> None:
    with pytest.raises(ReviewError, match="empty.*confirmed.*Confirm"):
        _make(CONFIRMED, log)
    with pytest.raises(ReviewError, match="empty.*top_percent"):
        _make(RemovalConfig(policy="top_percent", percent=4), log)
    with pytest.raises(ReviewError, match="would leave 1"):
        _make(RemovalConfig(policy="top_percent", percent=90), log)
    assert len(_make(RemovalConfig(policy="top_percent", percent=80), log).ids) == 8


def test_freezing_keeps_set_and_decisions_and_opens_what_is_there(log: DecisionLog, audit: Path) -> None:
    log.decide("e0", "biased", "Ann", "reason ü", {"filter": "age"})
    log.decide("e1", "biased", "Ann")
    log.undo("Ann")
    removal = _make(CONFIRMED, log)
    log.decide("e2", "biased", "Bea")  # another auditor goes on meanwhile
    artefact = freeze(audit, CONFIRMED, removal, "abc", log)
    assert load_removal(artefact) == removal
    assert artefact.inputs == {"ranking": "abc"}
    assert all(finding.state == "ok" for finding in verify(artefact.folder))
    assert len(artefact.path("decisions.jsonl").read_text(encoding="utf8").splitlines()) == 3
    assert freeze(audit, CONFIRMED, removal, "abc", log) == artefact
    assert freeze(audit, CONFIRMED, _make(CONFIRMED, log), "abc", log).key != artefact.key
    assert freeze(audit, CONFIRMED, removal, "other", log).key != artefact.key


SELECTED = Selected(ids=("e7", "e1", "e3", "e1"), selection={"page": "explore", "filter": {"group": ["women"]}})


def test_filter_takes_what_was_selected_less_its_false_positives(log: DecisionLog) -> None:
    log.decide_each([("e1", "not_biased", ""), ("e3", "biased", ""), ("e9", "biased", "")], "Ann")
    removal = removal_set(FILTER, RANKING, log.current(), log.head()[1], SELECTED)
    assert removal.ids == ("e3", "e7")
    assert (removal.percent, removal.candidates, removal.false_positives, removal.confirmed, removal.undecided) == (None, 3, 1, 1, 1)
    assert removal.selection == SELECTED.selection
    assert removal.policy_words() == "what was selected (explore · group: women), less the false positives"
    assert removal_set(CONFIRMED, RANKING, log.current(), "", SELECTED).selection is None


def test_filter_needs_ids_that_have_a_rank(log: DecisionLog) -> None:
    with pytest.raises(ReviewError, match="needs a selection"):
        removal_set(FILTER, RANKING, {}, "")
    with pytest.raises(ReviewError, match="1 selected id.*e.g. unranked"):
        removal_set(FILTER, RANKING, {}, "", Selected(ids=("e1", "unranked"), selection={}))
    with pytest.raises(ReviewError, match="empty.*filter.*Select other"):
        removal_set(FILTER, RANKING, {}, "", Selected(ids=(), selection={}))


@pytest.mark.parametrize("content", ["e3\n\n  e7 \n", '["e3",\n"e7"]'])
def test_ids_are_read_from_lines_and_from_a_frozen_set(tmp_path: Path, content: str) -> None:
    (tmp_path / "ids").write_text(content, encoding="utf8")
    assert Selected.read(tmp_path / "ids").ids == ("e3", "e7")


@pytest.mark.parametrize("content, said", [(b"[1]", "no id"), (b"[", "cannot be read"), (b"\xff", "cannot be read")])
def test_what_holds_no_ids_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(ReviewError, match=said):
        Selected.read(tmp_path / "ids")


def test_who_freezes_stands_with_the_set_and_in_the_log(log: DecisionLog, audit: Path) -> None:
    log.decide("e0", "biased", "Ann")
    removal = _make(CONFIRMED, log)
    artefact = freeze(audit, CONFIRMED, removal, "abc", log, "Bea")
    assert load_removal(artefact) == replace(removal, frozen_by="Bea")
    last = log.actions()[-1]
    assert (last.kind, last.auditor) == ("freeze", "Bea")
    assert last.selection == {"removal": artefact.key, "examples": 1, "ids_digest": removal.digest}
    # Freezing the same again is nothing new: the set is opened, and the log is left as it is.
    again = removal_set(CONFIRMED, RANKING, log.current(), regarded_head(log.actions()))
    assert freeze(audit, CONFIRMED, again, "abc", log, "Cleo") == artefact
    assert log.actions()[-1] == last and log.verify([removal.decision_head]) == []


def test_a_set_whose_process_died_before_it_told_the_log_is_told_of_when_opened(log: DecisionLog, audit: Path, tmp_path: Path) -> None:
    log.decide("e0", "biased", "Ann")
    removal = _make(CONFIRMED, log)
    frozen = freeze(audit, CONFIRMED, removal, "abc", log, "Bea")
    untold = DecisionLog(Database(sa.make_url(f"sqlite:///{tmp_path / 'other.db'}")), "audit-1")
    replay(untold, frozen.path("decisions.jsonl"))  # the log as it stood between the set and its action
    for _ in range(2):  # told of once, by the name that stands with the set
        assert freeze(audit, CONFIRMED, removal, "abc", untold, "Cleo") == frozen
        assert [(action.kind, action.auditor) for action in untold.actions()] == [("decide", "Ann"), ("freeze", "Bea")]
    assert untold.actions()[-1].selection == log.actions()[-1].selection


def test_sets_frozen_before_there_were_names_and_selections_still_open(log: DecisionLog, audit: Path) -> None:
    log.decide("e0", "biased", "Ann")
    artefact = freeze(audit, CONFIRMED, _make(CONFIRMED, log), "abc", log)
    manifest = artefact.folder / MANIFEST
    record = json.loads(manifest.read_text(encoding="utf8"))
    del record["facts"]["frozen_by"], record["facts"]["selection"]
    manifest.write_text(json.dumps(record), encoding="utf8")
    opened = load_removal(open_artefact(audit, "removal", artefact.key))
    assert (opened.ids, opened.frozen_by, opened.selection) == (("e0",), "", None)


def test_a_set_without_any_decision_can_be_frozen(log: DecisionLog, audit: Path) -> None:
    top = RemovalConfig(policy="top_percent", percent=30)
    artefact = freeze(audit, top, _make(top, log), "abc", log)
    assert artefact.path("decisions.jsonl").read_text() == ""
    assert load_removal(artefact).ids == ("e0", "e1", "e2")


def test_a_set_of_another_log_cannot_be_frozen(db: Database, log: DecisionLog, audit: Path) -> None:
    log.decide("e0", "biased", "Ann")
    with pytest.raises(ReviewError, match="has no action"):
        freeze(audit, CONFIRMED, _make(CONFIRMED, log), "abc", DecisionLog(db, "audit-2"))


def test_altered_ids_are_found_on_loading(log: DecisionLog, audit: Path) -> None:
    log.decide("e0", "biased", "Ann")
    artefact = freeze(audit, CONFIRMED, _make(CONFIRMED, log), "abc", log)
    artefact.path("ids.json").write_text('["e1"]')
    with pytest.raises(ArtefactError, match="digest"):
        load_removal(artefact)


def test_replay_gives_the_same_log(log: DecisionLog, audit: Path, tmp_path: Path) -> None:
    log.decide_each([("e0", "biased", "line\u2028separator"), ("e1", "not_biased", "")], "Ann", {"top": 2})
    log.decide_many(["e2", "e3"], "biased", "Bea")
    log.undo("Bea")
    frozen = freeze(audit, CONFIRMED, _make(CONFIRMED, log), "abc", log).path("decisions.jsonl")
    other = DecisionLog(Database(sa.make_url(f"sqlite:///{tmp_path / 'other.db'}")), "audit-1")
    assert replay(other, frozen) == 3
    assert (other.current(), other.actions(), other.head(), other.verify()) == (log.current(), log.actions(), log.head(), [])
    other.declare("freeze", {"removal": "abc"}, "Ann")
    assert replay(other, frozen) == 3  # nothing is left to do
    other.undo("Ann")
    with pytest.raises(ReviewError, match="has 5 action.*already"):
        replay(other, frozen)
    assert other.verify(known_heads=[log.head()[1]]) == []


def test_replay_refuses_what_is_no_valid_log(log: DecisionLog, tmp_path: Path) -> None:
    log.decide("e0", "biased", "Ann")
    link = log.links()[0]
    empty = DecisionLog(Database(sa.make_url(f"sqlite:///{tmp_path / 'other.db'}")), "audit-1", known_ids=["other"])
    path = tmp_path / "decisions.jsonl"
    for content in ("{", "[]", '{"number": 1}', json.dumps({**link, "decisions": 3})):
        path.write_text(content)
        with pytest.raises(ArtefactError, match="no action log"):
            replay(empty, path)
    path.write_text(json.dumps({**link, "auditor": "Eve"}))
    with pytest.raises(ReviewError, match="does not verify: action 1"):
        replay(empty, path)
    path.write_text(json.dumps(link))
    with pytest.raises(ReviewError, match="e.g. e0"):
        replay(empty, path)
    assert empty.actions() == []


def test_the_simulated_auditor_judges_the_top_by_label_in_one_action(log: DecisionLog) -> None:
    labels = {id_: int(number % 2 == 0) for number, id_ in enumerate(RANKING)}
    action = decide_from_labels(log, labels, RANKING, 35)
    # 10 * 35 / 100 = 3.5, half up: 4 examples, e0 to e3.
    assert (action.count, action.kind, action.auditor) == (4, "decide", SIMULATED_AUDITOR)
    current = log.current()
    assert {id_: decision.verdict for id_, decision in current.items()} == {
        "e0": "biased",
        "e1": "not_biased",
        "e2": "biased",
        "e3": "not_biased",
    }
    assert all(decision.inspected and decision.simulated for decision in current.values())
    assert _make(CONFIRMED, log).simulated


def test_the_simulated_auditor_needs_labels(log: DecisionLog) -> None:
    with pytest.raises(ReviewError, match="1 example.*e.g. e1"):
        decide_from_labels(log, {"e0": 1}, RANKING, 20)
