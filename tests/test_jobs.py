"""Jobs as real processes: they finish, fail, are cancelled, are killed and resumed, and outlive their server."""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from biasdiff_core.errors import JobError
from biasdiff_core.workspace import jobs
from biasdiff_core.workspace.database import DATABASE_VARIABLE, Database, database
from biasdiff_core.workspace.database import jobs as table
from biasdiff_core.workspace.jobs import Job, cancel, job_record, list_jobs, resume, start, tail

# A command that says when its work has begun: writing into the pipe waits for the test to read it.
WORKER = """
import os, signal, sys
from pathlib import Path
from biasdiff_core.errors import DataError
from biasdiff_core.workspace.jobs import job_record

mode, pipe = sys.argv[1:]
if mode == "too early":
    sys.exit(3)
with job_record():
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("threads", os.environ["OMP_NUM_THREADS"], "job", os.environ.get("BIASDIFF_JOB"))
    Path(pipe).write_text("begun")
    if mode == "refuse":
        raise DataError("The corpus is empty.", "Give rows.")
    if mode == "break":
        raise ValueError("unforeseen")
    if mode == "exit":
        sys.exit(4)
    while mode in ("wait", "stubborn"):
        signal.pause()
"""
STARTER = """
import sys
from pathlib import Path
from biasdiff_core.workspace.database import database
from biasdiff_core.workspace.jobs import start

workspace, worker, pipe = sys.argv[1:]
print(start(database(Path(workspace)), Path(workspace), "a-1", ["wait", pipe], "Ann", program=(sys.executable, worker)).id)
"""


class Place:
    """A workspace with its database, the worker program and the pipe that tells when it has begun."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.db = database(self.workspace)
        self.worker = folder / "worker.py"
        self.worker.write_text(WORKER)
        self.pipe = folder / "pipe"
        os.mkfifo(self.pipe)
        self.program = (sys.executable, str(self.worker))

    def start(self, mode: str, audit: str = "a-1") -> Job:
        return start(self.db, self.workspace, audit, [mode, str(self.pipe)], "Ann", program=self.program)

    def begun(self, mode: str) -> Job:
        """A job whose work has begun."""
        job = self.start(mode)
        assert self.pipe.read_text() == "begun"
        return job

    def after_end(self, job: Job) -> Job:
        wait_for_end(job)
        return job_now(self.db, job.id)


def job_now(db: Database, job_id: int) -> Job:
    """The job in its present state."""
    return next(job for job in list_jobs(db) if job.id == job_id)


def wait_for_end(job: Job) -> None:
    """Until the process has ended, whoever its parent is, without reaping it."""
    assert job.pid is not None
    try:
        handle = os.pidfd_open(job.pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([handle], [], [], 60)
    os.close(handle)
    assert ended, f"job {job.id} did not end"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    place = Place(tmp_path)
    yield place
    for job in list_jobs(place.db):
        if job.live and job.pid != os.getpid():
            os.killpg(job.pid or 0, signal.SIGKILL)
            wait_for_end(job)
    jobs.refresh(place.db)


def test_a_job_that_finishes(place: Place) -> None:
    job = place.begun("work")
    assert (job.audit, job.auditor, job.host, job.command) == ("a-1", "Ann", platform.node(), ("work", str(place.pipe)))
    ended = place.after_end(job)
    assert (ended.state, ended.exit_code, ended.error, ended.live) == ("finished", 0, None, False)
    assert ended.ended is not None and ended.ended >= ended.started
    assert not psutil.pid_exists(job.pid or 0), "the ended child is reaped"
    assert tail(place.workspace, job) == f"threads {psutil.cpu_count(logical=False) or 1} job None"


def test_a_running_job_runs_in_its_own_session(place: Place) -> None:
    job = place.begun("wait")
    assert job_now(place.db, job.id).state == "running"
    assert os.getsid(job.pid or 0) == job.pid != os.getsid(0)


@pytest.mark.parametrize(
    ("mode", "code", "error"),
    [("refuse", 1, "The corpus is empty. Give rows."), ("break", 1, "ValueError: unforeseen"), ("exit", 4, "exit: 4")],
)
def test_a_job_that_fails_says_why(place: Place, mode: str, code: int, error: str) -> None:
    ended = place.after_end(place.begun(mode))
    assert (ended.state, ended.exit_code, ended.error) == ("failed", code, error)


def test_a_job_that_fails_before_its_work_begins(place: Place) -> None:
    ended = place.after_end(place.start("too early"))
    assert (ended.state, ended.exit_code) == ("failed", 3)
    assert "exit code 3" in (ended.error or "")


def test_the_log_keeps_the_traceback_and_tail_its_end(place: Place) -> None:
    job = place.after_end(place.begun("break"))
    assert tail(place.workspace, job, lines=1) == "ValueError: unforeseen"
    assert "Traceback" in jobs.log_path(place.workspace, job).read_text()
    jobs.log_path(place.workspace, job).unlink()
    assert tail(place.workspace, job) == ""


def test_cancel_asks_and_the_job_ends_itself(place: Place) -> None:
    job = place.begun("wait")
    assert cancel(place.db, job).state == "cancelling"
    ended = place.after_end(job)
    assert (ended.state, ended.exit_code) == ("cancelled", 130)
    with pytest.raises(JobError, match="cancelled already"):
        cancel(place.db, job)


def test_cancelling_twice_ends_a_job_that_does_not_listen(place: Place) -> None:
    job = place.begun("stubborn")
    assert cancel(place.db, job).state == "cancelling"
    assert psutil.pid_exists(job.pid or 0)
    cancel(place.db, job)
    assert place.after_end(job).state == "cancelled"


def test_a_killed_job_is_interrupted_and_can_be_resumed(place: Place) -> None:
    job = place.begun("wait")
    os.kill(job.pid or 0, signal.SIGKILL)
    ended = place.after_end(job)
    assert (ended.state, ended.exit_code) == ("interrupted", -signal.SIGKILL)
    assert "Resume" in (ended.error or "")
    again = resume(place.db, place.workspace, ended, "Bea", program=place.program)
    assert place.pipe.read_text() == "begun"
    assert (again.resumes, again.command, again.auditor, again.state) == (job.id, job.command, "Bea", "running")
    assert [found.id for found in list_jobs(place.db, "a-1")] == [again.id, job.id]


def test_a_job_outlives_its_server(place: Place) -> None:
    arguments = [str(place.workspace), str(place.worker), str(place.pipe)]
    server = subprocess.Popen([sys.executable, "-c", STARTER, *arguments], stdout=subprocess.PIPE, text=True)
    assert place.pipe.read_text() == "begun"
    output, _ = server.communicate(timeout=60)
    restarted = Database(place.db.url)
    job = job_now(restarted, int(output))
    assert job.state == "running"
    assert psutil.Process(job.pid).ppid() != server.pid
    os.kill(job.pid or 0, signal.SIGKILL)
    wait_for_end(job)
    assert job_now(restarted, job.id).state == "interrupted"


def test_one_job_an_audit(place: Place) -> None:
    job = place.begun("wait")
    with pytest.raises(JobError, match=f"Job {job.id} of a-1 is running"):
        place.start("work")
    with pytest.raises(JobError, match="is running"):
        resume(place.db, place.workspace, job, "Ann", program=place.program)
    other = place.start("work", audit="b-2")
    assert place.pipe.read_text() == "begun"
    assert place.after_end(other).state == "finished"
    assert [found.id for found in list_jobs(place.db)] == [other.id, job.id]


def test_of_several_starts_at_once_one_is_accepted(place: Place) -> None:
    barrier = Barrier(4)

    def attempt(_: int) -> bool:
        barrier.wait(30)
        try:
            place.start("wait")
        except JobError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        accepted = list(pool.map(attempt, range(4)))
    assert sum(accepted) == 1
    assert place.pipe.read_text() == "begun"


def test_a_program_that_cannot_be_started_leaves_no_row(place: Place) -> None:
    with pytest.raises(JobError, match="cannot be started"):
        start(place.db, place.workspace, "a-1", [], "Ann", program=("/no/such/program",))
    assert list_jobs(place.db) == []


def _row(place: Place, **changes: Any) -> Job:
    """A row as another server left it."""
    row = {
        "audit": "a-1",
        "command": "[]",
        "auditor": "Ann",
        "state": "running",
        "host": platform.node(),
        "started": "",
        "pid": os.getpid(),
    }
    with place.db.write("jobs") as connection:
        job_id = connection.execute(table.insert().values({**row, **changes}).returning(table.c.id)).scalar_one()
    with place.db.read() as connection:
        return Job(**{**connection.execute(sa.select(table).where(table.c.id == job_id)).mappings().one(), "command": ()})


def test_another_process_under_the_same_pid_is_not_the_job(place: Place) -> None:
    own = psutil.Process().create_time() - psutil.boot_time()
    same, other = _row(place, pid_created=own), _row(place, pid_created=own - 3600)
    assert job_now(place.db, same.id).state == "running"
    assert job_now(place.db, other.id).state == "interrupted"


def test_a_job_of_another_machine_is_left_alone_until_it_is_cancelled(place: Place) -> None:
    job = _row(place, host="elsewhere", pid_created=1.0)
    assert job_now(place.db, job.id).state == "running"
    ended = cancel(place.db, job)
    assert ended.state == "cancelled" and "elsewhere" in (ended.error or "")


def test_unknown_jobs_are_named(place: Place) -> None:
    with pytest.raises(JobError, match="no job 77"):
        cancel(place.db, replace(_row(place, state="finished"), id=77))


def test_a_command_that_is_no_job_records_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(jobs.JOB_VARIABLE, raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="goes on"), job_record():
        raise ValueError("goes on")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert list_jobs(place.db) == []
