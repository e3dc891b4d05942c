"""Accounts by OpenID Connect: nothing is seen without one, and decisions stand under its e-mail address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.served import Server
from biasdiff_core.audit import Audit
from tests.browser.identity_provider import identity_provider, secrets
from tests.browser.pages import patient
from tests.browser.reviewing import pressed, queue, recorded, saved

pytestmark = pytest.mark.browser
ANA = {"sub": "17", "email": "ana@example.org", "name": "Ana"}


@pytest.fixture
def with_accounts(serve: Callable[..., Server], undecided: Audit, tmp_path: Path) -> Iterator[Server]:
    """The app, whose only account is Ana's."""
    file = tmp_path / "secrets.toml"
    server = serve(undecided.folder.workspace, STREAMLIT_SECRETS_FILES=str(file))
    with identity_provider(ANA) as provider:
        server.kill()  # the address that the secrets name is known once it was served
        file.write_text(secrets(provider, server.url), encoding="utf8")
        server.start()
        yield server


def test_decisions_stand_under_the_account(watched: Page, with_accounts: Server, undecided: Audit) -> None:
    patient(watched)
    watched.goto(f"{with_accounts.url}/review?audit={undecided.folder.id}")
    expect(watched.get_by_text("Log in to see the audits")).to_be_visible()
    assert watched.get_by_test_id("stSidebarNav").count() == 0
    watched.get_by_role("button", name="Log in").click()
    expect(watched.get_by_text("Logged in as ana@example.org")).to_be_visible()
    watched.goto(f"{with_accounts.url}/review?audit={undecided.folder.id}")
    expect(watched.get_by_label("Review card")).to_be_visible()
    watched.get_by_role("heading", name="Review").click()
    ids = queue(undecided)[:2]
    pressed(watched, "bn", 0)
    saved(watched, 2)
    assert [id_ for id_, _, _ in recorded(undecided, ANA["email"])] == ids
    watched.get_by_role("button", name="Log out").click()
    expect(watched.get_by_text("Log in to see the audits")).to_be_visible()
