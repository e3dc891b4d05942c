"""The five steps on the start page: there on first sight, gone once closed, and for the same auditor gone on the next visit."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest

from biasdiff_ui.state import STATE
from biasdiff_ui.tour import STEPS
from tests.test_app import PAGES, open_page, shown


def steps(app: AppTest) -> bool:
    """Whether the steps are shown; never only some of them."""
    found = [what in shown(app) for _, _, what in STEPS]
    assert len(set(found)) == 1
    return found[0]


def test_each_step_is_a_page_and_the_first_visit_shows_all(workspace: Path) -> None:
    assert len(STEPS) <= 5 and {page for page, _, _ in STEPS} <= set(PAGES)
    app = open_page("audits")
    assert not app.exception
    assert steps(app)


def test_closing_holds_for_the_auditor_and_can_be_taken_back(workspace: Path) -> None:
    app = open_page("audits", **{STATE.auditor: "Ana"})
    app.button("tour_close").click().run()
    assert not app.exception
    assert not steps(app)
    again = open_page("audits", **{STATE.auditor: "Ana"})
    assert not steps(again)
    assert steps(open_page("audits", **{STATE.auditor: "Bo"}))
    again.button("tour_show").click().run()
    assert steps(again) and steps(open_page("audits", **{STATE.auditor: "Ana"}))


def test_without_a_name_closing_holds_for_the_session(workspace: Path) -> None:
    app = open_page("audits")
    app.button("tour_close").click().run()
    assert not steps(app) and not steps(app.run())
    assert steps(open_page("audits"))
