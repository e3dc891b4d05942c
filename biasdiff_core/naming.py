"""What variants and metrics are called wherever people read about them: the app, the report, the headline."""

from __future__ import annotations

from collections.abc import Mapping

VARIANTS: Mapping[str, str] = {
    "retrain": "retraining",
    "npo": "NPO",
    "door": "DOOR",
    "simnpo": "SimNPO",
    "grad_diff": "gradient difference",
    "ascent": "gradient ascent",
    "twin": "twin preference",
    "random": "random removal",
    "oracle": "removal by labels",
    "unigram": "removal by unigrams",
    "length": "removal by length",
    "minilm": "removal by MiniLM",
}
# Evaluations by the first part of their metrics' names.
FAMILIES: Mapping[str, str] = {
    "crows_pairs": "CrowS-Pairs",
    "stereoset": "StereoSet",
    "seat": "SEAT",
    "perplexity": "Held-out text",
    "trex": "T-REx",
    "lm_eval": "lm-evaluation-harness",
    "probes": "Probing set",
}
FIGURES: Mapping[str, str] = {
    "anti_stereotype_score": "anti-stereotype score",
    "stereotype_margin": "mean stereotype margin",
    "rise_undone": "rise undone",
    "removable_undone": "removable rise undone",
    "ss": "stereotype score",
    "lms": "language modelling score",
    "mean_abs_effect_size": "mean absolute effect size",
    "p_value": "p-value",
    "perplexity_ratio": "perplexity over the reference's",
    "perplexity_nats": "loss in nats per token",
    "answer_rank": "right answer ranked first",
    "copied_corpus": "probes that stand in the corpus",
    "copied_evaluation": "probes that stand in the evaluation",
    "shared_corpus": "wording shared with the corpus",
    "shared_evaluation": "wording shared with the evaluation",
    "near_corpus": "probes with a paraphrase in the corpus",
    "near_evaluation": "probes with a paraphrase in the evaluation",
    "style_auroc": "told from the corpus by words alone",
    "length_auroc": "told from the corpus by length alone",
    "one_change": "twins that differ in one place",
    "types_present": "bias types that occur",
    "imbalance": "largest over smallest bias type",
    "coherence": "coherence within bias types",
    "coherence_across": "coherence across bias types",
    "coherence_gap": "coherence within less across",
    "margin": "preference for the stereotype",
    "least_size": "probes until the ranking is stable",
    "correlation": "correlation of rankings",
}


def variant_name(variant: str) -> str:
    """`NPO` for `npo`; `random removal, seed 3` for `random-3`; a name without an entry as it is."""
    method, _, seed = variant.partition("-")
    name = VARIANTS.get(method, method)
    return f"{name}, seed {seed}" if seed else name


def family(metric: str) -> str:
    """The evaluation that a metric is of: a key of `FAMILIES`, or the first part of the name."""
    first = metric.partition(".")[0]
    return "perplexity" if first.startswith("perplexity") else first


def metric_group(metric: str) -> str:
    """The figures that are shown together, in one convention: `CrowS-Pairs (sum)` for `crows_pairs.sum.stereotype_score`."""
    name = FAMILIES.get(family(metric), family(metric))
    return f"{name} ({metric.split('.')[1]})" if family(metric) == "crows_pairs" else name


def metric_label(metric: str) -> str:
    """A metric's name within its group, what it is of (bias type, test, task) in brackets: `stereotype score (age)`."""
    kind, *parts = metric.split(".")
    if kind == "lm_eval":
        return f"{' '.join(parts[1:])} ({parts[0]})"
    if kind == "seat":
        parts = [parts[1], parts[0]]
    figure, *of = [kind] if not parts else parts[1:] if kind == "crows_pairs" else parts
    name = FIGURES.get(figure, figure.replace("_", " "))
    return f"{name} ({', '.join(of)})" if of else name
