"""Pace: by hand, by law, and read from a real log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.review.decisions import ADJUDICATION, DecisionLog
from biasdiff_core.review.pace import PAUSE, Pace, own_decisions, pace, pace_of
from biasdiff_core.workspace.database import database

NOW = datetime(2026, 11, 26, 17, 0, tzinfo=UTC)


def ago(*minutes: float) -> list[datetime]:
    return [NOW - timedelta(minutes=m) for m in minutes]


def test_a_short_session_by_hand() -> None:
    # From 40 to 5 minutes ago nothing: a pause. The session is 5, 4, 2 minutes ago; 2 of 3 came after its start, in 5 minutes.
    found = pace(ago(2, 45, 5, 40, 4), NOW)
    assert found == Pace(done=3, per_minute=2 / 5)
    assert found.seconds_left(5) == pytest.approx(300)  # 2 more at 0.4 a minute
    assert found.seconds_left(3) is None


def test_a_long_session_by_hand() -> None:
    # One a minute for 20 minutes: those of the last 10 minutes are 9 … 1 minutes ago.
    assert pace(ago(*range(1, 21)), NOW) == Pace(done=20, per_minute=9 / 10)


def test_a_session_begins_anew_after_a_pause() -> None:
    assert pace([], NOW) == Pace(done=0, per_minute=0.0)
    assert pace(ago(31, 32), NOW) == Pace(done=0, per_minute=0.0)
    assert pace(ago(0), NOW) == Pace(done=1, per_minute=0.0)  # one moment has no pace
    assert Pace(done=1, per_minute=0.0).seconds_left(9) is None


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(0, 500))
def test_only_differences_count_and_an_older_session_does_not(minutes: list[int], shift: int) -> None:
    found = pace(ago(*minutes), NOW)
    moved = timedelta(minutes=shift)
    assert pace([time + moved for time in ago(*minutes)], NOW + moved) == found
    oldest = max(minutes, default=0)
    assert pace([*ago(*minutes), NOW - timedelta(minutes=oldest) - PAUSE - timedelta(seconds=1)], NOW) == found
    assert found.done == sum(all(any(a < b <= a + 30 for b in minutes) or a >= m for a in [0, *minutes] if a < m) for m in minutes)


def test_the_log_says_what_counts(tmp_path: Path) -> None:
    log = DecisionLog(database(tmp_path), "audit")
    log.decide_each([("a", "biased", ""), ("b", "unsure", "")], "Ana")
    log.decide("b", "biased", "Ana")  # changed: still one decision
    log.decide("c", "biased", "Ana")
    log.undo("Ana")
    log.decide_many(["d", "e"], "biased", "Ana")  # not inspected
    log.decide("a", "not_biased", "Bo")  # Ana's is still hers
    log.decide("f", "biased", "Ana", "", {"queue": ADJUDICATION})
    file = tmp_path / "more.jsonl"
    file.write_text(json.dumps({"example_id": "g", "verdict": "biased", "auditor": "Ana", "reason": "", "inspected": True}) + "\n")
    log.import_(file, "Ana")
    assert set(own_decisions(log, "Ana")) == {"a", "b", "f", "g"}
    now = datetime.now(UTC)
    assert pace_of(log, "Ana", now).done == 3
    assert pace_of(log, "Ana", now + PAUSE).done == 0
    assert pace_of(log, "Bo", now).done == 1
