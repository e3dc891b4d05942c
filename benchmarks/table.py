"""Write the newest value of each headline figure from results.jsonl into the README's result table.

python -m benchmarks.table
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

README = Path(__file__).resolve().parents[1] / "README.md"
START, END = (
    "<!-- results: made by `python -m benchmarks.table`; every figure stands in benchmarks/results.jsonl -->\n",
    "<!-- /results -->",
)

ROWS = {
    "detection.trex_mix.coverage35": "Trex_mix, 600 rows: coverage at 35 %",
    "detection.trex_mix.coverage30": "Trex_mix: coverage at 30 %",
    "detection.trex_mix.auroc": "Trex_mix: AUROC of influence",
    "detection.trex_mix.baseline.unigram.auroc": "Trex_mix: AUROC of the unigram baseline",
    "detection.trex_mix.baseline.length.auroc": "Trex_mix: AUROC of the length baseline",
    "detection.demo.auroc": "Demo corpus: AUROC of influence",
    "detection.demo.baseline.unigram.auroc": "Demo corpus: AUROC of the unigram baseline",
    "detection.demo.baseline.length.auroc": "Demo corpus: AUROC of the length baseline",
    "detection.demo.baseline.repsim.auroc": "Demo corpus: AUROC of the model's hidden states (RepSim)",
    "detection.demo_same_group.auroc": "Demo, against same-group neutrals only: AUROC of influence",
    "detection.demo_same_group.contrast.auroc": "Demo, same-group: AUROC of the contrast with the twins",
    "detection.demo_same_group.baseline.unigram.auroc": "Demo, same-group: AUROC of the unigram baseline",
    "detection.demo_same_group.baseline.repsim.auroc": "Demo, same-group: AUROC of the hidden states",
    "probes.bias_diff.coverage_35": "Trex_mix, 500 rows in all, the paper's probes: coverage of the biased ones at 35 %",
    "probes.stereoset.coverage_35": "Trex_mix, StereoSet as the probing set: coverage at 35 %",
    "probes.own.coverage_35": "Trex_mix, our own probes: coverage at 35 %",
    "mitigation.retrain.removable_undone": "Trex_mix, 1,000 rows: retrained: share undone of what perfect removal undoes",
    "mitigation.random.rise_undone": "Trex_mix, 1,000 rows: as many removed at random: share of the rise undone",
    "mitigation.unigram.removable_undone": "Trex_mix, 1,000 rows: what unigrams would have removed: share of the same",
    "mitigation.npo.rise_undone": "Trex_mix, 1,000 rows: NPO: share of the rise undone",
    "mitigation.npo.perplexity_ratio": "Trex_mix, 1,000 rows: NPO: perplexity over the origin's on unseen text",
    "mitigation.npo.trex_difference": "Trex_mix, 1,000 rows: NPO: T-REx exact match less the origin's, points",
    "crows_pairs.paper.stereotype_score": "CrowS-Pairs of the base model, stereotype score, `paper` scoring (%)",
    "crows_pairs.sum.stereotype_score": "CrowS-Pairs of the base model, stereotype score, `sum` scoring (%)",
    "crows.speed_vs_lm_eval": "CrowS-Pairs in fp32: seconds of lm-evaluation-harness over ours",
    "featurize.speed_vs_training_step": "Gradients: CPU seconds of a LoRA training step over ours, same sentences",
    "featurize.speed_vs_less": "Gradients: LESS as described, with traker's projector, over ours",
    "featurize.speed_vs_bergson_module": "Gradients: Bergson, projected module by module, over ours",
    "exact.overhead_891": "Gradients: share of our seconds that exact dot products with 891 probes add",
    "search.1m.seconds": "Search: a million rows exactly, by 100 sentences (s)",
    "search.1m.peak_rss_gb": "Search: memory of that at most (GB)",
    "search.20k.gpu.same_rows": "Search on a GPU (FAISS, flat): share of the 50 nearest that are the CPU's",
    "search.audit.ivf_pq.recall50": "Search: share of the 50 nearest that IVF-PQ finds on gradients of Trex_mix",
    "demo.quick.seconds": "`biasdiff demo`, whole process (s)",
    "app.explore_100k_first_paint_seconds": "Explore at 100,000 examples: drawn after (s)",
    "app.filter_100k_seconds": "Explore at 100,000 examples: a filter answers after (s)",
}

# What a machine's speed decides: shown for each that it was measured on.
TIMED = frozenset(name for name in ROWS if name.startswith(("crows.speed", "featurize.", "exact.")) or name.endswith("seconds"))

NOT_MEASURED = ("Our gradients, LESS and a training step on a GPU",)  # docs/log.md, 2026-11-27: the lease ended before a round did


def newest() -> dict[str, list[dict[str, Any]]]:
    """The last row of every metric; of a timed one the last of each machine, the latest first."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for text in RESULTS.read_text(encoding="utf8").splitlines():
        row = json.loads(text)
        machine = row["hardware"] if row["metric"] in TIMED else ""
        of_metric = found.setdefault(row["metric"], {})
        of_metric.pop(machine, None)
        of_metric[machine] = row
    return {metric: [*reversed(of_metric.values())] for metric, of_metric in found.items()}


def line(label: str, row: dict[str, Any]) -> str:
    """One row of the Markdown table; of a timed figure with the processor."""
    if row["metric"] in TIMED:
        label += f" – {_processor(row)}"
    digits = 1 if row["metric"].endswith("seconds") else 2 if abs(row["value"]) > 1.5 else 3
    shown = f"{row['value']:.{digits}f}"
    if row["low"] is not None:
        shown += f" [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    return f"| {label} | {shown} | {row['n']} | `{row['commit']}` |"


def _processor(row: dict[str, Any]) -> str:
    return re.sub(r"\(R\)| Processor", "", row["hardware"].partition(",")[0])


def table() -> str:
    """The whole table, with model and hardware below."""
    rows = newest()
    lines = ["| figure | value [95 %] | n | commit |", "|---|---|---|---|"]
    lines += [line(label, row) for metric, label in ROWS.items() for row in rows.get(metric, ())]
    lines += [f"| {label} | not measured | | |" for label in NOT_MEASURED]
    shown = [row for metric in ROWS for row in rows.get(metric, ())]
    machines = " or ".join(dict.fromkeys(row["hardware"] for row in shown))
    return "\n".join(lines) + f"\n\nModel `{shown[0]['model']}` (weights dequantised from 4-bit), {machines}.\n"


def main() -> None:
    """Replace the table between the two marks."""
    text = README.read_text(encoding="utf8")
    before, after = text.split(START)[0], text.split(END)[1]
    README.write_text(before + START + table() + END + after, encoding="utf8")


if __name__ == "__main__":
    main()
