"""The whole demo audit as a newcomer gets it, timed from an empty workspace, installation excluded; then a search by one's own sentence.

python -m benchmarks.demo                    records seconds, seconds a stage, and the figures of the comparison
python -m benchmarks.demo --workspace DIR    keeps the audit there (the shipped one is made so, see benchmarks.ship)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.detection import report_detection
from benchmarks.record import record, record_metric
from biasdiff_core.audit import Audit
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE

SENTENCE = "People from that part of town never keep a job for long."


@click.command()
@click.option("--preset", "which", default="quick", show_default=True)
@click.option("--workspace", type=click.Path(path_type=Path), help="Default: a temporary one.")
@click.option("--name", default="demo", show_default=True)
def main(which: str, workspace: Path | None, name: str) -> None:
    """Run `biasdiff demo` as its own process and record what it took and what it found."""
    folder = (workspace or Path(tempfile.mkdtemp(prefix="biasdiff-demo-"))).resolve()
    seconds = timed(folder, "demo", "--preset", which, "--name", name)
    audit = Audit.open(name, folder)
    model = audit.config.model.name
    record(f"demo.{which}.seconds", round(seconds, 1), n=1, unit="seconds, whole process, model cache included", model=model)
    searched = timed(folder, "search", name, SENTENCE)
    unit = "seconds of `biasdiff search` by a sentence of one's own, whole process"
    record(f"demo.{which}.search_seconds", round(searched, 1), n=len(audit.corpus()), unit=unit, model=model)
    for path in audit.folder.manifests():
        manifest = json.loads(path.read_text(encoding="utf8"))
        if manifest["seconds"] >= 1:
            variant = manifest["facts"].get("variant")
            stage = f"{manifest['stage']}.{variant}" if variant else manifest["stage"]
            passes = round(manifest["facts"].get("work", 1))
            record(f"demo.{which}.seconds.{stage}", manifest["seconds"], n=passes, unit="seconds", model=model)
    report_detection("detection.demo", audit)
    comparison = audit.compare()
    for variant in comparison.variants:
        for metric in comparison.metrics[variant].values():
            if metric.name.count(".") <= 2:
                record_metric(f"demo.{which}.{variant}.{metric.name}", metric, model=model, against="base and origin of the same audit")


def timed(workspace: Path, *arguments: str) -> float:
    """Seconds of the command line with these arguments, as a process of its own."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "biasdiff_core", *arguments], check=True, env={**os.environ, WORKSPACE_VARIABLE: str(workspace)})
    return time.monotonic() - started


if __name__ == "__main__":
    main()
