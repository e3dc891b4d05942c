"""`biasdiff …`: parse, call the audit, print. Everything that reads can print JSON; errors are one line and exit 2."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psutil

from biasdiff_core import __version__
from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import audit_argument, command, json_option, print_rows, progress_bar, shown_progress
from biasdiff_core.cli_comparison import compare, print_comparison
from biasdiff_core.cli_corpus import corpus
from biasdiff_core.cli_generate import generate
from biasdiff_core.cli_probes import probes
from biasdiff_core.config import METHODS, RemovalConfig
from biasdiff_core.config.file import load, parse
from biasdiff_core.config.mitigation import POLICIES, Method
from biasdiff_core.config.presets import PRESETS, demo
from biasdiff_core.corpus.export import safe_cell
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.plan import removals
from biasdiff_core.review.history import history, undone_words
from biasdiff_core.review.removal import Selected
from biasdiff_core.workspace.artefacts import manifests
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE, AuditFolder, default_workspace, list_audits
from biasdiff_core.workspace.database import database
from biasdiff_core.workspace.jobs import list_jobs

ROOT = Path(__file__).resolve().parent.parent
VERDICTS = ("biased", "not_biased", "neutral_but_influential", "unsure")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "--workspace", type=click.Path(path_type=Path), help="Where audits live (default: $BIASDIFF_WORKSPACE, else ./biasdiff-workspace)."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the log.")
def main(workspace: Path | None, verbose: bool) -> None:
    """Find the training examples that made a language model biased, take them out, and prove what that did."""
    if workspace is not None:
        os.environ[WORKSPACE_VARIABLE] = str(workspace.resolve())
    # More threads than physical cores made the same work several times slower.
    os.environ.setdefault("OMP_NUM_THREADS", str(psutil.cpu_count(logical=False) or 1))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if not verbose:
        warnings.filterwarnings("ignore")


main.add_command(compare)
main.add_command(corpus)
main.add_command(probes)
probes.add_command(generate)


@main.command("demo")
@click.option("--preset", "which", type=click.Choice(list(PRESETS)), default="quick", show_default=True, help="Set of choices.")
@click.option("--name", default="demo-fresh", show_default=True, help="Name of the new audit.")
@command
def demo_command(which: str, name: str) -> None:
    """Run the complete demo audit: our own corpus, the bundled model, decisions simulated from the known labels."""
    audit = Audit.from_config(demo(which, name))
    with shown_progress(audit) as progress:
        audit.run(progress)
    print_comparison(audit, audit.report_of(audit.freeze(), audit.config.mitigation.methods))


@main.command()
@click.argument("name")
@click.option("--preset", "which", type=click.Choice(list(PRESETS)), default="quick", show_default=True, help="Set of choices.")
@click.option("--model", help="bundled:smollm2-135m, a folder, or a Hugging Face id.")
@click.option("--adapter", help="A peft adapter or Trainer checkpoint to start from, instead of a warm-up.")
@click.option("--corpus", help="CSV, JSONL, Parquet, a `datasets` folder or id, or `demo`.")
@click.option("--text-column", help="Column of the text.")
@click.option("--label-column", help="Column of known labels (0 or 1), where there is one.")
@click.option("--probes", help="File of stereotyped sentences, or `demo`.")
@click.option("--twin-column", help="Column of the probes' anti-stereotype twins.")
@click.option("--bias-type-column", help="Column of the probes' bias type.")
@command
def new(name: str, which: str, **options: Any) -> None:
    """Create an audit and print its id; `biasdiff run` starts it. Every other choice stands in its audit.yaml."""
    click.echo(Audit.create(name, preset_name=which, **options).folder.id)


@main.command()
@audit_argument
@command
def tune(audit: str) -> None:
    """Measure which dtype and token budget take gradients quickest here (a minute), and print the id of the audit that has them."""
    with progress_bar() as show:
        tuned, trials = Audit.open(audit).tune(show)
    print_rows([asdict(trial) for trial in trials], as_json=False)
    for dtype, cosine in {trial.dtype: trial.least_cosine for trial in trials if not trial.exact}.items():
        click.echo(f"{dtype} is left out: its gradients are off, the least cosine to exact ones is {cosine:.4f}.")
    click.echo(f"{tuned.folder.id}: {tuned.config.model.dtype}, {tuned.config.gradients.token_budget} tokens a batch")


@main.command()
@audit_argument
@click.option("--decisions", type=click.Path(path_type=Path, exists=True), help="Replay a frozen decisions.jsonl and go on to the report.")
@command
def run(audit: str, decisions: Path | None) -> None:
    """Analyse AUDIT (or replay an audit.yaml): warm-up, gradients, ranking, map, evaluation. Goes on where it stopped."""
    path = Path(audit)
    opened = Audit.from_config(load(path)) if path.suffix in (".yaml", ".yml") else Audit.open(audit)
    with shown_progress(opened) as progress:
        opened.run(progress, decisions)
    click.echo(f"{opened.folder.id}: {len(opened.ranking())} examples ranked.")


@main.command()
@click.argument("audit", required=False)
@json_option
@command
def status(audit: str | None, as_json: bool) -> None:
    """Show all audits, or the stages and jobs of one."""
    workspace = default_workspace()
    if audit is None:
        rows = [_status_row(folder) for folder in list_audits(workspace)]
    else:
        opened = Audit.open(audit)
        stages = opened.plan().stages
        rows = [{"stage": s.title, "key": s.key, "done": s.done, "stale": s.stale} for s in stages]
        rows += [{"job": j.id, "command": " ".join(j.command), "state": j.state} for j in list_jobs(database(workspace), opened.folder.id)]
    print_rows(rows, as_json)


def _status_row(folder: AuditFolder) -> dict[str, Any]:
    """One audit among all; what is wrong with it does not hide the others."""
    try:
        return {"audit": folder.id, "model": folder.config.model.name, "finished": Audit(folder).plan().finished}
    except BiasDiffError as error:
        return {"audit": folder.id, "error": str(error)}


@main.command()
@audit_argument
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many examples.")
@json_option
@command
def rank(audit: str, top: int, as_json: bool) -> None:
    """Print the ranking: the examples whose training raises the likelihood of the stereotyped probes most."""
    table = Audit.open(audit).ranking().head(top)
    print_rows(json.loads(table.to_json(orient="records")), as_json)


@main.command()
@audit_argument
@command
def tokens(audit: str) -> None:
    """Measure each token's loss and influence in the candidates of AUDIT, by which the page Review shades their text."""
    opened = Audit.open(audit)
    with shown_progress(opened) as progress:
        opened.shade_tokens(progress)


@main.command()
@audit_argument
@click.argument("sentence", required=False)
@click.option("--like", help="Id of a training example to search by, instead of a sentence.")
@click.option("--k", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--probes", is_flag=True, help="Print the nearest probes, not the nearest training examples.")
@json_option
@command
def search(audit: str, sentence: str | None, like: str | None, k: int, probes: bool, as_json: bool) -> None:
    """Print the training examples of AUDIT whose gradients are nearest to that of a SENTENCE of your own, or of a training example."""
    opened = Audit.open(audit)
    if sentence is not None and like is None:
        with shown_progress(opened) as progress:
            table = opened.search(sentence, k, probes=probes, progress=progress)
    elif like is not None and sentence is None:
        table = opened.nearest_probes(like, k) if probes else opened.similar_examples(like, k)
    else:
        raise click.UsageError("Give a sentence, or --like.")
    print_rows(json.loads(table.to_json(orient="records")), as_json)


@main.group()
def decide() -> None:
    """Record, take back, import and export decisions."""


@decide.command("one")
@audit_argument
@click.argument("example_id")
@click.argument("verdict", type=click.Choice(VERDICTS))
@click.option("--auditor", required=True, help="Whose decision it is.")
@click.option("--reason", default="", help="Why.")
@command
def decide_one(audit: str, example_id: str, verdict: Any, auditor: str, reason: str) -> None:
    """Record one decision on EXAMPLE_ID."""
    action = Audit.open(audit).decide(example_id, verdict, auditor, reason)
    click.echo(f"action {action.number} recorded")


@decide.command("top")
@audit_argument
@click.argument("percent", type=float)
@click.argument("verdict", type=click.Choice(VERDICTS))
@click.option("--auditor", required=True, help="Whose decision it is.")
@click.option("--reason", default="", help="Why.")
@command
def decide_top(audit: str, percent: float, verdict: Any, auditor: str, reason: str) -> None:
    """Record one bulk decision on the top PERCENT % of the ranking."""
    action = Audit.open(audit).decide_top(percent, verdict, auditor, reason)
    click.echo(f"action {action.number} recorded: {action.count} examples")


@decide.command("import")
@audit_argument
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--auditor", required=True, help="Who imports; a row's own auditor is kept.")
@command
def decide_import(audit: str, file: Path, auditor: str) -> None:
    """Import decisions from a CSV or JSONL FILE as one action."""
    action = Audit.open(audit).import_decisions(file, auditor)
    click.echo(f"action {action.number} recorded: {action.count} examples")


@decide.command("replay")
@audit_argument
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@command
def decide_replay(audit: str, file: Path) -> None:
    """Take over all actions of a removal set's decisions.jsonl into AUDIT, which has none yet."""
    opened = Audit.open(audit)
    opened.replay(file)
    click.echo(f"{len(opened.log.actions())} actions in the log")


@decide.command("history")
@audit_argument
@json_option
@command
def decide_history(audit: str, as_json: bool) -> None:
    """Print every action, newest first: who did what, when, from which filter, and whether it holds."""
    print_rows([entry.row() for entry in history(Audit.open(audit).log)], as_json)


@decide.command("undo")
@audit_argument
@click.argument("action", type=int, required=False)
@click.option("--auditor", required=True, help="Who takes it back.")
@command
def decide_undo(audit: str, action: int | None, auditor: str) -> None:
    """Take back the ACTION of this number (default: the auditor's own last one); undoing an undo restores."""
    log = Audit.open(audit).log
    undo = log.undo(auditor, None if action is None else log.action(action).action_id)
    click.echo(f"action {undo.number} recorded: {undone_words(log, undo)[0]}")


@decide.command("export")
@audit_argument
@click.argument("file", type=click.Path(path_type=Path))
@command
def decide_export(audit: str, file: Path) -> None:
    """Export all decisions in force to a CSV, JSONL or Parquet FILE."""
    click.echo(f"{Audit.open(audit).log.export(file)} decisions written to {file}")


@main.command()
@audit_argument
@click.option("--method", "methods", type=click.Choice(METHODS), multiple=True, help="May be repeated (default: those of audit.yaml).")
@click.option("--policy", type=click.Choice(POLICIES), help="Which examples to remove (default: that of audit.yaml).")
@click.option("--percent", type=float, help="Selection percentage of top_percent.")
@click.option("--ids", type=click.Path(path_type=Path, exists=True), help="File of the examples selected, for filter: one id a line.")
@click.option("--auditor", default="", help="Who freezes the set, for the record.")
@click.option("--removal", help="Key of a set that is frozen already, in place of a policy.")
@command
def mitigate(
    audit: str,
    methods: tuple[Method, ...],
    policy: str | None,
    percent: float | None,
    ids: Path | None,
    auditor: str,
    removal: str | None,
) -> None:
    """Freeze the removal set, retrain or unlearn, evaluate, and write the report."""
    if removal and (policy or percent or ids or auditor):
        raise click.UsageError("--removal names a frozen set: give no policy, percent, ids or auditor with it.")
    if (policy == "filter") != (ids is not None):
        raise click.UsageError("--ids belongs to --policy filter, which needs it.")
    opened = Audit.open(audit)
    if removal:
        frozen = opened.frozen(removal)
    else:
        default = opened.config.removal
        config = parse(RemovalConfig, {"policy": policy or default.policy, "percent": default.percent if percent is None else percent})
        frozen = opened.freeze(config, Selected.read(ids) if ids else None, auditor=auditor)
    chosen = methods or opened.config.mitigation.methods
    with shown_progress(opened) as progress:
        opened.mitigate(chosen, frozen, progress)
    print_comparison(opened, opened.report_of(frozen, chosen))


@main.command()
@audit_argument
@json_option
@command
def evaluate(audit: str, as_json: bool) -> None:
    """Evaluate base and origin if that is still to be done, and print every figure with its interval and convention."""
    from biasdiff_core.pipeline import Pipeline

    opened = Audit.open(audit)
    with shown_progress(opened) as progress:
        Pipeline(opened.folder, progress).analyse()
    rows = []
    for variant in ("base", "origin"):
        rows += [{"variant": variant, **record} for record in opened.artefact(f"evaluation:{variant}").read_json("metrics.json")]
    print_rows(rows, as_json)


@main.command()
@audit_argument
@click.argument("what", type=click.Choice(["cleaned", "report", "ranking", "model"]))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--variant", help="Which model: origin, or a method that was run.")
@command
def export(audit: str, what: str, target: Path, variant: str | None) -> None:
    """Write the cleaned corpus (original format), the report (HTML), the ranking (CSV) or a variant's whole model (folder) to TARGET."""
    if (what == "model") != (variant is not None):
        raise click.UsageError("--variant belongs to `model`, which needs it.")
    opened = Audit.open(audit)
    if variant is not None:
        opened.export_model(variant, target)
    elif what == "cleaned":
        click.echo(f"{opened.export_cleaned(target)} rows written to {target}: without removal set {removals(opened.folder)[0].key}")
    elif what == "report":
        target.write_bytes(opened.report_files()[0].read_bytes())
    else:
        opened.ranking().map(lambda cell: safe_cell(cell) if isinstance(cell, str) else cell).to_csv(target, index=False)


@main.command()
@audit_argument
@json_option
@command
def verify(audit: str, as_json: bool) -> None:
    """Re-hash every file of AUDIT and check the chain of decisions; exit 1 when anything does not fit."""
    opened = Audit.open(audit)
    findings = opened.folder.verify()
    heads = [json.loads(path.read_text(encoding="utf8"))["config"]["decisions_head"] for path in manifests(opened.folder.path, "removal")]
    chain = opened.log.verify(heads)
    bad = [{"result": name, **asdict(f)} for name, files in findings.items() for f in files if f.state in ("corrupt", "missing")]
    archived = sum(f.state == "archived" for files in findings.values() for f in files)
    checked = sum(f.state == "ok" for files in findings.values() for f in files)
    if as_json:
        click.echo(json.dumps({"files_ok": checked, "archived": archived, "bad": bad, "decision_log": chain}, indent=1))
    else:
        click.echo(f"{checked} files ok, {archived} archived, {len(bad)} bad; decision log: {'; '.join(chain) or 'chain valid'}")
        for finding in bad:
            click.echo(f"  {finding['result']}/{finding['path']}: {finding['state']} {finding['detail']}")
    if bad or chain:
        sys.exit(1)


@main.command()
@click.option("--port", type=int, default=8501, show_default=True, help="Port on 127.0.0.1.")
@click.option("--audit", help="Open on this audit.")
@command
def app(port: int, audit: str | None) -> None:
    """Serve the app on this machine (127.0.0.1)."""
    folder = default_workspace()
    query = f"?audit={Audit.open(audit).folder.id}" if audit else ""
    click.echo(f"BiasDiff serves {folder} at http://127.0.0.1:{port}/{query} (Ctrl-C stops it)")
    environment = {**os.environ, WORKSPACE_VARIABLE: str(folder)}
    arguments = ["-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port), "--server.headless", "true"]
    sys.exit(subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=False).returncode)
