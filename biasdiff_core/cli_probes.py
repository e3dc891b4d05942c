"""`biasdiff probes …`: the probing set of an audit."""

from __future__ import annotations

import json
from typing import Any

import click

from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import audit_argument, command, json_option, print_rows, shown_progress
from biasdiff_core.errors import MissingDependency
from biasdiff_core.naming import metric_label
from biasdiff_core.report import figure_text
from biasdiff_core.results import MetricResult


@click.group()
def probes() -> None:
    """Write probes and judge them."""


@probes.command("check")
@audit_argument
@json_option
@command
def check(audit: str, as_json: bool) -> None:
    """Print the quality of AUDIT's probes: leakage, style, twins, bias types, coherence, preference, number; first what is weak."""
    opened = Audit.open(audit)
    try:
        with shown_progress(opened) as progress:
            opened.compare_meanings(progress)
    except MissingDependency as error:
        click.echo(f"biasdiff: {error}", err=True)
    found = opened.probe_quality()
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
        return
    for flag in found.flags:
        click.echo(f"! {flag.words}")
    print_rows([_row(metric) for metric in found.metrics], as_json=False)


def _row(metric: MetricResult) -> dict[str, Any]:
    # A figure without interval is a count, or a ratio of two.
    shown = f"{metric.value:.3g}" if metric.value is not None and metric.low is None else figure_text(metric)
    return {"figure": metric_label(metric.name), "value [95 %]": shown, "n": metric.n, "how": metric.convention}
