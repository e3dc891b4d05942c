"""Audit folders: `<workspace>/audits/<name>-<hash6>` with `audit.yaml`, `environment.json` and the stage results."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from biasdiff_core.config import AuditConfig
from biasdiff_core.config.file import dump, key_form, load
from biasdiff_core.errors import ArtefactError
from biasdiff_core.version import __version__
from biasdiff_core.workspace.artefacts import Finding, digest_json, manifests, verify, write_atomic

WORKSPACE_VARIABLE = "BIASDIFF_WORKSPACE"
SHIPPED_FILE = "shipped.json"
PACKAGES = ("torch", "transformers", "peft", "numpy", "pandas", "faiss-cpu", "umap-learn", "streamlit")


def default_workspace() -> Path:
    """`$BIASDIFF_WORKSPACE`, else `biasdiff-workspace` in the current folder."""
    return Path(os.environ.get(WORKSPACE_VARIABLE, "biasdiff-workspace")).resolve()


@dataclass(frozen=True)
class AuditFolder:
    """One audit on disk. `id` is the folder's name, `<name>-<hash6>`."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def workspace(self) -> Path:
        return self.path.parent.parent

    @cached_property
    def config(self) -> AuditConfig:
        """The audit's choices. Raises ConfigError when audit.yaml cannot be read."""
        return load(self.path / "audit.yaml")

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Version, commit, packages and machine at creation."""
        record: Mapping[str, Any] = json.loads((self.path / "environment.json").read_text(encoding="utf8"))
        return record

    def manifests(self) -> list[Path]:
        """Manifest of every finished stage result."""
        return manifests(self.path)

    def verify(self) -> dict[str, list[Finding]]:
        """Re-hash every file of every stage result; keyed by `<stage>/<key>`."""
        return {f"{path.parent.parent.name}/{path.parent.name}": verify(path.parent) for path in self.manifests()}


def audit_id(config: AuditConfig) -> str:
    """`<name>-<hash6>`: the same choices give the same audit."""
    return f"{config.name}-{digest_json(key_form(config))[:6]}"


def create_audit(workspace: Path, config: AuditConfig) -> AuditFolder:
    """Make the folder of an audit, or open it when the same choices were made before."""
    folder = workspace / "audits" / audit_id(config)
    if not (folder / "environment.json").exists():
        for name in ("logs", "progress"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "audit.yaml", dump(config))
        write_atomic(folder / "environment.json", json.dumps(environment(), indent=1, sort_keys=True))
    return AuditFolder(folder)


def list_audits(workspace: Path) -> list[AuditFolder]:
    """All audits of the workspace, the latest created first."""
    folders = [path.parent for path in (workspace / "audits").glob("[!.]*/audit.yaml")]
    return [AuditFolder(path) for path in sorted(folders, key=_created, reverse=True)]


def _created(folder: Path) -> tuple[str, str]:
    try:
        return str(json.loads((folder / "environment.json").read_text(encoding="utf8"))["created"]), folder.name
    except (OSError, ValueError, KeyError):
        return "", folder.name


def find_audit(workspace: Path, reference: str) -> AuditFolder:
    """The audit with this id, folder path, or unambiguous name. Raises ArtefactError when there is none or several."""
    direct = Path(reference)
    return AuditFolder(direct.resolve()) if (direct / "audit.yaml").exists() else find_listed(workspace, reference)


def find_listed(workspace: Path, reference: str) -> AuditFolder:
    """The audit of the workspace with this id or unambiguous name. Raises ArtefactError when there is none or several."""
    audits = list_audits(workspace)
    found = [audit for audit in audits if audit.id == reference] or [audit for audit in audits if audit.id.rpartition("-")[0] == reference]
    if len(found) == 1:
        return found[0]
    if not found:
        known = ", ".join(audit.id for audit in audits) or "none yet"
        raise ArtefactError(f"There is no audit {reference!r} in {workspace}.", f"Known audits: {known}.")
    raise ArtefactError(f"{reference!r} may mean {', '.join(audit.id for audit in found)}.", "Give the whole id.")


def install_shipped(shipped: Path, workspace: Path) -> list[AuditFolder]:
    """Copy the finished audits of the folder `shipped` into the workspace, each once: one that was deleted stays away.

    Returns those that were copied now.
    """
    record = workspace / SHIPPED_FILE
    before = set(json.loads(record.read_text(encoding="utf8"))) if record.exists() else set()
    new = [path.parent for path in sorted(shipped.glob("*/audit.yaml")) if path.parent.name not in before]
    installed = [_copy_audit(source, workspace / "audits" / source.name) for source in new]
    if new:
        # Several servers may start at once on a new workspace: each writes a file of its own, and the last one stays.
        written = record.with_name(f".{SHIPPED_FILE}.{uuid4().hex}")
        written.write_text(json.dumps(sorted(before | {source.name for source in new})), encoding="utf8")
        written.replace(record)
    return installed


def _copy_audit(source: Path, target: Path) -> AuditFolder:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=target.parent))
    shutil.copytree(source, partial, dirs_exist_ok=True)
    for name in ("logs", "progress"):
        (partial / name).mkdir(exist_ok=True)
    try:
        partial.rename(target)
    except OSError:  # another session copied it first
        shutil.rmtree(partial)
    return AuditFolder(target)


def environment() -> dict[str, Any]:
    """Version, commit, packages and machine, as far as they can be told without loading anything heavy."""
    return {
        "biasdiff": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **machine(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": {name: _version(name) for name in PACKAGES},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def machine() -> dict[str, Any]:
    """Processor, cores and GPU: what seconds depend on."""
    return {"processor": _processor(), "cores": os.cpu_count(), "gpu": _gpu()}


def commit() -> str:
    """Short commit of the source tree, `+dirty` when it has changes, `unknown` outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return (head + ("+dirty" if git("status", "--porcelain", "--untracked-files=no") else "")) if head else "unknown"
    except FileNotFoundError:
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu() -> str:
    """Name of the GPU, as the driver gives it; empty where there is none."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return ", ".join(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines())
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
