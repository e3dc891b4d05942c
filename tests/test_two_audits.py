"""One session, two audits: what was chosen for the one is not applied to the other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit
from biasdiff_core.config import RemovalConfig
from biasdiff_core.config.file import dump
from biasdiff_core.workspace.audits import AuditFolder, list_audits
from biasdiff_ui.audits_table import SELECTION
from biasdiff_ui.data_source import stamp
from biasdiff_ui.state import STATE
from tests.app_pages import ROOT, keyed, open_page, press
from tests.test_app import shown
from tests.undecided import undecided_audit


@pytest.fixture
def audit(finished_workspace: Path) -> Audit:
    return undecided_audit(finished_workspace)


@pytest.fixture
def other(audit: Audit) -> Audit:
    """The same results under choices of its own: the top 10 % are taken out, by retraining and at random."""
    folder = audit.folder.path.with_name("other-abc123")
    shutil.copytree(audit.folder.path, folder)
    mitigation = replace(audit.config.mitigation, methods=("retrain", "random"))
    config = replace(audit.config, name="other", removal=RemovalConfig(policy="top_percent", percent=10.0), mitigation=mitigation)
    (folder / "audit.yaml").write_text(dump(config), encoding="utf8")
    return Audit(AuditFolder(folder))


def turn_to(app: AppTest, audit: Audit) -> AppTest:
    """The same page, after this audit was chosen in the sidebar."""
    app.query_params["audit"] = app.session_state[STATE.audit] = audit.folder.id
    app.run()
    assert not app.exception
    return app


def test_policy_and_methods_are_those_of_the_audit(audit: Audit, other: Audit) -> None:
    audit.log.decide(audit.ranking()["id"].iloc[0], "biased", "Ana")
    app = open_page(audit, "mitigate")
    keyed(app.checkbox, "mitigate_ascent").check().run()
    policy = keyed(app.radio, "mitigate_policy")
    policy.set_value(policy.options[0]).run()
    turn_to(app, other)
    policy = keyed(app.radio, "mitigate_policy")
    assert policy.value == policy.options[1] and keyed(app.slider, "mitigate_percent").value == 10.0
    assert {box.label for box in app.checkbox if box.value} == {"Retrain", "Random control"}


def test_the_cut_is_that_of_the_audit(audit: Audit, other: Audit) -> None:
    app = open_page(audit, "explore")
    assert app.slider(key="percent").value == audit.config.removal.percent
    assert turn_to(app, other).slider(key="percent").value == 10.0
    app.slider(key="percent").set_value(50.0).run()
    assert app.slider(key="percent").value == 50.0
    assert turn_to(app, audit).slider(key="percent").value == audit.config.removal.percent


def test_a_notice_stands_beside_its_own_audit_alone(audit: Audit, other: Audit) -> None:
    app = open_page(audit, "explore", link={"rank": "1"})
    press(app, "one-biased")
    assert "Recorded: biased." in shown(app)
    press(app, "notice-undo")
    press(app, "notice-undo")
    assert app.button(key="notice-undo").label == "Undo" and len(audit.log.current()) == 1  # it was restored
    press(app, "notice-undo")
    assert app.button(key="notice-undo").label == "Restore" and not audit.log.current()
    turn_to(app, other)
    assert not [button for button in app.button if button.key == "notice-undo"]


def test_a_row_that_was_clicked_does_not_overrule_a_later_choice(audit: Audit, other: Audit) -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["audit"] = audit.folder.id
    row = [folder.id for folder in list_audits(audit.folder.workspace)].index(other.folder.id)
    app.session_state[SELECTION] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    app.run()
    assert not app.exception and app.sidebar.selectbox[0].value == audit.folder.id


def test_a_link_leads_to_audits_of_the_workspace_alone(audit: Audit, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "audits" / "stolen-abc123"
    shutil.copytree(audit.folder.path, elsewhere)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["audit"] = f"{elsewhere}"
    app.run()
    assert "There is no audit" in app.error[0].value and app.sidebar.selectbox[0].value == audit.folder.id
    app.query_params["audit"] = "![x](https://example.org/a.png)"
    app.run()
    assert "![x](" not in app.error[0].value
    assert not (elsewhere.parents[1] / "biasdiff.db").exists()


def _columns() -> None:
    import streamlit as st

    from biasdiff_ui.data_source import choose_column

    st.session_state["found"] = choose_column("Text", st.session_state["of_file"], "column", ("text",))


def test_another_files_columns_are_chosen_anew() -> None:
    app = AppTest.from_function(_columns)
    for columns in (("id", "source", "note", "text"), ("text", "is_biased", "label", "group"), ("id", "source", "note", "text")):
        app.session_state["of_file"] = columns
        app.run()
        assert app.session_state["found"] == "text"


def test_a_folder_saved_again_has_another_stamp(tmp_path: Path) -> None:
    saved = tmp_path / "a#b"
    (saved / "train").mkdir(parents=True)
    (saved / "train" / "data.arrow").write_text("one")
    assert stamp(str(saved)) == ""  # no folder of `datasets`: it is not walked
    (saved / "dataset_dict.json").write_text("{}")
    before = stamp(str(saved))
    assert stamp(f"{saved}#train") == before
    (saved / "train" / "data.arrow").write_text("other")
    assert stamp(str(saved)) != before and {stamp(path) for path in ("owner/name#train", "#train", "demo", "gone.csv")} == {""}
