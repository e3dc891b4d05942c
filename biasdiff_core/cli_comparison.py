"""`biasdiff compare`, and what the commands that end in a comparison print of it."""

from __future__ import annotations

import json

import click

from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import audit_argument, command, json_option, print_rows
from biasdiff_core.comparison import headline
from biasdiff_core.config.mitigation import REPAIRS
from biasdiff_core.errors import ConfigError
from biasdiff_core.gate import parse_condition, reasons_to_fail
from biasdiff_core.naming import metric_label, variant_name
from biasdiff_core.report import HTML_FILE, MARKDOWN_FILE, Section, comparison_of, difference_text, figure_text, printable, sections
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import Artefact, open_artefact


@click.command()
@audit_argument
@click.option("--fail-if", "conditions", multiple=True, help='Exit 1 when it holds, e.g. "stereotype_margin.high > base.high".')
@click.option("--variant", "variants", multiple=True, help="Judged by --fail-if; default: every mitigation but the controls.")
@json_option
@command
def compare(audit: str, conditions: tuple[str, ...], variants: tuple[str, ...], as_json: bool) -> None:
    """Print the newest comparison of variants: figures with intervals, and paired tests; for a CI also judge it."""
    parsed = [parse_condition(text) for text in conditions]
    opened = Audit.open(audit)
    report = opened.report()
    found = comparison_of(report)
    judged = variants or tuple(variant for variant in found.variants if variant in REPAIRS)
    if parsed and not judged:
        raise ConfigError(f"{opened.folder.id} has nothing to judge but controls.", "Name one of them with --variant.")
    reasons = reasons_to_fail(found, parsed, judged)
    if as_json:
        click.echo(json.dumps({**found.to_json(), "failed": reasons}, indent=1))
    else:
        print_comparison(opened, report)
        for reason in reasons:
            click.echo(f"FAILED {reason}", err=True)
    if reasons:
        raise SystemExit(1)


def print_comparison(audit: Audit, report: Artefact) -> None:
    """What was removed, the conclusions, and the figures over all items with their paired tests; the report has the rest."""
    comparison = comparison_of(report)
    removal = load_removal(open_artefact(audit.folder.path, "removal", report.inputs["removal"]))
    if removal.simulated:
        click.echo("Simulated: decisions were made by a program from the known labels, not by a person.")
    frozen_by = f"; frozen by {removal.frozen_by}" if removal.frozen_by else ""
    removed = f"{len(removal.ids):,} of {removal.ranked:,} examples removed: {removal.policy_words()}{frozen_by}"
    click.echo(printable(f"{removed}. Removal set {report.inputs['removal']}."))
    for sentence in [*headline(comparison), *comparison.notes]:
        click.echo(printable(f"- {sentence}"))
    for section in sections(comparison):
        _print_section(section)
    files = "\n".join(str(report.path(name)) for name in (HTML_FILE, MARKDOWN_FILE))
    click.echo(f"\nBrackets: 95 % intervals. How each figure is computed, and the rest, say the reports:\n{files}")


def _print_section(section: Section) -> None:
    click.echo(f"\n{section.title}")
    columns = [column.label if column.n is None else f"{column.label}, n {column.n:,}" for column in section.figures.columns]
    texts = {v: ["" if result is None else figure_text(result) for result in results] for v, results in section.figures.rows.items()}
    if columns:
        print_rows([{"variant": variant_name(v), **dict(zip(columns, row, strict=True))} for v, row in texts.items()], as_json=False)
    if section.tests:
        click.echo("")
        tests = [
            {
                "on the same items": f"{variant_name(test.variant)} against {variant_name(test.reference)}",
                "figure": metric_label(test.metric),
                "difference": difference_text(test),
                "exact p": "" if test.p_value is None else f"{test.p_value:.4f}",
                "n": test.n,
            }
            for test in section.tests
        ]
        print_rows(tests, as_json=False)
