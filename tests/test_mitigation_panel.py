"""From Review to the comparison in one click: what would be removed, what it takes, and the way to the result."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit
from biasdiff_core.workspace.audits import list_audits
from biasdiff_core.workspace.database import database, jobs
from biasdiff_core.workspace.jobs import CHAIN
from biasdiff_ui.format import count
from tests.app_pages import keyed, open_page
from tests.test_app import shown
from tests.undecided import undecided_audit


@pytest.fixture
def audit(finished_workspace: Path) -> Audit:
    return Audit(list_audits(finished_workspace)[0])


def opened(audit: Audit) -> AppTest:
    """Review with the form open, as a click on its title leaves it."""
    return open_page(audit, "review", one_click=True)


def test_the_form_is_that_of_mitigate_with_its_three_methods(audit: Audit) -> None:
    app, mitigate = opened(audit), open_page(audit, "mitigate")
    said = next(line for line in shown(mitigate).splitlines() if "would be removed" in line)
    assert said in shown(app)
    assert "Retraining, NPO, random removal: about" in shown(app)
    keyed(app.radio, "mitigate_policy").set_value(keyed(app.radio, "mitigate_policy").options[1]).run()
    keyed(app.slider, "mitigate_percent").set_value(100.0).run()
    # 24 of 40 were decided (60 %); the other 16 are undecided, and those judged not biased are spared.
    confirmed = sum(decision.verdict == "biased" for decision in audit.log.current().values())
    assert f"{confirmed + 16} examples of 40 would be removed" in shown(app)
    groups = next(frame.value for frame in app.dataframe if {"group", "before", "removed", "after"} <= set(frame.value))
    assert groups["removed"].sum() == confirmed + 16
    assert not app.button("freeze_and_run").disabled


def test_nothing_can_be_frozen_before_something_is_confirmed(finished_workspace: Path) -> None:
    app = opened(undecided_audit(finished_workspace))
    assert "Confirm an example as biased first" in shown(app)
    assert not [button for button in app.button if button.key == "freeze_and_run"]


def test_closed_it_reads_nothing(audit: Audit) -> None:
    assert not [radio for radio in open_page(audit, "review").radio if str(radio.key).startswith("mitigate_policy")]


@pytest.mark.parametrize("awaited, judged_since, lands", [(True, False, True), (False, False, False), (True, True, False)])
def test_the_result_opens_where_its_job_was_awaited(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, awaited: bool, judged_since: bool, lands: bool
) -> None:
    """The job ends while its panel is watched: in the session that started it, unless the auditor has gone on deciding."""
    ended = {"state": "finished", "host": "here", "started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T10:09:00+00:00"}
    with database(audit.folder.workspace).write(CHAIN) as connection:
        connection.execute(jobs.insert().values(audit=audit.folder.id, command='["mitigate", "x"]', auditor="Ana", exit_code=0, **ended))
    if judged_since:
        audit.log.decide(audit.ranking()["id"][0], "unsure", "Ana")
    app = AppTest.from_function(watch, kwargs={"folder": str(audit.folder.path), "awaited": awaited}, default_timeout=60)
    switched: list[str] = []
    monkeypatch.setattr(st, "switch_page", lambda page, query_params: switched.append(f"{page}?audit={query_params['audit']}"))
    app.run()
    assert switched == ([f"pages/compare.py?audit={audit.folder.id}"] if lands else [])


def watch(folder: str, awaited: bool) -> None:
    """A page that saw the newest job live when it was drawn."""
    import streamlit as st

    from biasdiff_core.audit import Audit
    from biasdiff_core.workspace.database import database
    from biasdiff_core.workspace.jobs import list_jobs
    from biasdiff_ui.jobs_view import _panel, land_on_compare_after

    audit = Audit.open(folder)
    st.session_state.setdefault("auditor", "Ana")
    if awaited:
        land_on_compare_after(list_jobs(database(audit.folder.workspace), audit.folder.id)[0])
    was_live = "watched" not in st.session_state
    st.session_state["watched"] = True
    _panel(audit, was_live, "")


@pytest.mark.parametrize("auditor", ["Ana", ""])
def test_explore_hands_its_selection_on(audit: Audit, auditor: str) -> None:
    app = open_page(audit, "explore", auditor)
    app.text_input(key="find").set_value("never pay back").run()
    app.switch_page("pages/mitigate.py").run()
    keyed(app.radio, "mitigate_policy").set_value(keyed(app.radio, "mitigate_policy").options[2]).run()
    assert "3 examples, as Explore showed them last" in shown(app)
    ranking, current = audit.ranking(), audit.log.current()
    found = ranking["id"][ranking["text"].str.contains("never pay back")]
    spared = sum(id_ in current and current[id_].verdict == "not_biased" for id_ in found)
    assert f"{count(3 - spared, 'example')} of 40 would be removed" in shown(app)
    app.switch_page("pages/explore.py").run()
    app.text_input(key="find").set_value("").run()
    app.switch_page("pages/mitigate.py").run()
    assert len(keyed(app.radio, "mitigate_policy").options) == 2  # nothing is selected, so there is nothing to hand on


def test_a_finished_job_leads_to_the_comparison(audit: Audit) -> None:
    ended = {"state": "finished", "host": "here", "started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T10:09:00+00:00"}
    with database(audit.folder.workspace).write(CHAIN) as connection:
        connection.execute(jobs.insert().values(audit=audit.folder.id, command='["mitigate", "x"]', auditor="Ana", exit_code=0, **ended))
    for page in ("review", "mitigate"):
        links = [link.proto for link in open_page(audit, page).get("page_link") if link.proto.label == "Read the result in Compare"]
        assert [(link.page, link.query_string) for link in links] == [("compare", f"audit={audit.folder.id}")]
