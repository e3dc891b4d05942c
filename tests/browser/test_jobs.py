"""A running job in the browser: reload, cancel, resume, and a worker that is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from biasdiff_core.workspace.database import database
from biasdiff_core.workspace.jobs import list_jobs
from tests.browser.pages import PATIENCE
from tests.tiny_audit import tiny_config

pytestmark = pytest.mark.browser
FOREVER = 100_000


@pytest.fixture
def endless(workspace: Path, tiny_model_folder: Path, tmp_path: Path) -> Iterator[Audit]:
    """An audit whose warm-up takes far longer than the test."""
    config = tiny_config(tmp_path, tiny_model_folder, "endless")
    training = replace(config.warmup.training, epochs=FOREVER)
    audit = Audit.from_config(replace(config, warmup=replace(config.warmup, training=training)), workspace)
    yield audit
    kill_worker(audit)


def kill_worker(audit: Audit) -> None:
    """SIGKILL to the process group of the job that runs, if any."""
    for job in list_jobs(database(audit.folder.workspace), audit.folder.id):
        if job.live and job.pid is not None:
            os.killpg(job.pid, signal.SIGKILL)


def test_a_job_is_reloaded_cancelled_resumed_and_killed(watched: Page, serve: Callable[[Path], Server], endless: Audit) -> None:
    watched.goto(serve(endless.folder.workspace).url)
    watched.get_by_role("button", name="Run the analysis").click(timeout=PATIENCE)
    expect(watched.get_by_test_id("stProgress")).to_contain_text("Warm up the model: ", timeout=PATIENCE)
    watched.reload()
    expect(watched.get_by_text("Job 1 (run) is running")).to_be_visible(timeout=PATIENCE)
    watched.get_by_role("button", name="Cancel").click()
    expect(watched.get_by_text("Job 1 (run) was cancelled")).to_be_visible(timeout=PATIENCE)
    watched.get_by_role("button", name="Resume").click()
    expect(watched.get_by_text("Job 2 (run) is running")).to_be_visible(timeout=PATIENCE)
    expect(watched.get_by_test_id("stProgress")).to_contain_text("Warm up the model: ", timeout=PATIENCE)
    kill_worker(endless)
    expect(watched.get_by_text("Job 2 (run) was killed")).to_be_visible(timeout=PATIENCE)
    expect(watched.get_by_role("button", name="Resume")).to_be_visible()
