"""The progress file: throttled, never without the last step, with the expected remaining time."""

from __future__ import annotations

from pathlib import Path

import pytest

from biasdiff_core.results import Progress
from biasdiff_core.workspace.progress import ProgressWriter, read_progress


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    (tmp_path / "progress").mkdir()
    return tmp_path


def test_nothing_written_yet(audit: Path) -> None:
    assert read_progress(audit) is None


def test_expected_time_counts_only_the_steps_seen(audit: Path) -> None:
    clock = Clock()
    write = ProgressWriter(audit, clock)
    write(Progress(stage="gradients", done=60, total=100, unit="examples"))
    first = read_progress(audit)
    assert first is not None and first.eta_seconds is None
    clock.now += 10
    write(Progress(stage="gradients", done=80, total=100, unit="examples"))
    record = read_progress(audit)
    # Resumed at 60: 20 examples took 10 s, so the remaining 20 take 10 s.
    assert record is not None
    assert (record.eta_seconds, record.started, record.updated) == (10, 1000, 1010)
    assert record.progress == Progress(stage="gradients", done=80, total=100, unit="examples")


def test_at_most_four_a_second_but_always_the_last_and_each_new_stage(audit: Path) -> None:
    clock = Clock()
    write = ProgressWriter(audit, clock)
    seen = []
    steps = [Progress(stage="warmup", done=done, total=10) for done in range(11)] + [Progress(stage="scores", done=0, total=2)]
    for step in steps:
        write(step)
        record = read_progress(audit)
        assert record is not None
        seen.append((record.progress.stage, record.progress.done))
        clock.now += 0.125
    # A write every other step: 0, 2, 4, … 10 is the last of its stage, and the next stage begins at once.
    assert [done for stage, done in seen if stage == "warmup"] == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10]
    assert seen[-1] == ("scores", 0)


def test_the_same_stage_may_begin_again(audit: Path) -> None:
    clock = Clock()
    write = ProgressWriter(audit, clock)
    write(Progress(stage="mitigation", done=5, total=10))
    clock.now += 100
    write(Progress(stage="mitigation", done=1, total=10))
    record = read_progress(audit)
    assert record is not None and record.started == 1100 and record.eta_seconds is None
