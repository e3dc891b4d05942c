"""Background jobs: a row in the database and one detached process each, which outlives a page, a session and the server.

A job is a command line of BiasDiff, started as a command: nothing that it does is imported here. The process records its
own end (`job_record`); when it could not, `refresh` sees that it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from biasdiff_core.errors import BiasDiffError, JobError
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE, default_workspace
from biasdiff_core.workspace.database import Database, database
from biasdiff_core.workspace.database import jobs as table

log = logging.getLogger(__name__)

JOB_VARIABLE = "BIASDIFF_JOB"
PROGRAM = (sys.executable, "-m", "biasdiff_core")
State = Literal["running", "cancelling", "finished", "failed", "cancelled", "interrupted"]
LIVE: tuple[State, ...] = ("running", "cancelling")
CHAIN = "jobs"
TAIL_BYTES = 200_000

# Children of this process, kept to reap them: an ended child that nobody waits for stays as a zombie.
_children: dict[int | None, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job. `pid_created`: when its process was created, in seconds since the boot (setting the clock does not shift it).

    `interrupted`: it was killed; resume it to go on. `resumes`: the job that it takes up.
    """

    id: int
    audit: str
    command: tuple[str, ...]
    auditor: str
    state: State
    pid: int | None
    pid_created: float | None
    host: str
    started: str
    ended: str | None
    exit_code: int | None
    error: str | None
    resumes: int | None

    @property
    def live(self) -> bool:
        """Whether it runs, or is about to end on request."""
        return self.state in LIVE


def start(
    db: Database,
    workspace: Path,
    audit_id: str,
    command: Sequence[str],
    auditor: str,
    *,
    program: Sequence[str] = PROGRAM,
    resumes: int | None = None,
) -> Job:
    """Start `python -m biasdiff_core <command>` for an audit as a detached process; output to `<audit>/logs/job-<id>.log`.

    Raises JobError when a job of the audit runs already or the process cannot be started.
    """
    refresh(db)
    with db.write(CHAIN) as connection:
        running = connection.execute(sa.select(table.c.id).where(table.c.audit == audit_id, table.c.state.in_(LIVE))).scalar()
        if running is not None:
            raise JobError(f"Job {running} of {audit_id} is running.", "Wait for it, or cancel it.")
        row = {"audit": audit_id, "command": json.dumps(list(command)), "auditor": auditor, "state": "running"}
        values = {**row, "host": platform.node(), "started": _now(), "resumes": resumes}
        job_id = connection.execute(table.insert().values(values).returning(table.c.id)).scalar_one()
        # Started before the commit, so that no row is ever without its process; an early end waits for the write lock.
        pid, created = _spawn(workspace, audit_id, job_id, [*program, *command])
        connection.execute(table.update().where(table.c.id == job_id).values(pid=pid, pid_created=created))
        return _find(connection, job_id)


def resume(db: Database, workspace: Path, job: Job, auditor: str, *, program: Sequence[str] = PROGRAM) -> Job:
    """Start the command of an ended job again, as a new job that names it. Finished stages are kept, so it goes on. Raises JobError."""
    return start(db, workspace, job.audit, job.command, auditor, program=program, resumes=job.id)


def cancel(db: Database, job: Job) -> Job:
    """Ask the job to end (SIGTERM to its process group) without waiting for it; asked a second time, end it at once (SIGKILL).

    A job of another machine cannot be reached and is only marked as cancelled. Raises JobError when it has ended already.
    """
    refresh(db)
    with db.write(CHAIN) as connection:
        found = _find(connection, job.id)
        if not found.live:
            raise JobError(f"Job {job.id} is {found.state} already.", "There is nothing to cancel.")
        if found.host != platform.node():
            _end(
                connection,
                job.id,
                "cancelled",
                error=f"marked from {platform.node()}; process {found.pid} of {found.host} was out of reach",
            )
        else:
            # SIGTERM, not SIGINT: a server that a shell started in the background hands down an ignored SIGINT.
            _signal_group(found, signal.SIGKILL if found.state == "cancelling" else signal.SIGTERM)
            connection.execute(table.update().where(table.c.id == job.id).values(state="cancelling"))
        return _find(connection, job.id)


def refresh(db: Database) -> None:
    """Mark jobs of this machine whose process is gone without a record of its end: cancelled, failed or interrupted."""
    with db.read() as connection:
        live = connection.execute(sa.select(table).where(table.c.state.in_(LIVE), table.c.host == platform.node())).mappings()
        gone = [job for job in map(_job, live) if not _is_alive(job)]
    exit_codes = {pid: process.poll() for pid, process in list(_children.items())}  # reaps
    for job in gone:
        with db.write(CHAIN) as connection:
            _mark_gone(connection, _find(connection, job.id), exit_codes.get(job.pid))


def list_jobs(db: Database, audit_id: str | None = None) -> list[Job]:
    """All jobs, or those of one audit, newest first, in their present state."""
    refresh(db)
    wanted = sa.select(table).order_by(table.c.id.desc())
    if audit_id is not None:
        wanted = wanted.where(table.c.audit == audit_id)
    with db.read() as connection:
        return [_job(row) for row in connection.execute(wanted).mappings()]


def log_path(workspace: Path, job: Job) -> Path:
    """Where the job's output goes."""
    return _log_path(workspace, job.audit, job.id)


def tail(workspace: Path, job: Job, lines: int = 50) -> str:
    """The last lines of the job's output."""
    try:
        with log_path(workspace, job).open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = handle.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


@contextmanager
def job_record() -> Iterator[None]:
    """Around the work of a command: when it runs as a job (`BIASDIFF_JOB`), record how it ended. SIGTERM becomes KeyboardInterrupt.

    The exception, if any, goes on. Does nothing in a command that is not a job.
    """
    job_id = os.environ.pop(JOB_VARIABLE, None)  # popped: a program that the job starts is not the job
    if job_id is None:
        yield
        return
    db = database(default_workspace())
    _handle_stop_signals(signal.default_int_handler)
    try:
        yield
    except BaseException as error:
        _record_end(db, int(job_id), error)
        raise
    _record_end(db, int(job_id), None)


def _record_end(db: Database, job_id: int, error: BaseException | None) -> None:
    _handle_stop_signals(signal.SIG_IGN)  # a late cancel must not keep the record from being written
    state, code, text = _outcome(error)
    with db.write(CHAIN) as connection:
        if state == "failed" and _find(connection, job_id).state == "cancelling":
            state = "cancelled"  # e.g. workers ended by the signal before this process saw it
        _end(connection, job_id, state, exit_code=code, error=text)


def _outcome(error: BaseException | None) -> tuple[State, int, str | None]:
    if error is None or isinstance(error, SystemExit) and not error.code:
        return "finished", 0, None
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", 128 + signal.SIGINT, None
    if isinstance(error, SystemExit):
        return "failed", error.code if isinstance(error.code, int) else 1, f"exit: {error.code}"
    return "failed", 1, str(error) if isinstance(error, BiasDiffError) else f"{type(error).__name__}: {error}"


def _handle_stop_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _spawn(workspace: Path, audit_id: str, job_id: int, arguments: Sequence[str]) -> tuple[int, float]:
    """Pid and creation time of the new process."""
    path = _log_path(workspace, audit_id, job_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                env=_environment(workspace, job_id),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise JobError(f"The job cannot be started: {error}.", f"Check that {arguments[0]} can be run.") from error
    created = _created(process.pid)  # before another thread may reap it
    _children[process.pid] = process
    return process.pid, created


def _environment(workspace: Path, job_id: int) -> Mapping[str, str]:
    package_root = str(Path(__file__).resolve().parents[2])
    search = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_NUM_THREADS": str(psutil.cpu_count(logical=False) or 1),
        **os.environ,
        WORKSPACE_VARIABLE: str(workspace.resolve()),
        JOB_VARIABLE: str(job_id),
        "PYTHONPATH": os.pathsep.join(search),
        "PYTHONUNBUFFERED": "1",
    }


def _signal_group(job: Job, number: signal.Signals) -> None:
    if job.pid is not None and _is_alive(job):
        try:
            os.killpg(job.pid, number)
        except ProcessLookupError:
            log.info("job %d ended by itself", job.id)


def _is_alive(job: Job) -> bool:
    if job.pid is None or job.pid_created is None:
        return False
    try:
        return psutil.Process(job.pid).status() != psutil.STATUS_ZOMBIE and abs(_created(job.pid) - job.pid_created) < 1
    except psutil.NoSuchProcess:
        return False


def _created(pid: int) -> float:
    boot = psutil.boot_time()
    return psutil.Process(pid).create_time() - boot


def _mark_gone(connection: Connection, job: Job, code: int | None) -> None:
    if job.state == "cancelling":
        _end(connection, job.id, "cancelled", exit_code=code)
    elif code is not None and code > 0:
        _end(connection, job.id, "failed", exit_code=code, error=f"It ended with exit code {code} before its work began; see its log.")
    elif job.live:
        _end(connection, job.id, "interrupted", exit_code=code, error="Its process was killed. Resume it to go on.")


def _end(connection: Connection, job_id: int, state: State, *, exit_code: int | None = None, error: str | None = None) -> None:
    """Record the end, unless one is recorded already."""
    live = sa.and_(table.c.id == job_id, table.c.state.in_(LIVE))
    connection.execute(table.update().where(live).values(state=state, ended=_now(), exit_code=exit_code, error=error))


def _find(connection: Connection, job_id: int) -> Job:
    row = connection.execute(sa.select(table).where(table.c.id == job_id)).mappings().first()
    if row is None:
        raise JobError(f"There is no job {job_id}.", "See `biasdiff status`.")
    return _job(row)


def _job(row: Mapping[Any, Any]) -> Job:
    return Job(**{**row, "command": tuple(json.loads(row["command"]))})


def _log_path(workspace: Path, audit_id: str, job_id: int) -> Path:
    return workspace / "audits" / audit_id / "logs" / f"job-{job_id}.log"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
