"""Several auditors in the app: assignment, blind and second review, disagreements, agreement; accounts where they are configured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit
from biasdiff_core.review.agreement import ALL, agreement
from biasdiff_core.review.assignment import Terms, announce, announced, assign, terms_of
from biasdiff_core.review.decisions import ADJUDICATION, SIMULATED_AUDITOR, Decision, DecisionLog
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE
from biasdiff_core.workspace.database import database
from biasdiff_ui.format import metric_text
from biasdiff_ui.login import account_name
from biasdiff_ui.review_events import Event, acknowledged_number, fold_events, new_events, record_steps
from biasdiff_ui.state import STATE
from tests import app_pages
from tests.app_pages import ROOT, press
from tests.undecided import undecided_audit

TWO = Terms(auditors=("Ana", "Bo"), overlap=20)


@pytest.fixture
def audit(finished_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A copy of the finished audit that the app looks at; its simulated decisions undone."""
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(finished_workspace))
    return undecided_audit(finished_workspace)


@pytest.fixture
def ids(audit: Audit) -> list[str]:
    return audit.ranking()["id"].tolist()


def open_page(audit: Audit, page: str, auditor: str = "Ana", **state: Any) -> AppTest:
    app = app_pages.open_page(audit, page, auditor, **state)
    assert not app.error
    return app


def refresh(app: AppTest) -> AppTest:
    return next(button for button in app.button if button.label == "Refresh the queue").click().run()


def said(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.markdown, app.caption, app.info, app.warning, app.success) for element in kind)


def queue_of(app: AppTest) -> tuple[str, ...]:
    return app.session_state["review-queue"].ids


def decide(audit: Audit, auditor: str, ids: list[str], verdict: Any = "biased") -> None:
    audit.log.decide_each([(id_, verdict, "") for id_ in ids], auditor)


# --- assignment and blind review --------------------------------------------------------------------------------------


def test_examples_are_assigned_in_the_app_and_the_queue_holds_ones_own(audit: Audit, ids: list[str]) -> None:
    decide(audit, "Bo", ids[:3])
    app = open_page(audit, "review", assignment=True, native=True)
    app.multiselect(key="assign-auditors").set_value(["Ana", "Bo"]).run()
    app.number_input(key="assign-overlap").set_value(50.0).run()
    press(app, "assign")
    action = announced(audit.log.actions())
    assert action is not None and action.auditor == "Ana"
    assert terms_of(action) == Terms(auditors=("Ana", "Bo"), overlap=50.0)
    dealt = assign(ids, terms_of(action), {"Bo": ids[:3]})
    progress = next(frame.value for frame in app.dataframe if "assigned" in frame.value).set_index("auditor")
    assert progress.loc["Bo"].tolist() == [sum("Bo" in a for a in dealt.values()), 3, sum("Bo" in a for a in dealt.values()) - 3]
    app.selectbox(key="queue").set_value("assigned").run()
    assert set(queue_of(app)) == {id_ for id_ in ids if "Ana" in dealt[id_]}
    first = queue_of(app)[0]
    press(app, "native-biased")
    assert (audit.log.current()[first].selection or {})["queue"] == "assigned"
    refresh(app)
    assert first not in queue_of(app)
    press(app, "undo")
    press(app, "undo")
    assert announced(audit.log.actions()) is None


def test_terms_that_cannot_be_dealt_by_say_so(audit: Audit) -> None:
    app = open_page(audit, "review", assignment=True)
    app.multiselect(key="assign-auditors").set_value(["Ana"]).run()
    press(app, "assign")
    assert "needs two auditors" in app.error[0].value
    assert announced(audit.log.actions()) is None


def test_the_queue_is_made_anew_for_another_auditor(audit: Audit, ids: list[str]) -> None:
    announce(audit.log, TWO, "Ana")
    app = open_page(audit, "review", queue="assigned", assignment=True)
    assert app.number_input(key="assign-overlap").value == 20.0
    mine = queue_of(app)
    app.session_state[STATE.auditor] = "Bo"
    app.run()
    assert queue_of(app) != mine
    assert len({*mine, *queue_of(app)}) == 40


def test_explore_hides_what_an_auditor_has_still_to_review(audit: Audit, ids: list[str]) -> None:
    announce(audit.log, TWO, "Ana")
    decide(audit, "Cem", ids)
    dealt = assign(ids, TWO, {})
    mine = [id_ for id_ in ids if "Ana" in dealt[id_]]
    app = open_page(audit, "explore", rank=ids.index(mine[0]) + 1)
    table = next(frame.value for frame in app.dataframe if "decision" in frame.value)
    assert table["decision"].tolist() == ["undecided" if id_ in mine else "biased" for id_ in ids]
    assert "Decision: **undecided**" in said(app)
    press(app, "one-not_biased")
    assert "Decision: **not biased**" in said(app)
    assert "not undecided" not in said(app)


def test_a_second_review_shows_no_verdict(audit: Audit, ids: list[str]) -> None:
    audit.log.decide(ids[4], "biased", "Bo", "the reason of Bo")
    app = open_page(audit, "review", queue="second review", native=True)
    assert queue_of(app) == (ids[4],)
    assert "more found" not in said(app)  # it is inspected: nothing that is not found yet
    everything = said(app) + "\n".join(element.value for element in app.text)
    assert "the reason of Bo" not in everything
    press(app, "native-unsure")
    assert {a: held[ids[4]].verdict for a, held in audit.log.by_auditor().items() if ids[4] in held} == {"Bo": "biased", "Ana": "unsure"}


# --- disagreements ----------------------------------------------------------------------------------------------------


def test_a_disagreement_is_settled_with_the_verdicts_in_view(audit: Audit, ids: list[str]) -> None:
    audit.log.decide(ids[0], "biased", "Bo", "a slur <b>")
    audit.log.decide(ids[0], "not_biased", "Cem")
    decide(audit, "Cem", [ids[1]])
    app = open_page(audit, "review", queue="disagreements", native=True)
    assert queue_of(app) == (ids[0],)
    assert "1 disagreement to settle" in said(app)
    assert "Bo: biased: a slur <b>\nCem: not biased" in [element.value for element in app.text]
    press(app, "native-biased")
    held = audit.log.current()[ids[0]]
    assert (held.auditor, held.verdict, held.selection) == ("Ana", "biased", {"queue": ADJUDICATION})
    assert "Ana" not in audit.log.by_auditor()
    assert "to settle" not in said(app)
    refresh(app)
    assert queue_of(app) == ()


def test_the_line_names_who_has_inspected_how_much_as_plain_words(audit: Audit, ids: list[str]) -> None:
    app = open_page(audit, "review")
    assert "0 of 40 examples are inspected. " in said(app)
    decide(audit, "Ana", ids[:2])
    decide(audit, "*Bo* [x](y)", ids[1:4])
    app.run()
    assert r"4 of 40 examples are inspected (\*Bo\* \[x\]\(y\) 3, Ana 2)" in said(app)


# --- agreement --------------------------------------------------------------------------------------------------------


def tables_of(app: AppTest) -> list[Any]:
    return [frame.value for frame in app.dataframe if any("Cohen" in str(column) for column in frame.value)]


def test_agreement_by_type_with_n_and_interval(audit: Audit, ids: list[str]) -> None:
    app = open_page(audit, "review", agreement=True)
    assert "No example has verdicts of two auditors yet" in said(app)
    for name, period in (("Ana", 2), ("Bo", 3)):
        audit.log.decide_each([(id_, "not_biased" if n % period else "biased", "") for n, id_ in enumerate(ids)], name)
    app.run()
    (table,) = tables_of(app)
    (overall, *_) = agreement(audit.log.by_auditor(), {})
    assert overall.bias_type == ALL and overall.alpha.n == 40 and overall.alpha.low is not None
    assert table.iloc[0].tolist() == ["all examples", metric_text(overall.alpha), metric_text(overall.kappas["Ana", "Bo"])]
    assert set(table.iloc[1:, 0]) <= {"gender", "age", "nationality"} and len(table) > 1
    assert "n = 40" in table.iloc[0, 1] and "[" in table.iloc[0, 1]
    shown = [int(text.rsplit("n = ", 1)[1]) for text in table.iloc[1:, 1]]
    assert sum(shown) == 40  # each example counts under the type of its nearest probe
    assert overall.alpha.convention in said(app)


def test_three_auditors_have_a_kappa_each_two(audit: Audit, ids: list[str]) -> None:
    for name in ("Ana", "Bo"):
        decide(audit, name, ids[:4])
        decide(audit, name, ids[4:8], "not_biased")
    decide(audit, SIMULATED_AUDITOR, ids[3:5])
    pairs = tables_of(open_page(audit, "review", agreement=True))[-1]
    assert pairs["auditors"].tolist() == ["Ana and Bo", f"Ana and {SIMULATED_AUDITOR}", f"Bo and {SIMULATED_AUDITOR}"]


# --- two at once ------------------------------------------------------------------------------------------------------


def presses(*pressed: tuple[str, str, str]) -> list[Event]:
    """(kind, example, queue) of a card's presses, in order."""
    return [
        Event(number=n, kind=kind, example=example, place=0, queue=queue, token="made-once", drawn=queue == "random")
        for n, (kind, example, queue) in enumerate(pressed, start=1)
    ]


def send(log: DecisionLog, auditor: str, card: str, *pressed: tuple[str, str]) -> None:
    """Key presses as one card sends them, all of them each time."""
    events = presses(*((kind, example, "undecided") for kind, example in pressed))
    record_steps(log, fold_events(new_events(events, acknowledged_number(log.actions(), card))), auditor, card)


def test_a_press_counts_for_the_queue_it_was_made_in(tmp_path: Path) -> None:
    """Also when the auditor went on to another queue before it arrived: an adjudication must never pass for a judgement of one's own."""
    log = DecisionLog(database(tmp_path), "audit", known_ids="abcd")
    events = presses(("biased", "a", "random"), ("biased", "b", "random"), ("unsure", "c", ADJUDICATION), ("biased", "d", "undecided"))
    record_steps(log, fold_events(events), "Ana", "1-1")
    assert [(link["count"], link["selection"]["queue"], link["selection"].get("drawn")) for link in log.links()] == [
        (2, "random", ["a", "b"]),
        (1, ADJUDICATION, None),
        (1, "undecided", None),
    ]
    assert set(log.by_auditor()["Ana"]) == {"a", "b", "d"}


def test_undo_takes_back_ones_own_verdict_after_somebody_elses(tmp_path: Path) -> None:
    log = DecisionLog(database(tmp_path), "audit", known_ids="ab")
    judged = [("biased", "a"), ("unsure", "b")]
    send(log, "Ana", "1-1", *judged)
    send(log, "Bo", "2-2", ("not_biased", "a"), ("not_biased", "b"))
    send(log, "Ana", "1-1", *judged, ("undo", "a"))

    def verdicts(held: dict[str, Decision]) -> dict[str, str]:
        return {id_: decision.verdict for id_, decision in held.items()}

    assert {name: verdicts(held) for name, held in log.by_auditor().items()} == {
        "Ana": {"b": "unsure"},
        "Bo": {"a": "not_biased", "b": "not_biased"},
    }
    assert log.current()["a"].auditor == "Bo"
    assert log.verify() == []


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_without_accounts_a_name_is_asked_for(workspace: Path) -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert app.text_input(key="auditor_name").label == "Your name"
    assert not [button for button in app.button if button.key in ("log_in", "log_out")]


def test_where_accounts_are_configured_nobody_else_goes_on(finished_workspace: Path) -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.user = {"is_logged_in": False}
    app.session_state[STATE.auditor] = "Ana"  # of no account
    app.run()
    assert not app.exception
    assert [button.key for button in app.button] == ["log_in"]
    assert not app.selectbox and not app.text_input and not app.sidebar.selectbox
    assert app.session_state[STATE.auditor] == ""


def _login() -> None:
    from biasdiff_ui.login import require_login

    require_login()


def test_a_login_that_lacks_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "authlib", None)  # as if it were not installed
    app = AppTest.from_function(_login, default_timeout=60)
    app.user = {"is_logged_in": False}
    app.run().button("log_in").click().run()
    assert "pip install 'biasdiff[auth]'" in app.error[0].value.replace("\\", "")


def test_an_account_decides_under_its_name(audit: Audit, ids: list[str]) -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.user = {"is_logged_in": True, "sub": "17", "email": "ana@example.org", "name": "Ana"}
    app.session_state["native"] = True
    app.run()
    app.switch_page("pages/review.py").run()
    assert not app.exception and not app.text_input
    press(app, "native-biased")
    assert audit.log.current()[ids[0]].auditor == "ana@example.org"


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "17", "email": "ana@example.org", "name": "Ana"}, "ana@example.org"),
        ({"sub": "17", "email": "ana@example.org", "email_verified": True}, "ana@example.org"),
        ({"sub": "17", "email": "boss@example.org", "email_verified": False}, "17"),
        ({"sub": "17", "email": "boss@example.org", "email_verified": "false"}, "17"),
        ({"sub": "17", "name": "Ana", "preferred_username": "ana"}, "17"),
    ],
)
def test_two_people_never_share_the_name_of_an_account(claims: dict[str, Any], name: str) -> None:
    assert account_name(claims) == name
