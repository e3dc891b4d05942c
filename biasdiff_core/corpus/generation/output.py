"""The files of a run: the probes as CSV, and beside them the log of responses and the rows that were refused."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from biasdiff_core.corpus.export import safe_cell
from biasdiff_core.corpus.generation.judge import ProbePair, Rejection
from biasdiff_core.errors import DataError
from biasdiff_core.workspace.artefacts import write_atomic

# Those of the demo's probes, then where a row comes from.
COLUMNS = ("text", "twin", "bias_type", "group", "source", "model", "prompt", "created")


@dataclass(frozen=True, kw_only=True)
class JudgedRow:
    """A candidate's verdict. `created`: when its answer came (ISO 8601), empty for a template."""

    found: ProbePair | Rejection
    created: str = ""


def log_path(out: Path) -> Path:
    """The log of responses beside a probe file."""
    return out.with_suffix(".responses.jsonl")


def rejected_path(out: Path) -> Path:
    """The refused rows beside a probe file."""
    return out.with_suffix(".rejected.jsonl")


def check_target(out: Path, *, resumable: bool) -> None:
    """Raise DataError when probes must not be written to `out`: another suffix, no folder, or there is a file that is not gone on with."""
    if out.suffix != ".csv":
        raise DataError(f"Probes cannot be written as {out.name!r}.", "Name the file *.csv.")
    if not out.parent.is_dir():
        raise DataError(f"There is no folder {out.parent}.", "Make it first, or name another.")
    if out.exists() and not (resumable and log_path(out).exists()):
        raise DataError(f"{out} is there already, and not from a run that could go on.", "Name another file, or delete it first.")


def write(rows: Sequence[JudgedRow], out: Path, *, source: str, model: str, prompt: str) -> None:
    """Write accepted pairs to `out` and refused rows beside it. Raises DataError, after writing the latter, when none was accepted."""
    refused = [row.found for row in rows if isinstance(row.found, Rejection)]
    write_atomic(rejected_path(out), "".join(json.dumps(asdict(rejection)) + "\n" for rejection in refused))
    pairs = [(row.found, row.created) for row in rows if isinstance(row.found, ProbePair)]
    if not pairs:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in reasons_of(rows).items()) or "there was no row"
        raise DataError(f"No pair was accepted: {reasons}.", f"See {rejected_path(out)}, and try another model or prompt.")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    origin = {"source": source, "model": safe_cell(model), "prompt": prompt}
    writer.writerows({**asdict(pair), **origin, "created": created} for pair, created in pairs)
    write_atomic(out, text.getvalue())


def reasons_of(rows: Sequence[JudgedRow]) -> Mapping[str, int]:
    """Number of refused rows by reason, the most frequent first."""
    return dict(Counter(row.found.reason for row in rows if isinstance(row.found, Rejection)).most_common())
