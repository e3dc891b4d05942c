"""From Review to the comparison: the form, the job that it starts, and the page on which it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from biasdiff_core.workspace.audits import list_audits
from tests.browser.pages import PATIENCE

pytestmark = pytest.mark.browser
JOB_PATIENCE = 240_000


def test_review_leads_to_the_comparison(watched: Page, serve: Callable[[Path], Server], finished_workspace: Path) -> None:
    audit = Audit(list_audits(finished_workspace)[0])
    before = audit.report().key
    watched.goto(f"{serve(finished_workspace).url}/review?audit={audit.folder.id}")
    name = watched.get_by_role("textbox", name="Your name")
    name.fill("Ana", timeout=PATIENCE)
    name.press("Enter")
    watched.get_by_text("Mitigate and compare in one click").click(timeout=PATIENCE)
    watched.get_by_text("Top of the ranking, less the false positives").click(timeout=PATIENCE)
    # 60 % of 40 are candidates and all decided: 12 are biased, 12 not.
    expect(watched.get_by_text("12 examples of 40 would be removed")).to_be_visible(timeout=PATIENCE)
    expect(watched.get_by_text("12 spared as false positives")).to_be_visible()
    watched.get_by_role("button", name="Freeze and run").click()
    expect(watched.get_by_text("Job 1 (mitigate) is running")).to_be_visible(timeout=PATIENCE)
    # It lands there by itself when the job that this session started ends.
    expect(watched.get_by_role("heading", name="Compare", exact=True)).to_be_visible(timeout=JOB_PATIENCE)
    expect(watched.get_by_text("12 examples of 40 taken out, policy top percent.")).to_be_visible(timeout=PATIENCE)
    assert audit.report().key != before
    assert audit.compare().variants == ("base", "origin", "retrain", "npo", "random")
