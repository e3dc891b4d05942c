"""The paper's tables and figures on the embedded model, beside the paper's own numbers.

python -m benchmarks.paper table1       every mitigation after the full and the few warm-up, pooled over training seeds
python -m benchmarks.paper table3       stereotype score by the block size of the gradients (also table 10)
python -m benchmarks.paper table4       stereotype score by percentage removed, against random removal (also the paper's figure 4)
python -m benchmarks.paper table5       origin and retrained on the other mixes
python -m benchmarks.paper table6       what a model learns of Gen_mix (one model a run; the paper's others say `not measured`)
python -m benchmarks.paper table9       SEAT and CrowS-Pairs, one as the probing set, the other as the judge
python -m benchmarks.paper figure3      coverage and precision by percentage selected, full and few
python -m benchmarks.paper figure5      the other probing sets, against random removal

Every cell is an artefact of an audit in `--workspace`, so a stopped run goes on. The section goes into docs/results.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from benchmarks.arms import (
    HELD_OUT,
    Pooled,
    Recipe,
    Scope,
    decided,
    few_arms,
    full_arms,
    margin_difference,
    perplexity_ratio,
    ranked,
    shares,
    stage_hours,
    trex_correct,
    trex_difference,
)
from benchmarks.cells import Cell, Task, mean_overlap, pooled, side_by_side, waves
from benchmarks.paper_figures import (
    PAPER_FIGURE3,
    PAPER_TABLE1,
    PAPER_TABLE3,
    PAPER_TABLE4,
    PAPER_TABLE5,
    PAPER_TABLE6,
    PAPER_TABLE9,
    PAPER_TABLE9_BEFORE,
    WHY,
)
from benchmarks.record import record
from biasdiff_core.config import TrainingConfig
from biasdiff_core.config.mitigation import Method
from biasdiff_core.config.model import BUNDLED_MODEL, Dtype
from biasdiff_core.evaluation.statistics import Estimate, Share

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results.md"
FULL_METHODS: tuple[Method, ...] = ("retrain", "random", "oracle", "npo", "unigram", "prompt", "ascent")
FEW_METHODS: tuple[Method, ...] = ("retrain", "npo")
CONTROLS = ("random", "oracle")
UNSELECTED = ("prompt", *CONTROLS)  # the selection makes no difference to them
ASKED: tuple[Method, ...] = ("npo",)  # of T-REx: the answers take minutes a variant
UNITS = {
    "margin_difference": "mean margin of the stereotype pairs less the origin's, nats, `sum` scoring",
    "rise_undone": "share of the rise of the mean margin over the base that was undone",
    "removable_undone": "share of what perfect removal (oracle) undoes",
    "against_random": "mean margin less that of the random control, nats",
    "perplexity_ratio": "perplexity over the origin's, on unseen T-REx text",
    "trex_difference": "exact match on unseen T-REx queries less the origin's, points",
}
INDICATORS = ("bias_diff", "own", "wino", "balance")
PERCENTAGES = (5.0, 10.0, 15.0, 35.0)
BLOCKS = (1, 2, 4, 8, 16, 32)
CUTS = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
# `long` has more rows and epochs, whose rise is larger on StereoSet (docs/log.md, 2026-11-26), so that shares of it are less uncertain, at
# four times the training; it is of the full warm-up alone, and its sections of docs/results.md stand beside those of `short`.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "short": {},
    "long": {"n": 1000, "training": TrainingConfig(epochs=4, learning_rate=5e-4), "scopes": ("full",), "rows": "mitigation"},
}


def table1(recipe: Recipe, seeds: Sequence[int]) -> list[str]:
    """Base, origin and every variant, by the scope of the warm-up that selects."""
    arms: dict[Scope, dict[str, Pooled]] = {"full": pooled([full_arms(recipe, seed, FULL_METHODS) for seed in seeds])}
    if "few" in recipe.scopes:
        arms["few"] = pooled([few_arms(recipe, seed, FEW_METHODS) for seed in seeds])
        arms["few"] |= {name: arms["full"][name] for name in UNSELECTED}
    training = recipe.training
    lines = [
        f"{recipe.model} ({recipe.dtype}), {recipe.n} rows of Trex_mix, {training.epochs} epochs at {training.learning_rate:g}, top "
        f"{recipe.percent:g} % less false positives; {len(seeds)} training seeds, intervals over seeds and pairs. The paper's column "
        "is of Qwen2.5-1.5B-Instruct on all 8,939 rows: stereotype score %, perplexity, T-REx %.",
        "",
        "Coverage and precision of the selection, mean over seeds: " + "; ".join(_selected(recipe, seeds, scope) for scope in arms) + ".",
        "",
        *header("warm-up", "variant", "stereotype `paper` %", "stereotype `sum` %", *UNITS, "the paper"),
    ]
    for scope, variants in arms.items():
        prefix = recipe.rows if scope == "full" else f"{recipe.rows}.few"
        pairs = variants["origin"].margins("sum").shape[1]
        for name in [v for v in variants if scope == "full" or v not in ("base", "origin", *CONTROLS)]:
            figures = _figures(recipe, scope, variants, name)
            lines.append(_row(scope, name, variants, figures))
            _record(recipe, f"{prefix}.{name}", figures, pairs, len(seeds))
    made_in: list[tuple[str, Scope]] = [("main", scope) for scope in recipe.scopes]
    made_in += [("by-few", "full")] if "few" in recipe.scopes else []
    hours = stage_hours([recipe.audit(name, seed, scope) for name, scope in made_in for seed in seeds])
    unit = "hours of all stages, one after another, without T-REx; several run at once"
    record("paper.table1.hours", hours, n=len(seeds), unit=unit, model=recipe.model)
    return [*lines, "", *(f"- `{metric}`: {unit}" for metric, unit in UNITS.items())]


def _selected(recipe: Recipe, seeds: Sequence[int], scope: Scope) -> str:
    return f"{scope} {mean_overlap([recipe.audit('main', seed, scope) for seed in seeds], recipe.percent)}"


def _figures(recipe: Recipe, scope: str, arms: Mapping[str, Pooled], name: str) -> dict[str, Estimate | Share]:
    """What is said of a variant, by the metric's name in results.jsonl; figures that make no sense for it are left out."""
    if name == "origin":
        return {}
    found: dict[str, Estimate | Share] = {"margin_difference": margin_difference(arms, name, "origin")}
    if name != "base":
        found["rise_undone"] = shares(arms, name, "base")
    if name not in ("base", "random"):
        found["against_random"] = margin_difference(arms, name, "random")
    if name not in ("base", "oracle"):
        found["removable_undone"] = shares(arms, name, "oracle")
    found["perplexity_ratio"] = perplexity_ratio(arms, name, "origin")
    if scope == "full" and name in ASKED:
        found["trex_difference"] = trex_difference(recipe, arms, name, "origin")
    return found


def _row(scope: str, name: str, arms: Mapping[str, Pooled], figures: Mapping[str, Estimate | Share]) -> str:
    cells = [scope, name, shown(arms[name].score("paper"), 1), shown(arms[name].score("sum"), 1)]
    cells += [share_shown(figures[metric]) if metric in figures else "" for metric in UNITS]
    return row(*cells, PAPER_TABLE1[scope].get(name, ""))


def _record(recipe: Recipe, prefix: str, figures: Mapping[str, Estimate | Share], pairs: int, seeds: int) -> None:
    against = f"{seeds} training seeds; base, origin, oracle and random in the same run"
    for metric, found in figures.items():
        n = {"perplexity_ratio": HELD_OUT, "trex_difference": recipe.trex().limit or 0}.get(metric, pairs)
        record(
            f"{prefix}.{metric}", found.value, low=found.low, high=found.high, n=n, unit=UNITS[metric], model=recipe.model, against=against
        )


def table3(cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
    """Rows by block size: how many neighbours of the (shuffled) corpus share one gradient."""
    columns = ("retrain: stereotype `sum` %", "margin against origin, nats", "the paper: opt-350m, Balance (origin 60.23)")
    lines = [*header("block size", "coverage, precision", *columns)]
    for cell in cells:
        arms = cell.pooled(seeds)
        figures = (shown(arms["retrain"].score("sum"), 1), shown(margin_difference(arms, "retrain", "origin")))
        size = cell.changed.block_size
        lines.append(row(size, cell.overlap(seeds), *figures, PAPER_TABLE3.get(size, "")))
    return lines


def table4(cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
    """Rows by percentage removed."""
    columns = ("retrain: stereotype `sum` %", "random: stereotype `sum` %", "retrain less random, margin, nats")
    lines = [*header("removed %", *columns, f"the paper: retrain, Gen_mix (origin {PAPER_TABLE4[0]})")]
    for cell in cells:
        percent = cell.changed.percent
        lines.append(row(f"{percent:g}", *_against_random(cell.pooled(seeds)), str(PAPER_TABLE4[percent])))
    return lines


def _against_random(arms: Mapping[str, Pooled]) -> list[str]:
    scores = [shown(arms[name].score("sum"), 1) for name in ("retrain", "random")]
    return [*scores, shown(margin_difference(arms, "retrain", "random"))]


def table5(cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
    """Rows by mix."""
    columns = ("base: stereotype `sum` %", "origin", "retrain", "retrain less origin, margin, nats")
    lines = [*header("mix", "coverage, precision", *columns, "the paper, origin → full")]
    for cell in cells:
        arms, (before, after) = cell.pooled(seeds), PAPER_TABLE5[cell.recipe.corpus]
        scores = [shown(arms[name].score("sum"), 1) for name in ("base", "origin", "retrain")]
        moved = shown(margin_difference(arms, "retrain", "origin"))
        lines.append(row(cell.recipe.corpus, cell.overlap(seeds), *scores, moved, f"{before} → {after}"))
    return lines


def table6(cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
    """Rows by model: the one that was run, and the paper's, whose weights are not here."""
    lines = [*header("model", "base: stereotype `sum` %", "after Gen_mix", "margin less the base's, nats", "the paper: base → after")]
    for cell in cells:
        arms = cell.pooled(seeds)
        scores = [shown(arms[name].score("sum"), 1) for name in ("base", "origin")]
        lines.append(row(cell.recipe.model, *scores, shown(margin_difference(arms, "origin", "base")), ""))
    return lines + [row(name, *["not measured"] * 3, f"{base} → {after}") for name, (base, after) in PAPER_TABLE6.items()]


def table9(cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
    """Rows by probing set and percentage; a probing set is never the judge of what was found with it."""
    lines = [*header("probing set", "removed %", "CrowS-Pairs, stereotype `sum` %", "SEAT, mean absolute effect size", "the paper")]
    first = cells[0].pooled(seeds)
    lines += [
        row(f"none: {v}", 0, shown(first[v].score("sum"), 1), _effect_sizes(first[v]), PAPER_TABLE9_BEFORE[v]) for v in ("base", "origin")
    ]
    for cell in cells:
        indicator, percent, judged = cell.changed.indicator, cell.changed.percent, cell.pooled(seeds)["retrain"]
        figures = (shown(judged.score("sum"), 1), "") if indicator == "seat" else ("", _effect_sizes(judged))
        lines.append(row(indicator, f"{percent:g}", *figures, PAPER_TABLE9[indicator][percent]))
    return lines


def _effect_sizes(variant: Pooled) -> str:
    """Mean over seeds of each group's mean absolute effect size."""
    found = variant.figures("seat.", ".mean_abs_effect_size")
    return ", ".join(f"{name.split('.')[1]} {value:.3f}" for name, value in found.items())


def figure3(recipe: Recipe, seeds: Sequence[int]) -> list[str]:
    """Rows by percentage selected."""
    lines = [_stated(recipe, [recipe.corpus], seeds), "Means over seeds.", ""]
    ours_by, theirs_by = ([text.format(scope) for scope in recipe.scopes] for text in ("{}: coverage, precision", "the paper, {}"))
    lines += header("selected %", *ours_by, *theirs_by)
    audits = {scope: [ranked(recipe, seed, scope) for seed in seeds] for scope in recipe.scopes}
    for percent in CUTS:
        ours = [mean_overlap(by_seed, percent) for by_seed in audits.values()]
        theirs = ["{:.4g}, {:.4g}".format(*PAPER_FIGURE3[scope][percent]) if percent in PAPER_FIGURE3[scope] else "" for scope in audits]
        lines.append(row(f"{percent:g}", *ours, *theirs))
    return lines


def figure5(cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
    """Rows by probing set."""
    columns = ("retrain: stereotype `sum` %", "random: stereotype `sum` %", "retrain less random, margin, nats")
    lines = [*header("probing set", "coverage, precision", *columns)]
    return lines + [row(cell.changed.indicator, cell.overlap(seeds), *_against_random(cell.pooled(seeds))) for cell in cells]


def header(*columns: str) -> tuple[str, str]:
    """The first two lines of a table."""
    return row(*columns), "|---" * len(columns) + "|"


def row(*cells: object) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def shown(found: Estimate, digits: int = 2) -> str:
    """Value and interval."""
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def share_shown(share: Estimate | Share) -> str:
    """Value and interval, or that there is none."""
    if share.value is None or share.low is None or share.high is None:
        return "not defined"
    return shown(Estimate(value=share.value, low=share.low, high=share.high))


def cells_of(table: str, recipe: Recipe) -> list[Cell]:
    """What is measured for the rows of a table that is made of cells."""
    crossed = [(indicator, percent) for indicator, found in PAPER_TABLE9.items() for percent in found]
    toxic = replace(recipe, corpus="toxic_mix", seat=True, indicator=crossed[0][0], percent=crossed[0][1])
    against_random: tuple[Method, ...] = ("retrain", "random")
    found = {
        "table3": [Cell(recipe=recipe, name=f"block{size}", changes={"block_size": size}) for size in BLOCKS],
        "table4": [Cell(recipe=recipe, methods=against_random, name=f"top{p:g}", changes={"percent": p}) for p in PERCENTAGES],
        "table5": [Cell(recipe=replace(recipe, corpus=corpus)) for corpus in PAPER_TABLE5],
        "table6": [Cell(recipe=replace(recipe, corpus="gen_mix"))],
        "table9": [Cell(recipe=toxic, name=f"{i}{p:g}", changes={"indicator": i, "percent": p}) for i, p in crossed],
        "figure5": [Cell(recipe=recipe, methods=against_random, name=f"by-{i}", changes={"indicator": i}) for i in INDICATORS],
    }
    return found[ALIASES.get(table, table)]


# How tables are read off: those made of cells, and those that compare the full and the few warm-up.
OF_CELLS: Mapping[str, Callable[[Sequence[Cell], Sequence[int]], list[str]]] = {
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "table9": table9,
    "figure5": figure5,
}
OF_SCOPES: Mapping[str, Callable[[Recipe, Sequence[int]], list[str]]] = {"table1": table1, "figure3": figure3}
ALIASES = {"table10": "table3", "figure4": "table4"}


def waves_of(table: str, recipe: Recipe, seeds: Sequence[int]) -> list[list[Task]]:
    """What must be made for a table, in waves of tasks that do not wait for one another."""
    if table in OF_CELLS or table in ALIASES:
        return waves(cells_of(table, recipe), seeds)
    recipe.inputs()
    if table == "figure3":
        return [[partial(ranked, recipe, seed, scope) for scope in recipe.scopes for seed in seeds]]
    few = seeds if "few" in recipe.scopes else ()
    return [
        [*(partial(decided, recipe, seed) for seed in seeds), *(partial(ranked, recipe, seed, "few") for seed in few)],
        [
            *(partial(full_arms, recipe, seed, (method,)) for method in FULL_METHODS for seed in seeds),
            *(partial(few_arms, recipe, seed, FEW_METHODS) for seed in few),
        ],
        [partial(trex_answers, recipe, seed, variant) for variant in ("origin", *ASKED) for seed in seeds],
    ]


def trex_answers(recipe: Recipe, seed: int, variant: str) -> None:
    """Ask a variant after the full warm-up the T-REx queries."""
    trex_correct(recipe, seed, full_arms(recipe, seed, ASKED)[variant])


@click.command()
@click.argument("table", type=click.Choice([*OF_SCOPES, *OF_CELLS, *ALIASES]))
@click.option("--workspace", type=click.Path(path_type=Path), required=True, help="Kept between runs: finished cells are not made again.")
@click.option("--seeds", default=3, show_default=True, help="Training seeds.")
@click.option("--model", default=BUNDLED_MODEL, show_default=True, help="Also a folder or a Hugging Face id.")
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="short", show_default=True, help="How the bias is induced.")
@click.option("--n", type=int, help="Rows of the mix. Default: the recipe's.")
@click.option("--dtype", type=click.Choice(get_args(Dtype)), default="bfloat16", show_default=True, help="Of the base weights.")
@click.option("--token-budget", default=Recipe.token_budget, show_default=True, help="Padded tokens of one pass.")
@click.option("--processes", default=2, show_default=True, help="Cells that are made at once; they share the cores.")
def main(
    table: str, workspace: Path, seeds: int, model: str, recipe: str, n: int | None, dtype: Dtype, token_budget: int, processes: int
) -> None:
    """Make one table or figure of the paper and write its section of docs/results.md."""
    changes = {**RECIPES[recipe], **({"n": n} if n else {})}
    chosen = Recipe(workspace=workspace.resolve(), model=model, dtype=dtype, token_budget=token_budget, **changes)
    side_by_side(waves_of(table, chosen, range(seeds)), processes)
    lines = read_off(table, chosen, range(seeds))
    if recipe == "short":
        write_section(table, table, lines)
    else:
        write_section(f"{table}-{recipe}", f"{table} --recipe {recipe}", lines)


def read_off(table: str, recipe: Recipe, seeds: Sequence[int]) -> list[str]:
    """The lines of a table whose cells are made (or are made now)."""
    name = ALIASES.get(table, table)
    why = ["", f"Where ours and the paper's differ: {WHY[name]}"]
    if name in OF_SCOPES:
        return [*OF_SCOPES[name](recipe, seeds), *why]
    cells = cells_of(table, recipe)
    mixes = list(dict.fromkeys(cell.changed.corpus for cell in cells))
    over = "seeds and pairs" if len(seeds) > 1 else "the pairs alone: of this one training"
    return [_stated(recipe, mixes, seeds), f"95 % intervals over {over}.", "", *OF_CELLS[name](cells, seeds), *why]


def _stated(recipe: Recipe, mixes: Sequence[str], seeds: Sequence[int]) -> str:
    """What every row of a table was measured on."""
    training = recipe.training
    return (
        f"{recipe.model} ({recipe.dtype}), {recipe.n} rows of {', '.join(mixes)}, {training.epochs} epochs at {training.learning_rate:g}; "
        f"{len(seeds)} training seed(s)."
    )


def write_section(name: str, arguments: str, lines: Sequence[str]) -> None:
    """Replace the section `name` of docs/results.md, or append it. `arguments`: of the command that makes it."""
    start, end = f"<!-- {name}: made by `python -m benchmarks.paper {arguments}` -->", f"<!-- /{name} -->"
    whole = RESULTS.read_text(encoding="utf8") if RESULTS.exists() else "# Results beside the paper's\n"
    section = "\n".join([start, f"## {name}", "", *lines, end, ""])
    if start in whole:
        before, rest = whole.split(start)
        whole = before + section + rest.split(end + "\n")[1]
    else:
        whole += "\n" + section
    RESULTS.write_text(whole, encoding="utf8")


if __name__ == "__main__":
    main()
