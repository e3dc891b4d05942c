"""Carry a plan out: each stage once, in order, into its own immutable folder; what is there already is used as it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.attribution import baselines
from biasdiff_core.attribution.collect import collect_gradients, collect_sentence, corpus_digest, optimizer_state
from biasdiff_core.attribution.index import INDEX_FILE, LARGE, build_index
from biasdiff_core.attribution.influence import (
    NULL_FILE,
    NULL_SHARES,
    CheckpointStores,
    exact_cosines,
    null_scores,
    projected_cosines,
)
from biasdiff_core.attribution.map2d import coordinates
from biasdiff_core.attribution.nearness import NEARNESS_FILE, nearness
from biasdiff_core.attribution.ranking import rank, selected_count
from biasdiff_core.attribution.score_table import score_table
from biasdiff_core.attribution.search import top_probes
from biasdiff_core.attribution.self_check import self_check
from biasdiff_core.attribution.token_influence import token_table
from biasdiff_core.comparison import BASE
from biasdiff_core.config import StopConfig
from biasdiff_core.config.mitigation import DEV_PROBES, UNLEARNINGS, Method, Unlearning
from biasdiff_core.corpus.examples import Corpus, ProbeSet
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.corpus.table import read_corpus_table, read_probes_table, write_corpus, write_probes
from biasdiff_core.cost import unlearning_passes
from biasdiff_core.effect import REMOVED_FILE, removed_ids
from biasdiff_core.errors import DataError, NumericError
from biasdiff_core.evaluation.detection import detection_metrics
from biasdiff_core.evaluation.stereoset import dev_pairs
from biasdiff_core.evaluation.suites import Subject, evaluate
from biasdiff_core.evaluation.texts import scored_texts
from biasdiff_core.mitigation.adapter import ADAPTER_FOLDER, CARD_FILE, ModelCard, export_merged, keep_adapter
from biasdiff_core.mitigation.controls import oracle_removal, random_removal, swap_removal
from biasdiff_core.mitigation.retrain import retrain_without
from biasdiff_core.mitigation.stopping import Pair
from biasdiff_core.mitigation.unlearn import Material, unlearn
from biasdiff_core.model.checkpoint import Checkpoint, import_checkpoint, list_checkpoints
from biasdiff_core.model.finetune import finetune
from biasdiff_core.model.load import LoadedModel, load_model
from biasdiff_core.model.lora import ADAPTER_FILE, attach_adapter, detach_adapter
from biasdiff_core.model.tokenise import count_tokens, truncate_text
from biasdiff_core.plan import (
    NO_ADAPTER,
    TOKENS_FILE,
    Plan,
    PlannedStage,
    nearness_stage,
    plan,
    repair_plan,
    search_stage,
    tokens_stage,
)
from biasdiff_core.report import write_report
from biasdiff_core.results import Progress, ProgressCallback, no_progress
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import Artefact, Draft, digest_file, digest_json, open_artefact, publish, write_atomic
from biasdiff_core.workspace.audits import AuditFolder

log = logging.getLogger(__name__)

NULL_DRAWS = 20


class Pipeline:
    """The stages of one audit. The model is loaded when the first stage needs it, and kept."""

    def __init__(self, audit: AuditFolder, progress: ProgressCallback = no_progress) -> None:
        self.audit = audit
        self.config = audit.config
        self.progress = progress

    def analyse(self, until: str | None = None) -> Plan:
        """Everything up to the ranking, the map, and base and origin evaluated; or only up to the stage `until`. Returns the plan."""
        stages: dict[str, Callable[[Draft, PlannedStage], None]] = {
            "corpus": self._corpus,
            "probes": self._probes,
            "warmup": self._warmup,
            "gradients": self._gradients,
            "scores": self._scores,
            "ranking": self._ranking,
            "index": self._index,
            "map2d": self._map2d,
            "evaluation": self._evaluation,
        }
        for stage in plan(self.audit).stages:
            self._carry_out(stage, stages[stage.stage])
            if stage.stage == until:
                break
        return plan(self.audit)

    def mitigate(self, removal: Artefact, methods: Sequence[Method]) -> Plan:
        """Each method on the frozen removal set, its evaluation, and the report. The analysis must be finished."""
        stages = {"mitigation": self._mitigation, "evaluation": self._evaluation, "report": self._report}
        for stage in repair_plan(self.audit, removal.key, methods).stages:
            self._carry_out(stage, stages[stage.stage])
        return repair_plan(self.audit, removal.key, methods)

    def compare_meanings(self) -> None:
        """How near the probes are in meaning to corpus and evaluation, unless it is done. Raises MissingDependency without the encoder."""
        stage = nearness_stage(self.audit)
        if not stage.done:
            self._carry_out(stage, partial(self._nearness, baselines.minilm_folder()))

    def shade_tokens(self) -> None:
        """Loss and influence of each token of the candidates, unless it is done. Raises ArtefactError without ranking or weights."""
        stage = tokens_stage(self.audit)
        if not stage.done:
            self._carry_out(stage, self._tokens)

    def search(self, text: str) -> None:
        """The gradient of a sentence of one's own, unless it is there. Raises ArtefactError without vectors or weights, DataError."""
        stage = search_stage(self.audit, text)
        if not stage.done:
            self._carry_out(stage, self._search)

    def _carry_out(self, stage: PlannedStage, work: Callable[[Draft, PlannedStage], None]) -> None:
        if stage.done:
            return
        self.progress(Progress(stage=stage.stage, done=0, total=1, message=stage.title))
        resumable = stage.stage in ("warmup", "gradients", "mitigation")
        with publish(self.audit.path, stage.stage, stage.config, stage.inputs, resumable=resumable) as draft:
            work(draft, stage)
            if stage.variant:
                draft.facts["variant"] = stage.variant

    @cached_property
    def loaded(self) -> LoadedModel:
        return load_model(self.config.model, self.audit.workspace)

    @cached_property
    def corpus(self) -> Corpus:
        return read_corpus_table(self._open("corpus").path("corpus.parquet"))

    @cached_property
    def probes(self) -> ProbeSet:
        return read_probes_table(self._open("probes").path("probes.parquet"))

    def _open(self, name: str) -> Artefact:
        stage = plan(self.audit)[name]
        return open_artefact(self.audit.path, stage.stage, stage.key)

    def _corpus(self, draft: Draft, stage: PlannedStage) -> None:
        tokenizer = self.loaded.tokenizer
        result = read_corpus(
            self.config.corpus, count_tokens=partial(count_tokens, tokenizer), truncate_text=partial(truncate_text, tokenizer)
        )
        write_corpus(result.corpus, draft.folder / "corpus.parquet")
        _write_json(draft.folder / "report.json", result.report.to_json())
        draft.facts |= {"examples": len(result.corpus), "labelled": result.corpus.labels is not None}

    def _probes(self, draft: Draft, stage: PlannedStage) -> None:
        scored_texts(self.config.evaluation)  # a faulty file is refused here, not after hours of gradients
        probes, notes = read_probes(self.config.probes)
        if self.config.scores.kind == "contrast" and not probes.has_twins:  # likewise
            raise DataError(
                "scores.kind is 'contrast', but not every probe has a twin.", "Name the twin column, fill it, or set it to mean."
            )
        write_probes(probes, draft.folder / "probes.parquet")
        _write_json(draft.folder / "report.json", {"notes": notes})
        draft.facts |= {"probes": len(probes), "twins": probes.has_twins, "bias_types": list(probes.bias_types)}

    def _nearness(self, encoder: Path, draft: Draft, stage: PlannedStage) -> None:
        embed = partial(baselines.sentence_embeddings, encoder, progress=self.progress)
        table = nearness(self.probes, self.corpus, scored_texts(self.config.evaluation), embed)
        table.to_parquet(draft.folder / NEARNESS_FILE, index=False, compression="zstd")

    def _tokens(self, draft: Draft, stage: PlannedStage) -> None:
        ranking = pd.read_parquet(self._open("ranking").path("ranking.parquet"))["id"]
        ids = ranking[: min(stage.config["limit"], selected_count(len(ranking), stage.config["percent"]))].tolist()
        config, checkpoint = self.config.gradients, self._checkpoints()[-1]

        def report(done: int) -> None:
            self.progress(Progress(stage="tokens", done=done, total=len(ids), unit="examples", message=stage.title))

        with self.variant(self._open("warmup").key) as model:
            state = optimizer_state(checkpoint, model, config.maps.train, config.maps.probe)
            table = token_table(model, self.loaded.tokenizer, self.corpus, ids, self.probes, state, config, report)
        table.to_parquet(draft.folder / TOKENS_FILE, index=False, compression="zstd")
        draft.facts |= {"examples": len(ids), "checkpoint": checkpoint.folder.name}

    def _search(self, draft: Draft, stage: PlannedStage) -> None:
        stores, checkpoint = self.stores()[-1], self._checkpoints()[-1]
        _ = stores.train.dim  # what is archived is said before the model is loaded
        self._origin()
        with self.variant(self._open("warmup").key) as model:
            collect_sentence(self.loaded, model, stage.config["text"], checkpoint, self.config.gradients, stores.probes, draft.folder)

    def _warmup(self, draft: Draft, stage: PlannedStage) -> None:
        warmup, adapter = self.config.warmup, self.config.model.adapter
        if adapter:
            import_checkpoint(self.loaded.model, Path(adapter), self.config.lora, draft.folder)
            draft.facts["adapter"] = adapter
            return
        examples = list(self.corpus)
        if warmup.scope == "few":
            count = max(2, round(warmup.few_fraction * len(examples)))
            chosen = set(random_removal(self.corpus.ids, count, warmup.training.seed))
            examples = [example for example in examples if example.id in chosen]
        finetune(self.loaded, examples, self.config.lora, warmup.training, draft.folder, stage="warmup", progress=self.progress)
        draft.facts |= {"examples": len(examples), "work": len(examples) * warmup.training.epochs}

    def _gradients(self, draft: Draft, stage: PlannedStage) -> None:
        chosen, model = self._checkpoints(), self.config.model
        if model.dtype != "float32":
            draft.facts["self_check"] = self_check(self.loaded, model, self.audit.workspace, self.corpus, chosen[-1])
        collect_gradients(self.loaded, self.corpus, self.probes, chosen, self.config.gradients, draft.folder, self.progress)
        pool = min(self.config.gradients.pool_size, len(self.corpus))
        sentences = len(self.corpus) + len(self.probes) * (2 if self.probes.has_twins else 1) + pool
        draft.facts |= {"checkpoints": [c.folder.name for c in chosen], "work": sentences * len(chosen)}

    def _checkpoints(self) -> list[Checkpoint]:
        every = list_checkpoints(self._open("warmup").folder)
        return every if self.config.gradients.checkpoints == "all" else every[-1:]

    def stores(self) -> list[CheckpointStores]:
        """The gradient stores of every chosen checkpoint with their weights, opened for reading; the gradients must be taken."""
        folder, chosen = self._open("gradients").folder, self._checkpoints()
        rates = [checkpoint.learning_rate for checkpoint in chosen]
        rows, stores = corpus_digest(self.corpus), []
        for checkpoint, rate in zip(chosen, rates, strict=True):
            # Eq. 5 weighs by η̄_t; divided by their sum the scores stay cosines and the ranking is the same.
            weight = rate / sum(rates)
            expect = {"model": self.loaded_digest, "step": checkpoint.step, "rows": rows}
            stores.append(CheckpointStores.open(folder / checkpoint.folder.name, weight, expect))
        return stores

    @property
    def loaded_digest(self) -> str:
        return plan(self.audit)["corpus"].inputs["model"]

    def _scores(self, draft: Draft, stage: PlannedStage) -> None:
        stores, types = self.stores(), [probe.bias_type for probe in self.probes]
        counts = {kind: types.count(kind) for kind in sorted(set(types))}
        exact, projected = exact_cosines(stores, counts), projected_cosines(stores, types)
        cosines = exact if self.config.scores.source == "exact" else projected
        last, depths = stores[-1], self.config.gradients.hidden_depths
        table = score_table(self.corpus, self.probes, cosines, self.config.scores.kind, last, depths)
        table.to_parquet(draft.folder / "scores.parquet", index=False, compression="zstd")
        nearest = top_probes(last.train, last.probes, self.config.scores.top_probes, last.twins)
        nearest.to_parquet(draft.folder / "top_probes.parquet", index=False, compression="zstd")
        null = null_scores(stores, self.config.scores.kind, draws=NULL_DRAWS, seed=0)
        quantiles = pd.DataFrame({"share": NULL_SHARES, "score": np.quantile(null, NULL_SHARES)})
        quantiles.to_parquet(draft.folder / NULL_FILE, index=False, compression="zstd")
        both = pd.DataFrame({"exact": exact["mean"], "projected": projected["mean"]}).dropna()
        draft.facts |= {
            "scored": int(table["score"].notna().sum()),
            "exact_projected_r": float(np.corrcoef(both.to_numpy().T)[0, 1]) if len(both) > 2 else None,
        }

    def _ranking(self, draft: Draft, stage: PlannedStage) -> None:
        scores = pd.read_parquet(self._open("scores").path("scores.parquet"))
        if scores["score"].isna().all():
            raise NumericError("No example has an influence score.", "The corpus has no token to predict.")
        ranking = rank(scores["id"].tolist(), scores["score"].to_numpy())
        ranking.to_parquet(draft.folder / "ranking.parquet", index=False, compression="zstd")
        draft.facts["ranked"] = len(ranking)
        if self.corpus.labels is not None and 0 < sum(self.corpus.labels) < len(self.corpus):
            metrics = detection_metrics(scores, self.corpus, self.config.removal.percent)
            _write_json(draft.folder / "detection.json", [metric.to_json() for metric in metrics])

    def _index(self, draft: Draft, stage: PlannedStage) -> None:
        store = self.stores()[-1].train
        if store.done.sum() < LARGE:
            draft.facts["kind"] = "none"
            return
        build_index(store, draft.folder / INDEX_FILE, "ivf_pq")
        draft.facts["kind"] = "ivf_pq"

    def _map2d(self, draft: Draft, stage: PlannedStage) -> None:
        store = self.stores()[-1].train
        xy = coordinates(store.vectors()[store.done], seed=stage.config["seed"], progress=self.progress)
        ids = np.array(store.ids)[store.done]
        pd.DataFrame({"id": ids, "x": xy[:, 0], "y": xy[:, 1]}).to_parquet(draft.folder / "map2d.parquet", index=False, compression="zstd")

    def _mitigation(self, draft: Draft, stage: PlannedStage) -> None:
        method: Method = stage.config["method"]
        removed = self._removed(method, stage)
        if method in UNLEARNINGS:
            adapter = self._unlearn(draft, method, removed)
        else:
            if method != "retrain":
                _write_json(draft.folder / REMOVED_FILE, removed)
            lora, training = self.config.lora, self.config.warmup.training
            checkpoints = retrain_without(
                self.loaded, self.corpus, removed, lora, training, draft.folder, stage=method, progress=self.progress
            )
            adapter = checkpoints[-1].folder
            draft.facts["work"] = (len(self.corpus) - len(removed)) * training.epochs
        kept = keep_adapter(draft.folder, adapter)
        write_atomic(kept / CARD_FILE, self._card(stage.variant or method, stage.config, stage.inputs, removed).text(merged=False))
        draft.facts["removed"] = len(removed)

    def _removed(self, method: Method, stage: PlannedStage) -> list[str]:
        """Ids that the method takes out or unlearns: those of the removal set, or what a control would have removed."""
        if method == "oracle":
            return oracle_removal(self.corpus)
        ids = list(load_removal(open_artefact(self.audit.path, "removal", stage.inputs["removal"])).ids)
        if method == "random":
            return random_removal(self.corpus.ids, len(ids), stage.config["seed"])
        if method in ("unigram", "length", "minilm"):
            return swap_removal(self.corpus, [probe.text for probe in self.probes], method, len(ids))
        return ids

    def _unlearn(self, draft: Draft, method: Unlearning, removed: Sequence[str]) -> Path:
        """Unlearn; the folder of the adapter to keep."""
        settings = self.config.mitigation.unlearning(method)
        gone = set(removed)
        forget = [example for example in self.corpus if example.id in gone]
        twins = [(probe.text, probe.twin) for probe in self.probes if probe.twin]
        material = Material(
            forget=forget,
            retain=self.corpus.without(gone),
            scores=self._influence([example.id for example in forget]) if settings.by_influence else (),
            twins=twins,
            dev=self._dev_pairs(settings.stop, twins, settings.training.seed) if settings.stop else (),
        )
        done = unlearn(self.loaded, self._origin(), method, material, settings, draft.folder, progress=self.progress)
        rows, together = (len(twins), 2) if method == "twin" else (len(forget), 1)
        draft.facts |= {"kept_epoch": done.epoch, "work": unlearning_passes(settings, rows, together)}
        if done.judged:
            draft.facts |= {"ended": done.judged[-1].ends or "all epochs", "dev": [row.to_json() for row in done.judged]}
        return done.adapter

    def _influence(self, ids: Sequence[str]) -> list[float]:
        scores = pd.read_parquet(self._open("scores").path("scores.parquet"), columns=["id", "score"]).set_index("id")["score"]
        return [float(score) for score in scores.loc[list(ids)]]

    def _dev_pairs(self, stop: StopConfig, twins: Sequence[Pair], seed: int) -> Sequence[Pair]:
        return twins if stop.dev == DEV_PROBES else dev_pairs(stop.dev, stop.pairs, seed)

    def _card(self, variant: str, config: Mapping[str, Any], inputs: Mapping[str, str], removed: Sequence[str] | None) -> ModelCard:
        """The card of a trained variant. `removed`: None for the origin, which nothing was taken out of."""
        base = self.loaded.source
        return ModelCard(
            audit=self.audit.id,
            variant=variant,
            base=base.name,
            base_digest=base.digest,
            corpus=self.config.corpus.path,
            corpus_digest=self._open("corpus").inputs["source"],
            settings=config,
            removed=None if removed is None else len(removed),
            digest="" if removed is None else digest_json(sorted(removed)),
            decided="" if removed is None else self._decided(config, inputs),
        )

    def _decided(self, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        """How the removed examples were chosen, in words."""
        method: Method = config["method"]
        if method == "oracle":
            return "all whose known label is 1"
        removal = load_removal(open_artefact(self.audit.path, "removal", inputs["removal"]))
        decided = len(removal.ids) - removal.undecided
        whose = "decisions simulated from the known labels" if removal.simulated else "decisions of people"
        on = f"{whose} on {decided} of the {len(removal.ids)}" if decided else f"no decision on any of the {len(removal.ids)}"
        chosen = f"policy `{removal.policy}`, {on}"
        same_size = f"as many as a removal set of {len(removal.ids)} ({chosen})"
        if method == "random":
            return f"drawn at random with seed {config['seed']}, {same_size}"
        return f"ranked first by {method}, {same_size}" if method in ("unigram", "length", "minilm") else chosen

    def export_model(self, variant: str, key: str, target: Path) -> None:
        """Write the variant whose adapter the stage result `key` holds as a whole model into the new folder `target`.

        The base model of this pipeline is merged with it: make another one for further work. Raises ArtefactError.
        """
        if key == self._open("warmup").key:
            trained, removed = self._open("warmup"), None
        else:
            trained = open_artefact(self.audit.path, "mitigation", key)
            removed = removed_ids(self.audit.path, trained)
        export_merged(self.loaded, self._adapter(key), self._card(variant, trained.config, trained.inputs, removed), target)

    def _evaluation(self, draft: Draft, stage: PlannedStage) -> None:
        instruction = stage.config["prompt"].text if "prompt" in stage.config else ""
        trained_on = [example.text for example in self.corpus]
        with self.variant(stage.inputs["adapter"]) as model:
            subject = Subject(model=model, tokenizer=self.loaded.tokenizer, instruction=instruction, trained_on=trained_on)
            found = evaluate(subject, self.config.evaluation, draft.folder, self._titled(stage))
        _write_json(draft.folder / "metrics.json", [metric.to_json() for metric in found.metrics])
        draft.facts |= {"weights": self._weights_digest(stage, instruction), "suites": found.times}

    @contextmanager
    def variant(self, key: str) -> Iterator[Any]:
        """The model with the adapter that the stage result `key` holds (the warm-up, a mitigation), or, for `none`, the base as it is."""
        if key == NO_ADAPTER:
            yield self.loaded.model
            return
        model = attach_adapter(self.loaded.model, self._adapter(key))
        try:
            yield model
        finally:
            detach_adapter(model)

    def _titled(self, stage: PlannedStage) -> ProgressCallback:
        def report(step: Progress) -> None:
            self.progress(Progress(stage="evaluation", done=step.done, total=step.total, unit=step.unit, message=stage.title))

        return report

    def _adapter(self, key: str) -> Path:
        """Folder of the adapter that a stage result holds: the warm-up's last one, or a mitigation's."""
        if key == self._open("warmup").key:
            return self._origin()
        return open_artefact(self.audit.path, "mitigation", key).path(f"{ADAPTER_FOLDER}/{ADAPTER_FILE}").parent

    def _origin(self) -> Path:
        """Folder of the warmed-up model's adapter. Raises ArtefactError when its weights are archived."""
        warmup = self._open("warmup")
        return warmup.path(f"{list_checkpoints(warmup.folder)[-1].folder.name}/{ADAPTER_FILE}").parent

    def _weights_digest(self, stage: PlannedStage, instruction: str) -> str:
        """Identity of what was judged, weights and instruction: equal digests mean that nothing was changed, and are not compared."""
        base = stage.variant == BASE
        weights = self.loaded.source.digest if base else digest_file(self._adapter(stage.inputs["adapter"]) / ADAPTER_FILE)
        return digest_json([weights, instruction]) if instruction else weights

    def _report(self, draft: Draft, stage: PlannedStage) -> None:
        write_report(self.audit, stage.inputs, draft.folder)


def _write_json(path: Path, record: Any) -> None:
    write_atomic(path, json.dumps(record, indent=1, ensure_ascii=False))
