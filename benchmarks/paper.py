"""The paper's tables and figures on the embedded model, beside the paper's own numbers.

python -m benchmarks.paper table1       every mitigation after the full and the few warm-up, pooled over training seeds
python -m benchmarks.paper table3       stereotype score by the block size of the gradients (also table 10)
python -m benchmarks.paper table4       stereotype score by percentage removed, against random removal (also the paper's figure 4)
python -m benchmarks.paper figure3      coverage and precision by percentage selected, full and few

Every cell is an artefact of an audit in `--workspace`, so a stopped run goes on. The section goes into docs/results.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from benchmarks.arms import (
    HELD_OUT,
    Pooled,
    Recipe,
    Scope,
    changed_arms,
    few_arms,
    full_arms,
    margin_difference,
    overlap,
    perplexity_ratio,
    ranked,
    shares,
    trex_difference,
)
from benchmarks.record import record
from biasdiff_core.config.mitigation import Method
from biasdiff_core.config.model import BUNDLED_MODEL
from biasdiff_core.evaluation.statistics import Estimate, Share
from biasdiff_core.workspace.artefacts import Artefact

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results.md"
FULL_METHODS: tuple[Method, ...] = ("retrain", "npo", "ascent", "prompt", "random", "oracle", "unigram")
FEW_METHODS: tuple[Method, ...] = ("retrain", "npo", "prompt")
CONTROLS = ("random", "oracle")
ASKED = ("npo",)  # of T-REx: the answers take minutes a variant
UNITS = {
    "margin_difference": "mean margin of the stereotype pairs less the origin's, nats, `sum` scoring",
    "rise_undone": "share of the rise of the mean margin over the base that was undone",
    "removable_undone": "share of what perfect removal (oracle) undoes",
    "against_random": "mean margin less that of the random control, nats",
    "perplexity_ratio": "perplexity over the origin's, on unseen T-REx text",
    "trex_difference": "exact match on unseen T-REx queries less the origin's, points",
}
PERCENTAGES = (5.0, 10.0, 15.0, 35.0)
BLOCKS = (1, 2, 4, 8, 16, 32)
CUTS = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
# Stereotype scores of the paper's Table 1 (Qwen2.5-1.5B-Instruct, Trex_mix): they stand beside ours, which are of a smaller model.
PAPER_TABLE1 = {
    "full": {"base": 64.88, "origin": 70.16, "retrain": 67.21, "npo": 68.53, "ascent": 67.60, "prompt": 68.53},
    "few": {"base": 64.88, "origin": 70.16, "retrain": 68.68, "npo": 68.45, "ascent": 70.39, "prompt": 69.84},
}
PAPER_FIGURE3 = {"full": {15.0: (0.512, 0.999), 35.0: (0.9996, 0.836)}, "few": {35.0: (0.9958, 0.836)}}


def table1(recipe: Recipe, seeds: Sequence[int]) -> str:
    """Base, origin and every variant, full and few."""
    arms: dict[Scope, dict[str, Pooled]] = {
        "full": pooled([full_arms(recipe, seed, FULL_METHODS) for seed in seeds]),
        "few": pooled([few_arms(recipe, seed, FEW_METHODS) for seed in seeds]),
    }
    arms["few"] |= {control: arms["full"][control] for control in CONTROLS}
    training = recipe.training
    lines = [
        f"{recipe.model} ({recipe.dtype}), {recipe.n} rows of Trex_mix, {training.epochs} epochs at {training.learning_rate:g}, top "
        f"{recipe.percent:g} % less false positives; {len(seeds)} training seeds, intervals over seeds and pairs. The paper's last column "
        "is of Qwen2.5-1.5B-Instruct on all 8,939 rows.",
        "",
        "Coverage and precision of the selection, mean over seeds: " + "; ".join(_selected(recipe, seeds, scope) for scope in arms) + ".",
        "",
        "| warm-up | variant | stereotype `paper` % | stereotype `sum` % | " + " | ".join(UNITS) + " | the paper's stereotype % |",
        "|---" * (5 + len(UNITS)) + "|",
    ]
    for scope, variants in arms.items():
        prefix = "mitigation" if scope == "full" else "mitigation.few"
        pairs = variants["origin"].margins("sum").shape[1]
        for name in [v for v in variants if scope == "full" or v not in ("base", "origin", *CONTROLS)]:
            figures = _figures(recipe, scope, variants, name)
            lines.append(_row(scope, name, variants, figures))
            _record(recipe, f"{prefix}.{name}", figures, pairs, len(seeds))
    return "\n".join(lines) + "\n\n" + "\n".join(f"- `{metric}`: {unit}" for metric, unit in UNITS.items())


def _selected(recipe: Recipe, seeds: Sequence[int], scope: Scope) -> str:
    coverage, precision = np.mean([overlap(recipe.audit("main", seed, scope), recipe.percent) for seed in seeds], axis=0)
    return f"{scope} {coverage:.3f}, {precision:.3f}"


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
    return "| " + " | ".join([*cells, str(PAPER_TABLE1[scope].get(name, ""))]) + " |"


def _record(recipe: Recipe, prefix: str, figures: Mapping[str, Estimate | Share], pairs: int, seeds: int) -> None:
    against = f"{seeds} training seeds; base, origin, oracle and random in the same run"
    for metric, found in figures.items():
        n = {"perplexity_ratio": HELD_OUT, "trex_difference": recipe.trex().limit or 0}.get(metric, pairs)
        record(
            f"{prefix}.{metric}", found.value, low=found.low, high=found.high, n=n, unit=UNITS[metric], model=recipe.model, against=against
        )


def table3(recipe: Recipe, seeds: Sequence[int]) -> str:
    """Rows by block size: how many neighbours of the (shuffled) corpus share one gradient."""
    lines = ["| block size | coverage, precision | retrain: stereotype `sum` % | margin against origin, nats |", "|---|---|---|---|"]
    for block in BLOCKS:
        name = f"block{block}"
        arms = pooled([changed_arms(recipe, seed, ("retrain",), name, block_size=block) for seed in seeds])
        found = "{:.3f}, {:.3f}".format(*overlap(replace(recipe, block_size=block).audit(name, seeds[0]), recipe.percent))
        moved = shown(margin_difference(arms, "retrain", "origin"))
        lines.append(f"| {block} | {found} | {shown(arms['retrain'].score('sum'), 1)} | {moved} |")
    return "\n".join(lines)


def table4(recipe: Recipe, seeds: Sequence[int]) -> str:
    """Rows by percentage removed."""
    lines = [
        "| removed % | retrain: stereotype `sum` % | random: stereotype `sum` % | retrain less random, margin, nats |",
        "|---|---|---|---|",
    ]
    for percent in PERCENTAGES:
        arms = pooled([changed_arms(recipe, seed, ("retrain", "random"), f"top{percent:g}", percent=percent) for seed in seeds])
        scores = [shown(arms[name].score("sum"), 1) for name in ("retrain", "random")]
        lines.append(f"| {percent:g} | {scores[0]} | {scores[1]} | {shown(margin_difference(arms, 'retrain', 'random'))} |")
    return "\n".join(lines)


def figure3(recipe: Recipe, seeds: Sequence[int]) -> str:
    """Rows by percentage selected."""
    lines = [
        "| selected % | full: coverage, precision | few: coverage, precision | the paper, full | the paper, few |",
        "|---|---|---|---|---|",
    ]
    audits = {scope: ranked(recipe, seeds[0], scope) for scope in ("full", "few")}
    for percent in CUTS:
        ours = ["{:.3f}, {:.3f}".format(*overlap(audit, percent)) for audit in audits.values()]
        theirs = ["{:.4g}, {:.4g}".format(*PAPER_FIGURE3[scope][percent]) if percent in PAPER_FIGURE3[scope] else "" for scope in audits]
        lines.append(f"| {percent:g} | " + " | ".join(ours + theirs) + " |")
    return "\n".join(lines)


def pooled(by_seed: Sequence[Mapping[str, Artefact]]) -> dict[str, Pooled]:
    """Variant → its evaluations over seeds."""
    return {variant: Pooled(evaluations=[arms[variant] for arms in by_seed]) for variant in by_seed[0]}


def shown(found: Estimate, digits: int = 2) -> str:
    """Value and interval."""
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def share_shown(share: Estimate | Share) -> str:
    """Value and interval, or that there is none."""
    if share.value is None or share.low is None or share.high is None:
        return "not defined"
    return shown(Estimate(value=share.value, low=share.low, high=share.high))


TABLES: Mapping[str, Callable[[Recipe, Sequence[int]], str]] = {
    "table1": table1,
    "table3": table3,
    "table10": table3,
    "table4": table4,
    "figure4": table4,
    "figure3": figure3,
}


@click.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.option("--workspace", type=click.Path(path_type=Path), required=True, help="Kept between runs: finished cells are not made again.")
@click.option("--seeds", default=3, show_default=True, help="Training seeds.")
@click.option("--model", default=BUNDLED_MODEL, show_default=True, help="Also a folder or a Hugging Face id.")
@click.option("--n", default=500, show_default=True, help="Rows of Trex_mix.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True, help="Of the base weights.")
def main(table: str, workspace: Path, seeds: int, model: str, n: int, dtype: str) -> None:
    """Make one table or figure of the paper and write its section of docs/results.md."""
    recipe = Recipe(workspace=workspace.resolve(), model=model, n=n, dtype=dtype)  # type: ignore[arg-type]
    write_section(table, TABLES[table](recipe, range(seeds)))


def write_section(name: str, text: str) -> None:
    """Replace the section `name` of docs/results.md, or append it."""
    start, end = f"<!-- {name}: made by `python -m benchmarks.paper {name}` -->", f"<!-- /{name} -->"
    whole = RESULTS.read_text(encoding="utf8") if RESULTS.exists() else "# Results beside the paper's\n"
    section = f"{start}\n## {name}\n\n{text}\n{end}\n"
    if start in whole:
        before, rest = whole.split(start)
        whole = before + section + rest.split(end + "\n")[1]
    else:
        whole += "\n" + section
    RESULTS.write_text(whole, encoding="utf8")


if __name__ == "__main__":
    main()
