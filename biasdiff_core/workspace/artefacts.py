"""Stage results on disk: immutable folders named by a content key, published atomically, verified by digest.

Work happens in `<stage>/<key>.partial/`; the manifest is written last, then one `os.replace`. A folder without
`.partial` is therefore complete, and a killed stage leaves only a partial folder that the next run resumes or clears.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from biasdiff_core.config.file import key_form
from biasdiff_core.errors import ArtefactError, JobError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
ARCHIVED = "archived.json"

# Bumped when the meaning of a stage's files or numbers changes, so that an old result is never taken for a new one.
FORMATS: Mapping[str, int] = {
    "corpus": 1,
    "probes": 1,
    "warmup": 1,
    "gradients": 1,
    "index": 1,
    "scores": 1,
    "ranking": 1,
    "map2d": 1,
    "nearness": 1,
    "tokens": 1,
    "search": 1,
    "removal": 1,
    "mitigation": 1,
    "evaluation": 1,
    "report": 1,
}


def digest_bytes(content: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_source(path: Path) -> str:
    """As `digest_file`, for files from outside, which a plan asks for again and again: read anew when size or time has changed."""
    status = path.stat()
    return _digest_known(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_known(path: Path, size: int, modified: int) -> str:
    return digest_file(path)


def digest_json(record: Any) -> str:
    """SHA-256 of a record's canonical JSON (sorted keys, no spaces)."""
    return digest_bytes(json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode())


def stage_key(stage: str, config: Any, inputs: Mapping[str, str]) -> str:
    """First 12 hex digits of SHA-256 over {stage, format number, typed config, input keys} (design: On disk).

    `config`: a config dataclass or a mapping of plain values and config dataclasses. Raises KeyError for an unknown stage.
    """
    return digest_json(_key_record(stage, config, inputs))[:12]


def _key_record(stage: str, config: Any, inputs: Mapping[str, str]) -> dict[str, Any]:
    typed = {name: key_form(value) for name, value in config.items()} if isinstance(config, Mapping) else key_form(config)
    return {"stage": stage, "format": FORMATS[stage], "config": typed, "inputs": dict(inputs)}


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A complete stage result. `facts` holds what the stage found out (counts, figures, environment)."""

    folder: Path
    stage: str
    key: str
    config: Any
    inputs: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    created: str
    seconds: float

    def path(self, name: str) -> Path:
        """Path of one payload file. Raises ArtefactError when it is archived or was never part of the result."""
        path = self.folder / name
        if path.exists():
            return path
        if name in archived_files(self.folder):
            raise ArtefactError(
                f"{self.stage}/{self.key}/{name} is archived: its digest is kept, its bytes are not in this folder.",
                "Restore the file, or run the audit anew: copy its audit.yaml, change the name, `biasdiff run audit.yaml`.",
            )
        raise ArtefactError(f"{self.stage}/{self.key} holds no {name}.", "Run `biasdiff verify` on the audit.")

    def read_json(self, name: str) -> Any:
        """One payload file as JSON."""
        return json.loads(self.path(name).read_text(encoding="utf8"))


def open_artefact(audit: Path, stage: str, key: str) -> Artefact:
    """The complete result `<audit>/<stage>/<key>`. Raises ArtefactError when it is missing or its manifest disagrees."""
    folder = audit / stage / key
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf8"))
    except FileNotFoundError as error:
        raise ArtefactError(f"There is no finished {stage} {key} in {audit.name}.", f"Run `biasdiff run {audit.name}`.") from error
    except json.JSONDecodeError as error:
        raise ArtefactError(f"{folder / MANIFEST} is not JSON: {error}.", f"Delete {folder} and run the stage again.") from error
    if (record["stage"], record["key"]) != (stage, key):
        raise ArtefactError(
            f"{folder} says it is {record['stage']}/{record['key']}, but lies at {stage}/{key}.", "Delete it and run the stage again."
        )
    names = ("config", "inputs", "files", "facts", "created", "seconds")
    return Artefact(folder=folder, stage=stage, key=key, **{name: record[name] for name in names})


def manifests(audit: Path, stage: str = "*") -> list[Path]:
    """Manifests of the finished results of one stage, or of all, in a stable order."""
    return sorted(path for path in audit.glob(f"{stage}/*/{MANIFEST}") if path.parent.suffix != ".partial")


def is_complete(audit: Path, stage: str, key: str) -> bool:
    """Whether the result is there."""
    return (audit / stage / key / MANIFEST).exists()


class Draft:
    """A stage result being made: write into `folder`, put findings into `facts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}


@contextmanager
def publish(audit: Path, stage: str, config: Any, inputs: Mapping[str, str], *, resumable: bool = False) -> Iterator[Draft]:
    """Make the result of `stage`; on leaving without an exception it is published under its key.

    A partial folder of an earlier, killed run is kept when `resumable`, else cleared first. Raises JobError when
    another process is making the same result, or has made it.
    """
    record = _key_record(stage, config, inputs)
    key = digest_json(record)[:12]
    target = audit / stage / key
    partial = audit / stage / f"{key}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    with _locked(audit / stage / f".{key}.lock", f"{stage} {key}"):
        if is_complete(audit, stage, key):
            raise JobError(f"{stage} {key} is finished already, by another process.", "Nothing is left to do: open it.")
        resumed = partial.exists() and resumable
        if partial.exists() and not resumable:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        draft = Draft(partial)
        started = time.monotonic()
        yield draft
        files = {
            str(path.relative_to(partial)): {"sha256": digest_file(path), "bytes": path.stat().st_size}
            for path in sorted(partial.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        manifest = {
            "key": key,
            **record,
            "files": files,
            "facts": draft.facts,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "seconds": round(time.monotonic() - started, 3),
            "resumed": resumed,  # the seconds are then of the last process alone
        }
        write_atomic(partial / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False))
        os.replace(partial, target)
    log.info("published %s/%s in %.1f s", stage, key, manifest["seconds"])


@contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobError(f"Another process is making {what} now.", "Wait for it, or cancel that job.") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file by way of a temporary one and `os.replace`: a reader sees the old or the new, never a half."""
    temporary = path.with_name(path.name + ".tmp")
    data = content.encode() if isinstance(content, str) else content
    with temporary.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What `verify` says of one file."""

    path: str
    state: Literal["ok", "archived", "missing", "corrupt"]
    detail: str = ""


def archived_files(folder: Path) -> Sequence[str]:
    """Names of the payload files whose bytes were archived away."""
    record = folder / ARCHIVED
    return json.loads(record.read_text(encoding="utf8")) if record.exists() else []


def archive(artefact: Artefact, names: Sequence[str]) -> None:
    """Remove heavy payload files; manifest and digests stay, and `verify` reports them as archived."""
    write_atomic(artefact.folder / ARCHIVED, json.dumps(sorted({*archived_files(artefact.folder), *names}), indent=1))
    for name in names:
        (artefact.folder / name).unlink(missing_ok=True)


def verify(folder: Path) -> list[Finding]:
    """Re-hash every payload file of one result against its manifest."""
    record = json.loads((folder / MANIFEST).read_text(encoding="utf8"))
    archived = set(archived_files(folder))
    findings = []
    key_record = {name: record[name] for name in ("stage", "format", "config", "inputs")}
    if digest_json(key_record)[:12] != record["key"]:
        findings.append(Finding(path=MANIFEST, state="corrupt", detail="the key is not that of the recorded config and inputs"))
    for name, expected in record["files"].items():
        path = folder / name
        if not path.exists():
            findings.append(Finding(path=name, state="archived" if name in archived else "missing"))
        elif digest_file(path) != expected["sha256"]:
            findings.append(Finding(path=name, state="corrupt", detail=f"SHA-256 is not {expected['sha256'][:12]}…"))
        else:
            findings.append(Finding(path=name, state="ok"))
    return findings
