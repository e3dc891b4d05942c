"""What all commands share: errors in one line with exit code 2, Ctrl-C, arguments and options, rows as a table, a progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click
import pandas as pd
from tqdm import tqdm

from biasdiff_core.audit import Audit
from biasdiff_core.config import CrowsPairsConfig, EvaluationConfig, SeatConfig, StereoSetConfig
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.report import printable
from biasdiff_core.results import Progress, ProgressCallback
from biasdiff_core.workspace.jobs import job_record
from biasdiff_core.workspace.progress import ProgressWriter

BUNDLED = EvaluationConfig().crows_pairs.path


class Interrupted(click.ClickException):
    """Ctrl-C: what is finished is kept, and the same command goes on from there."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Stopped. What is finished is kept: the same command goes on from there.")


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn BiasDiffError into one line and exit code 2."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            with job_record():
                return function(*arguments, **options)
        except BiasDiffError as error:
            click.echo(f"biasdiff: {printable(' '.join(str(error).splitlines()))}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            raise Interrupted from None

    return run


def audit_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The argument AUDIT: id, name or folder of an audit."""
    return click.argument("audit", metavar="AUDIT")(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flag --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def scored_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The files of the evaluation that probes are held apart from: --crows-pairs, --stereoset, --seat."""
    function = click.option("--seat", help="A folder of SEAT's tests sent-*.jsonl, likewise.")(function)
    function = click.option("--stereoset", help="StereoSet's dev.json, likewise.")(function)
    help_ = "CrowS-Pairs, which the probes shall be disjoint from."
    return click.option("--crows-pairs", default=BUNDLED, show_default=True, help=help_)(function)


def scored_by(crows_pairs: str, stereoset: str | None, seat: str | None) -> EvaluationConfig:
    """An evaluation that scores these files, in full."""
    return EvaluationConfig(
        crows_pairs=CrowsPairsConfig(path=crows_pairs),
        stereoset=StereoSetConfig(path=stereoset) if stereoset else None,
        seat=SeatConfig(path=seat) if seat else None,
    )


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """The rows as JSON, or as a table."""
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    elif rows:
        click.echo(printable(pd.DataFrame(rows).fillna("").to_string(index=False, max_colwidth=100)))
    else:
        click.echo("nothing yet")


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """A bar with ETA on stderr."""
    bar: tqdm[Any] | None = None
    title = ""

    def show(progress: Progress) -> None:
        nonlocal bar, title
        label = progress.message or progress.stage
        if bar is None or title != label or bar.total != progress.total:
            if bar is not None:
                bar.close()
            title, bar = label, tqdm(total=progress.total, unit=f" {progress.unit}", desc=label, file=sys.stderr)
        bar.update(progress.done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def shown_progress(audit: Audit) -> Iterator[ProgressCallback]:
    """A bar with ETA on stderr, and the progress file that the app reads."""
    writer = ProgressWriter(audit.folder.path)
    with progress_bar() as show:

        def both(progress: Progress) -> None:
            writer(progress)
            show(progress)

        yield both
