"""A whole audit in the browser: form, job, decisions, mitigation, comparison; the server is killed on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from tests.browser.pages import PATIENCE
from tests.tiny_audit import write_corpus, write_held_out, write_pairs, write_probes

pytestmark = pytest.mark.browser
JOB_PATIENCE = 240_000


def fill(page: Page, label: str, value: str) -> None:
    """Write into a text box and leave it."""
    box = page.get_by_label(label, exact=True)
    box.fill(value)
    box.press("Enter")
    expect(page.locator(".stApp[data-test-script-state=notRunning]")).to_be_attached(timeout=PATIENCE)


def start_audit(page: Page, model: Path, data: Path) -> None:
    """Fill the form of a new audit and start it."""
    fill(page, "Your name", "ana")
    page.get_by_role("radio", name="Folder or Hugging Face id").click()
    fill(page, "Model folder on this machine, or Hugging Face id", str(model))
    for number, path in enumerate((write_corpus(data / "corpus.csv"), write_probes(data / "probes.csv"))):
        page.get_by_role("radio", name="Path or dataset id").nth(number).click()
        box = page.get_by_label("Path on this machine, or Hugging Face dataset id", exact=True).nth(number)
        box.fill(str(path))
        box.press("Enter")
    expect(page.get_by_text("40 examples of 40 rows can be used")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("12 probes, 12 with an anti-stereotype twin, 3 bias types")).to_be_visible(timeout=PATIENCE)
    page.get_by_text("Evaluation: CrowS-Pairs and held-out text").click()
    fill(page, "CrowS-Pairs file", str(write_pairs(data / "pairs.csv")))
    fill(page, "Held-out text", str(write_held_out(data / "heldout.txt")))
    fill(page, "Name of the audit", "browser")
    expect(page.get_by_text("The whole audit takes about")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Start the audit").click()


def test_from_a_new_audit_to_the_comparison(
    watched: Page, serve: Callable[[Path], Server], workspace: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    server = serve(workspace)
    watched.goto(server.url)
    expect(watched.get_by_role("heading", name="Audits", exact=True)).to_be_visible(timeout=PATIENCE)
    start_audit(watched, tiny_model_folder, tmp_path)
    expect(watched.get_by_text("Job 1 (run) is running")).to_be_visible(timeout=PATIENCE)

    watched.goto("about:blank")  # a closed tab
    server.kill()
    server.start()
    watched.goto(server.url)
    expect(watched.get_by_text("is ranked and nothing is decided yet")).to_be_visible(timeout=JOB_PATIENCE)
    expect(watched.get_by_text("Job 1 (run) has finished; started")).to_be_visible()

    fill(watched, "Your name", "ana")
    sidebar = watched.get_by_test_id("stSidebar")
    sidebar.get_by_role("link", name="Explore").click()
    watched.get_by_text("Top 35 % of the ranking: 14").click()
    watched.get_by_role("button", name="Label 14 examples").click()
    watched.get_by_role("button", name="Yes, label 14 as biased").click()
    expect(sidebar.get_by_text("Review (14 decided)")).to_be_visible(timeout=PATIENCE)

    sidebar.get_by_role("link", name="Mitigate").click()
    expect(watched.get_by_text("14 examples of 40 would be removed")).to_be_visible(timeout=PATIENCE)
    watched.get_by_role("button", name="Freeze and run").click()
    expect(watched.get_by_text("Job 2 (mitigate) is running")).to_be_visible(timeout=PATIENCE)
    expect(watched.get_by_text("was mitigated: read the result in Compare")).to_be_visible(timeout=JOB_PATIENCE)

    sidebar.get_by_role("link", name="Compare").click()
    expect(watched.get_by_text("14 examples of 40 taken out, policy confirmed.")).to_be_visible(timeout=PATIENCE)
    expect(watched.get_by_text("Simulated")).to_have_count(0)
    with watched.expect_download() as download:
        watched.get_by_role("button", name="Cleaned corpus").click()
    # 40 rows and a header, less the 14 removed
    assert len(Path(download.value.path()).read_text(encoding="utf8").splitlines()) == 27
    assert Audit.open("browser", workspace).compare().variants == ("base", "origin", "retrain", "npo")
