"""`biasdiff probes …`: the probing set of an audit, and the curation of a probing set."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import BUNDLED, command, json_option, print_rows, progress_bar, scored_by, scored_options, shown_progress
from biasdiff_core.config import CorpusConfig, ProbeConfig
from biasdiff_core.errors import MissingDependency
from biasdiff_core.evidence import quality_of_files
from biasdiff_core.naming import metric_label
from biasdiff_core.probe_report import ProbeQuality
from biasdiff_core.report import measured_text
from biasdiff_core.results import MetricResult
from biasdiff_core.review.curation import Curation, counts_by_type, read_pairs
from biasdiff_core.workspace.audits import default_workspace
from biasdiff_core.workspace.database import database


@click.group()
def probes() -> None:
    """Write probes, judge and curate them."""


def column_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The columns of the pairs of a probing set."""
    function = click.option("--bias-type-column", default="bias_type", show_default=True, help="Column of the bias types; '': none.")(
        function
    )
    function = click.option("--twin-column", default="twin", show_default=True, help="Column of the twins; '': none.")(function)
    return click.option("--text-column", default="text", show_default=True, help="Column of the stereotyped sentences.")(function)


def _pairs(file: str, text: str, twin: str, bias_type: str) -> ProbeConfig:
    return ProbeConfig(path=file, text_column=text, twin_column=twin or None, bias_type_column=bias_type or None)


@probes.command("check")
@click.argument("audit", metavar="[AUDIT]", required=False)
@click.option("--probes", "file", help="In place of AUDIT: a probing set, beside --corpus; what takes a model's gradients is left out.")
@click.option("--corpus", help="The corpus: a file, a `datasets` folder or id, or `demo`.")
@click.option("--corpus-text-column", default="text", show_default=True, help="Column of the corpus's text.")
@column_options
@scored_options
@json_option
@command
def check(
    audit: str | None,
    file: str | None,
    corpus: str | None,
    corpus_text_column: str,
    text_column: str,
    twin_column: str,
    bias_type_column: str,
    crows_pairs: str,
    stereoset: str | None,
    seat: str | None,
    as_json: bool,
) -> None:
    """Print the quality of AUDIT's probes: leakage, style, twins, bias types, coherence, preference, number; first what is weak.

    Without an audit, of any probes beside any corpus: --probes and --corpus, with the columns of the probes and the files of an
    evaluation, which an audit names itself.
    """
    beside = file or corpus or stereoset or seat or crows_pairs != BUNDLED
    if audit and not beside:
        found = _of_audit(Audit.open(audit))
    elif file and corpus and not audit:
        with progress_bar() as progress:
            learned = CorpusConfig(path=corpus, text_column=corpus_text_column)
            pairs, scored = _pairs(file, text_column, twin_column, bias_type_column), scored_by(crows_pairs, stereoset, seat)
            found = quality_of_files(pairs, learned, scored, progress)
    else:
        raise click.UsageError("Give AUDIT, or --probes and --corpus. An audit's config names the files of its evaluation.")
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
        return
    for flag in found.flags:
        click.echo(f"! {flag.words}")
    print_rows([_row(metric) for metric in found.metrics], as_json=False)


def _of_audit(audit: Audit) -> ProbeQuality:
    try:
        with shown_progress(audit) as progress:
            audit.compare_meanings(progress)
    except MissingDependency as error:
        click.echo(f"biasdiff: {error}", err=True)
    return audit.probe_quality()


def _row(metric: MetricResult) -> dict[str, Any]:
    return {"figure": metric_label(metric.name), "value [95 %]": measured_text(metric), "n": metric.n, "how": metric.convention}


@probes.group("curate")
def curate() -> None:
    """What was accepted, edited and rejected of a probing set on the page Probes."""


def source_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """The argument FILE and the columns of its pairs."""
    return click.argument("file", metavar="FILE")(column_options(function))


@curate.command("status")
@source_arguments
@json_option
@command
def curate_status(file: str, text_column: str, twin_column: str, bias_type_column: str, as_json: bool) -> None:
    """Print how far FILE is curated, by bias type, and check the chain of decisions; exit 1 when it does not fit."""
    found = _curation(file, text_column, twin_column, bias_type_column)
    chain = found.log.verify()
    counts = counts_by_type(found.pairs().values())
    if as_json:
        record = {"source": file, "digest": found.source.digest, "by_type": counts, "head": found.log.head()[1], "decision_log": chain}
        click.echo(json.dumps(record, indent=1, ensure_ascii=False))
    else:
        click.echo(
            f"{file}: {len(found.source.pairs)} pairs, SHA-256 {found.source.digest}; decision log: {'; '.join(chain) or 'chain valid'}"
        )
        print_rows([{"bias type": name, **states} for name, states in counts.items()], as_json=False)
    if chain:
        sys.exit(1)


@curate.command("export")
@source_arguments
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV to write; its card is written beside it.")
@click.option("--per-type", type=click.IntRange(min=1), help="At most so many pairs of each bias type, a seeded sample (default: all).")
@json_option
@command
def curate_export(
    file: str, text_column: str, twin_column: str, bias_type_column: str, out: Path, per_type: int | None, as_json: bool
) -> None:
    """Write the accepted pairs of FILE, as they were edited, as a probing set for audits, and beside it a card with digests and counts."""
    result = _curation(file, text_column, twin_column, bias_type_column).result(per_type)
    card = result.write(out)
    if as_json:
        click.echo(json.dumps(result.card.to_json(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join([*result.card.lines(), f"written: {out}, {card}"]))


def _curation(file: str, text: str, twin: str, bias_type: str) -> Curation:
    return Curation(database(default_workspace()), read_pairs(_pairs(file, text, twin, bias_type)))
