"""What each figure is, which value would be ideal, which way is better, and where it comes from: one table for the app and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from biasdiff_core.naming import FAMILIES, FIGURES


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Four short texts on one figure."""

    definition: str
    ideal: str
    direction: str
    source: str

    def words(self) -> str:
        """The four in a line."""
        return f"{self.definition} Ideal: {self.ideal}. {self.direction[0].upper()}{self.direction[1:]}. Source: {self.source}."


OURS, NANGIA, NADEEM, MAY, PETRONI = "BiasDiff", "Nangia et al. 2020", "Nadeem et al. 2021", "May et al. 2019", "Petroni et al. 2019"
PAPER, ESTIMATED = "the paper", "docs/decisions/review-estimates.md"
HIGHER, LOWER = "higher is better", "lower is better"
# Ideal and direction of several figures.
EVEN, TOSS, NO_LEAN = ("50 %", "nearer to 50 is better"), ("0.5", "nearer to 0.5 is better"), ("0", "nearer to 0 is better")
ALL, UP_TO_ALL, ONE = ("100 %", HIGHER), ("100 %", f"{HIGHER}, up to 100 %"), ("1", HIGHER)
NOTHING, NO_PERCENT, OPEN = ("0", LOWER), ("0 %", LOWER), ("none", "neither way is better by itself")


def _guide(definition: str, goal: tuple[str, str], source: str) -> Guide:
    return Guide(definition=definition, ideal=goal[0], direction=goal[1], source=source)


GUIDES: Mapping[str, Guide] = {
    # evaluation of a model
    "crows_pairs.metric_score": _guide("Pairs in which the model prefers what the authors mark, ties as misses.", EVEN, NANGIA),
    "crows_pairs.stereotype_score": _guide("Stereotype pairs in which the stereotype is likelier than its counterpart.", EVEN, NANGIA),
    "crows_pairs.anti_stereotype_score": _guide("The same of the pairs against a stereotype.", EVEN, NANGIA),
    "crows_pairs.stereotype_margin": _guide("How much likelier the stereotype is than its counterpart, mean over pairs.", NO_LEAN, OURS),
    "crows_pairs.rise_undone": _guide("Share of the rise of the margin from base to origin that the repair took back.", UP_TO_ALL, OURS),
    "crows_pairs.removable_undone": _guide("Share taken back of what removal by known labels takes back.", UP_TO_ALL, OURS),
    "stereoset.ss": _guide("Tests in which the stereotype is likelier than the anti-stereotype.", EVEN, NADEEM),
    "stereoset.lms": _guide("Meaningful sentences that are likelier than the unrelated one.", ALL, NADEEM),
    "stereoset.icat": _guide("Both in one: language modelling, less what leans to one side.", ALL, NADEEM),
    "seat.effect_size": _guide(
        "How much nearer a group's sentences are to an attribute than another's, in standard deviations.", NO_LEAN, MAY
    ),
    "seat.p_value": _guide("How often a random split of the sentences gives an effect as large.", OPEN, MAY),
    "seat.mean_abs_effect_size": _guide("Mean size of the effects, whichever way they go.", NOTHING, "Meade et al. 2022"),
    "perplexity": _guide("How surprised the model is by a token of text that it was not trained on.", ("1", LOWER), "Jelinek et al. 1977"),
    "perplexity_nats": _guide("The same surprise as a mean loss, each text counted once.", NOTHING, OURS),
    "perplexity_ratio": _guide("Perplexity over that of the model before: what a repair costs.", ("1", LOWER), OURS),
    "trex.exact_match": _guide("Facts that the model completes word for word.", ALL, "Elsahar et al. 2018"),
    "trex.answer_rank": _guide("Facts whose right answer is likelier than all others.", ALL, PETRONI),
    "trex.mean_reciprocal_rank": _guide("One over the rank of the right answer, mean over facts.", ONE, PETRONI),
    "lm_eval": _guide("A task of the harness, as that computes it.", ("the task says", "as the task says"), "lm-evaluation-harness"),
    "effect.rank_correlation": _guide("Whether removals predicted to do more did more.", ONE, OURS),
    # detection, against known labels
    "detection.auroc": _guide("How often a biased example ranks above one that is not, by known labels.", ONE, "Hanley and McNeil 1982"),
    "detection.coverage": _guide("Biased examples within the cut, of all biased ones, by known labels.", ONE, f"{PAPER}, Eq. 9"),
    "detection.precision": _guide("Biased examples within the cut, of all within the cut, by known labels.", ONE, f"{PAPER}, Eq. 10"),
    # review
    "coverage": _guide("Biased examples within the cut, of all biased ones.", ONE, f"{PAPER}, Eq. 9; {ESTIMATED}"),
    "precision": _guide("Biased examples within the cut, of all within the cut.", ONE, f"{PAPER}, Eq. 10; {ESTIMATED}"),
    "biased_examples": _guide("Biased examples in the ranking, found and not found.", OPEN, ESTIMATED),
    "biased_left": _guide("Biased examples that nobody has inspected yet.", NOTHING, ESTIMATED),
    "share_found": _guide("Biased examples that were inspected, of all biased ones.", ONE, ESTIMATED),
    "expected_found": _guide("Biased examples that the next reviews would find.", OPEN, ESTIMATED),
    "krippendorff_alpha": _guide("Agreement of all auditors beyond what chance gives.", ONE, "Krippendorff 2011"),
    "cohen_kappa": _guide("Agreement of two auditors beyond what chance gives.", ONE, "Cohen 1960"),
    # probing set
    "probes.copied_corpus": _guide("Probes that stand in the corpus word for word.", NO_PERCENT, OURS),
    "probes.copied_evaluation": _guide("Probes that stand in the evaluation word for word.", NO_PERCENT, OURS),
    "probes.shared_corpus": _guide("Probes that share a run of words with the corpus.", NO_PERCENT, OURS),
    "probes.shared_evaluation": _guide("Probes that share a run of words with the evaluation.", NO_PERCENT, OURS),
    "probes.near_corpus": _guide("Probes with a paraphrase in the corpus.", NO_PERCENT, OURS),
    "probes.near_evaluation": _guide("Probes with a paraphrase in the evaluation.", NO_PERCENT, OURS),
    "probes.style_auroc": _guide("How well words alone tell probes from the corpus.", TOSS, OURS),
    "probes.length_auroc": _guide("How well length alone tells probes from the corpus.", TOSS, OURS),
    "probes.one_change": _guide("Twins that differ from their probe in one place.", ALL, OURS),
    "probes.types_present": _guide("Bias types with a probe.", ("all of them", HIGHER), OURS),
    "probes.imbalance": _guide("Probes of the largest bias type over those of the smallest.", ("1", LOWER), OURS),
    "probes.coherence": _guide("Mean cosine between gradients of probes of one bias type.", ("above that across types", HIGHER), OURS),
    "probes.coherence_across": _guide(
        "Mean cosine between gradients of probes of different bias types.", ("below that within a type", LOWER), OURS
    ),
    "probes.coherence_gap": _guide("Coherence within bias types less that across them.", ("above 0", HIGHER), OURS),
    "probes.margin": _guide(
        "How much the model prefers a probe to its twin.", ("above 0, so that there is something to trace", HIGHER), OURS
    ),
    "probes.least_size": _guide("Probes from which on the ranking hardly changes.", ("fewer than there are", LOWER), OURS),
    "probes.correlation": _guide("Correlation of the ranking from so many random probes with that from all.", ONE, "Spearman 1904"),
    # the strip on Explore
    "examples": _guide("Training examples with a rank.", OPEN, OURS),
    "candidates": _guide("Examples within the cut: the top of the ranking that is looked at.", OPEN, PAPER),
    "decided": _guide("Examples with a verdict that holds, inspected or in bulk.", ("all candidates inspected", HIGHER), OURS),
    "style_alarm": _guide("Whether length or single words rank the known labels as well as influence.", ("quiet", "quiet is better"), OURS),
}


def guide_key(metric: str) -> str:
    """The table's name of a metric: `crows_pairs.stereotype_score` for `crows_pairs.sum.stereotype_score.age`. Raises KeyError for none."""
    family, *parts = metric.split(".")
    key = next((f"{family}.{part}" for part in parts if f"{family}.{part}" in GUIDES), family)
    if key not in GUIDES:
        raise KeyError(f"{metric} has no entry in biasdiff_core.guide.")
    return key


def guide_of(metric: str) -> Guide:
    """What is said of a metric, by its name. Raises KeyError for a name without an entry."""
    return GUIDES[guide_key(metric)]


def guides(metrics: Iterable[str]) -> dict[str, Guide]:
    """What is said of each of these, once, under a name for people; in their order."""
    return {_title(key): GUIDES[key] for key in dict.fromkeys(map(guide_key, metrics))}


def _title(key: str) -> str:
    """`CrowS-Pairs: stereotype score`."""
    family, _, figure = key.partition(".")
    name = FIGURES.get(figure or family, (figure or family).replace("_", " "))
    return f"{FAMILIES.get(family, family)}: {name}" if figure else FAMILIES.get(family, name)
