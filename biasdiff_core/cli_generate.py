"""`biasdiff probes generate`: probe pairs from a language model, or from templates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import click

from biasdiff_core.cli_common import command, json_option, progress_bar, scored_by, scored_options
from biasdiff_core.config import CorpusConfig
from biasdiff_core.config.generation import BIAS_TYPES, Budget, GenerationConfig, PairRules, PromptName
from biasdiff_core.corpus.generation.client import Client
from biasdiff_core.corpus.generation.judge import ProbePair
from biasdiff_core.corpus.generation.output import JudgedRow, check_target, reasons_of, rejected_path, write
from biasdiff_core.corpus.generation.run import Generation, Summary
from biasdiff_core.corpus.generation.template import VERSION, template_rows
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.evaluation.texts import texts_by_suite

RULES, BUDGET = PairRules(), Budget()


@click.command("generate")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV to write; responses and refused rows stand beside it.")
@click.option("--model", help="A model of the endpoint that OPENAI_BASE_URL and OPENAI_API_KEY name.")
@click.option("--template", is_flag=True, help="Fill templates of our own instead of asking a model.")
@click.option("--count", type=click.IntRange(min=1), default=90, show_default=True, help="Stop when so many pairs are accepted.")
@click.option("--prompt", type=click.Choice(get_args(PromptName)), default="guided", show_default=True, help="Our own, or the paper's.")
@click.option("--examples", help="Of guided: a file with columns text, twin, bias_type whose rows the model is shown (default: demo).")
@click.option("--type", "bias_types", type=click.Choice(BIAS_TYPES), multiple=True, help="May be repeated (default: all nine).")
@click.option("--words", type=int, nargs=2, default=(RULES.min_words, RULES.max_words), show_default=True, help="Least and most words.")
@click.option("--corpus", help="A corpus that no pair may nearly repeat: a file, a `datasets` folder or id, or `demo`.")
@click.option("--text-column", default="text", show_default=True, help="Column of the corpus's text.")
@scored_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of the examples shown and of the templates.")
@click.option("--temperature", type=float, help="Of the model (default: the server's).")
@click.option("--max-requests", type=int, default=BUDGET.max_requests, show_default=True, help="Budget; failed ones count.")
@click.option("--max-tokens", type=int, default=BUDGET.max_tokens, show_default=True, help="Budget of prompts and answers together.")
@click.option("--answer-tokens", type=int, default=BUDGET.answer_tokens, show_default=True, help="The most of one answer.")
@click.option("--per-minute", type=float, default=BUDGET.per_minute, show_default=True, help="The most requests a minute.")
@click.option("--price-in", type=float, help="Money per million prompt tokens, to show the cost.")
@click.option("--price-out", type=float, help="Money per million answer tokens.")
@click.option("--yes", is_flag=True, help="Send without asking.")
@json_option
@command
def generate(out: Path, model: str | None, template: bool, yes: bool, as_json: bool, **options: Any) -> None:
    """Write probe pairs: stereotypes with their twins, each judged before it is kept.

    What it will cost is shown before anything is sent. Killed or stopped, the same command goes on. Whether a sentence is a stereotype
    is not checked: read them.
    """
    if template == (model is not None):
        raise click.UsageError("Give --model, or --template.")
    check_target(out, resumable=not template)
    shortest, longest = options["words"]
    rules = PairRules(bias_types=options["bias_types"] or BIAS_TYPES, min_words=shortest, max_words=longest)
    references = _references(options)
    if model is None:
        rows = template_rows(options["count"], options["seed"], rules, references)
        write(rows, out, source="template", model="", prompt=VERSION)
        _print(out, rows, None, as_json)
        return
    budget = Budget(**{field.name: options[field.name] for field in fields(Budget)})
    choices = {name: options[name] for name in ("prompt", "examples", "count", "temperature", "seed")}
    generation = Generation(GenerationConfig(model=model, rules=rules, budget=budget, **choices), out, references)
    if not generation.finished:
        client = Client()
        click.echo(f"{client.endpoint}, model {model}, prompt {generation.prompt.version}. {generation.cost().sentence()}", err=True)
        if not yes:
            click.confirm("Send?", abort=True, err=True)
        with progress_bar() as progress:
            generation.run(client, progress)
    write(generation.rows, out, source="generated", model=model, prompt=generation.prompt.version)
    _print(out, generation.rows, generation.summary(), as_json)


def _references(options: Mapping[str, Any]) -> dict[str, list[str]]:
    """By name, the texts that no pair may nearly repeat."""
    corpus = options["corpus"]
    references = texts_by_suite(scored_by(options["crows_pairs"], options["stereoset"], options["seat"]))
    if corpus is None:
        click.echo("biasdiff: Without --corpus, pairs that nearly repeat a training text are not found.", err=True)
    else:
        read = read_corpus(CorpusConfig(path=corpus, text_column=options["text_column"]))
        references["the corpus"] = [example.text for example in read.corpus]
    return references


def _print(out: Path, rows: Sequence[JudgedRow], used: Summary | None, as_json: bool) -> None:
    by_type = Counter(row.found.bias_type for row in rows if isinstance(row.found, ProbePair))
    refused = reasons_of(rows)
    if as_json:
        record = {"out": str(out), "pairs": by_type.total(), "by_type": by_type, "refused": refused, "used": used and asdict(used)}
        click.echo(json.dumps(record, indent=1))
        return
    click.echo(f"{by_type.total()} pairs in {out}: {', '.join(f'{count} {name}' for name, count in by_type.items())}")
    for reason, count in refused.items():
        click.echo(f"  {count} refused: {reason}")
    click.echo(f"refused rows: {rejected_path(out)}")
    if used is not None:
        click.echo(used.sentence())
