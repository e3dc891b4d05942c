"""Append one measured figure to `benchmarks/results.jsonl`, with everything that a reader needs to trace it."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import click

from biasdiff_core.config.model import Dtype
from biasdiff_core.results import MetricResult
from biasdiff_core.workspace.audits import environment

RESULTS = Path(__file__).parent / "results.jsonl"
dry_option = click.option("--dry", is_flag=True, help="Print, but record nothing (for trials).")
DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@cache
def _here() -> dict[str, Any]:
    """Taken once a run: the rows that it appends must not make its own commit look changed."""
    return environment()


def record(
    metric: str,
    value: float | None,
    *,
    n: int,
    unit: str,
    model: str,
    low: float | None = None,
    high: float | None = None,
    against: str = "",
    dry: bool = False,
) -> None:
    """Print the row and, unless `dry`, append it. `against`: what it was measured beside, in the same run."""
    print(f"{metric} = {value} [{low}, {high}] n={n} {unit}", flush=True)
    if dry:
        return
    here = _here()
    row = {
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "unit": unit,
        "against": against,
        "model": model,
        "command": "python -m " + " ".join([f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": here["commit"],
        "hardware": ", ".join(filter(None, [here["processor"], f"{here['cores']} cores", platform.machine(), here["gpu"]])),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or None,
        "date": datetime.now(UTC).date().isoformat(),
    }
    with RESULTS.open("a", encoding="utf8") as handle:
        handle.write(json.dumps(row) + "\n")


def under(metric: str, dtype: Dtype, device: str = "cpu") -> str:
    """The metric's name where it was measured so; fp32 and the CPU go without saying."""
    return ".".join([metric, *([dtype] if dtype != "float32" else []), *([device] if device != "cpu" else [])])


def record_metric(metric: str, result: MetricResult, *, model: str, against: str = "", dry: bool = False) -> None:
    """A MetricResult as a row; its convention goes into `unit`."""
    bounds = {"low": result.low, "high": result.high}
    record(metric, result.value, **bounds, n=result.n, unit=result.convention, model=model, against=against, dry=dry)


def require_data(*parts: str) -> Path:
    """A file of the real data, or an exit with what to put where."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        raise SystemExit(f"There is no {path}. Set BIASDIFF_DATA to the folder that holds {'/'.join(parts)}.")
    return path
