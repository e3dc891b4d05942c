"""`biasdiff corpus …`: build the paper's corpora and probing sets, or a mix of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import click

from biasdiff_core.cli_common import command, json_option, print_rows
from biasdiff_core.corpus.card import held_out_path
from biasdiff_core.corpus.catalogue import chosen_source
from biasdiff_core.corpus.mixes import parse_ratio
from biasdiff_core.corpus.recipes import NAMES, build, described


@click.group()
def corpus() -> None:
    """Build a corpus or probing set from a recipe."""


@corpus.command("recipes")
@json_option
@command
def recipes(as_json: bool) -> None:
    """List the recipes: what each makes, of what, under which licences."""
    print_rows(described(), as_json)


@corpus.command("build")
@click.argument("recipe", type=click.Choice(NAMES))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV to write; its card is written beside it.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample and the order.")
@click.option("--ratio", help="Biased to neutral rows, such as 3:7 (default: the recipe's).")
@click.option("--biased", help="Of custom: a file, a folder saved by `datasets`, a Hugging Face id, or `demo`.")
@click.option("--neutral", help="Of custom: likewise.")
@click.option("--biased-text", default="text", show_default=True, help="Column of the biased texts.")
@click.option("--neutral-text", default="text", show_default=True, help="Column of the neutral texts.")
@click.option("--biased-licence", default="", help="Licence of the biased texts, for the card.")
@click.option("--neutral-licence", default="", help="Licence of the neutral texts, likewise.")
@click.option("--hold-out", type=click.IntRange(min=0), default=0, help="So many neutral texts are kept out, in a file for evaluations.")
@json_option
@command
def build_command(
    recipe: str,
    out: Path,
    seed: int,
    ratio: str | None,
    biased: str | None,
    neutral: str | None,
    biased_text: str,
    neutral_text: str,
    biased_licence: str,
    neutral_licence: str,
    hold_out: int,
    as_json: bool,
) -> None:
    """Build RECIPE (see `biasdiff corpus recipes`). Published data are looked for in the folder $BIASDIFF_DATA."""
    built = build(
        recipe,
        seed=seed,
        ratio=None if ratio is None else parse_ratio(ratio),
        biased=None if biased is None else chosen_source(biased, biased_text, 1, biased_licence),
        neutral=None if neutral is None else chosen_source(neutral, neutral_text, 0, neutral_licence),
        hold_out=hold_out,
    )
    card = built.write(out)
    if as_json:
        click.echo(json.dumps(built.card.to_json(), indent=1, ensure_ascii=False))
    else:
        held = [str(held_out_path(out))] if built.held_out else []
        click.echo("\n".join([*built.card.lines(), f"written: {', '.join([str(out), str(card), *held])}"]))
