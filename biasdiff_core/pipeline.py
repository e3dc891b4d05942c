"""Carry a plan out: each stage once, in order, into its own immutable folder; what is there already is used as it is."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.attribution import baselines
from biasdiff_core.attribution.collect import collect_gradients
from biasdiff_core.attribution.index import INDEX_FILE, build_index, nearest
from biasdiff_core.attribution.influence import CheckpointStores, exact_cosines, null_scores, projected_cosines, score_column
from biasdiff_core.attribution.map2d import coordinates
from biasdiff_core.attribution.ranking import rank
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.config.mitigation import Method
from biasdiff_core.corpus.examples import Corpus, ProbeSet
from biasdiff_core.corpus.probes import leakage, read_probes
from biasdiff_core.corpus.read import read_corpus
from biasdiff_core.corpus.table import read_corpus_table, read_probes_table, write_corpus, write_probes
from biasdiff_core.errors import NumericError
from biasdiff_core.evaluation import crows_pairs, perplexity
from biasdiff_core.evaluation.detection import detection_metrics
from biasdiff_core.mitigation.controls import random_removal
from biasdiff_core.mitigation.npo import unlearn
from biasdiff_core.mitigation.retrain import retrain_without
from biasdiff_core.model.checkpoint import OPTIMIZER_FILE, Checkpoint, import_checkpoint, list_checkpoints
from biasdiff_core.model.finetune import finetune
from biasdiff_core.model.load import LoadedModel, load_model
from biasdiff_core.model.lora import ADAPTER_FILE, attach_adapter, detach_adapter
from biasdiff_core.model.tokenise import count_tokens, truncate_text
from biasdiff_core.plan import Plan, PlannedStage, plan, repair_plan
from biasdiff_core.report import BASE, ORIGIN, write_report
from biasdiff_core.results import Progress, ProgressCallback, no_progress
from biasdiff_core.review.removal import load_removal
from biasdiff_core.workspace.artefacts import Artefact, Draft, digest_file, open_artefact, publish, write_atomic
from biasdiff_core.workspace.audits import AuditFolder

log = logging.getLogger(__name__)

NULL_DRAWS = 20
ADAPTER_FOLDER = "adapter"


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
        probes, notes = read_probes(self.config.probes)
        pairs = crows_pairs.load_pairs(self.config.evaluation.crows_pairs)
        evaluation_texts = [text for pair in pairs for text in (pair.sent_more, pair.sent_less)]
        write_probes(probes, draft.folder / "probes.parquet")
        _write_json(draft.folder / "report.json", {"notes": notes, "leakage": leakage(probes, self.corpus, evaluation_texts).to_json()})
        draft.facts |= {"probes": len(probes), "twins": probes.has_twins, "bias_types": list(probes.bias_types)}

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
        chosen = self._checkpoints()
        collect_gradients(self.loaded, self.corpus, self.probes, chosen, self.config.gradients, draft.folder, self.progress)
        sentences = len(self.corpus) + len(self.probes) * (2 if self.probes.has_twins else 1)
        draft.facts |= {"checkpoints": [c.folder.name for c in chosen], "work": sentences * len(chosen)}

    def _checkpoints(self) -> list[Checkpoint]:
        every = list_checkpoints(self._open("warmup").folder)
        return every if self.config.gradients.checkpoints == "all" else every[-1:]

    def _stores(self) -> list[CheckpointStores]:
        folder, chosen = self._open("gradients").folder, self._checkpoints()
        rates = [checkpoint.learning_rate for checkpoint in chosen]
        stores = []
        for checkpoint, rate in zip(chosen, rates, strict=True):
            place = folder / checkpoint.folder.name
            twins = GradientStore.open(place / "twins") if self.probes.has_twins else None
            train = GradientStore.open(place / "train", expect={"model": self.loaded_digest, "step": checkpoint.step})
            # Eq. 5 weighs by η̄_t; divided by their sum the scores stay cosines and the ranking is the same.
            weight = rate / sum(rates)
            stores.append(CheckpointStores(weight=weight, train=train, probes=GradientStore.open(place / "probes"), twins=twins))
        return stores

    @property
    def loaded_digest(self) -> str:
        return plan(self.audit)["corpus"].inputs["model"]

    def _scores(self, draft: Draft, stage: PlannedStage) -> None:
        stores, types = self._stores(), [probe.bias_type for probe in self.probes]
        counts = {kind: types.count(kind) for kind in sorted(set(types))}
        exact, projected = exact_cosines(stores, counts), projected_cosines(stores, types)
        cosines = exact if self.config.scores.source == "exact" else projected
        last = stores[-1].train
        texts = [example.text for example in self.corpus]
        table = pd.DataFrame({"id": self.corpus.ids, "score": score_column(cosines, self.config.scores.kind)})
        table["mean"] = score_column(cosines, "mean")
        if self.probes.has_twins:
            table["contrast"] = score_column(cosines, "contrast")
        table = table.join(cosines.filter(regex="^(mean|twin_mean):")).assign(
            loss=last.rows["loss"],
            tokens=last.rows["tokens"],
            random=baselines.random_scores(len(texts), seed=0),
            length=baselines.length_scores(texts),
            unigram=baselines.unigram_log_ratio(texts, [probe.text for probe in self.probes]),
        )
        table.to_parquet(draft.folder / "scores.parquet", index=False, compression="zstd")
        self._top_probes(stores[-1]).to_parquet(draft.folder / "top_probes.parquet", index=False, compression="zstd")
        null = null_scores(last, stores[-1].probes, draws=NULL_DRAWS, seed=0)
        both = pd.DataFrame({"exact": exact["mean"], "projected": projected["mean"]}).dropna()
        draft.facts |= {
            "scored": int(table["score"].notna().sum()),
            "exact_projected_r": float(np.corrcoef(both.to_numpy().T)[0, 1]) if len(both) > 2 else None,
            "null_quantiles": {str(q): float(np.quantile(null, q)) for q in (0.5, 0.9, 0.95, 0.99)},
        }

    def _top_probes(self, stores: CheckpointStores) -> pd.DataFrame:
        """For every example its nearest probes by the projected cosine at the last checkpoint."""
        done = stores.train.done
        cosines, rows = nearest(stores.probes.vectors(), stores.train.vectors()[done], self.config.scores.top_probes)
        ids = np.array(stores.probes.ids)
        k = rows.shape[1]
        return pd.DataFrame(
            {
                "id": np.repeat(np.array(stores.train.ids)[done], k),
                "place": np.tile(np.arange(1, k + 1), len(rows)),
                "probe": ids[rows.ravel()],
                "cosine": cosines.ravel(),
            }
        )

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
        build_index(self._stores()[-1].train.vectors(), draft.folder / INDEX_FILE)

    def _map2d(self, draft: Draft, stage: PlannedStage) -> None:
        store = self._stores()[-1].train
        xy = coordinates(store.vectors()[store.done], seed=stage.config["seed"])
        ids = np.array(store.ids)[store.done]
        pd.DataFrame({"id": ids, "x": xy[:, 0], "y": xy[:, 1]}).to_parquet(draft.folder / "map2d.parquet", index=False, compression="zstd")

    def _mitigation(self, draft: Draft, stage: PlannedStage) -> None:
        method: Method = stage.config["method"]
        removal = load_removal(open_artefact(self.audit.path, "removal", stage.inputs["removal"]))
        training = self.config.warmup.training
        if method == "npo":
            npo = self.config.mitigation.npo
            retain = self.corpus.without(removal.ids)
            forget = [example for example in self.corpus if example.id in set(removal.ids)]
            unlearn(self.loaded, self._origin(), forget, retain, npo, draft.folder, progress=self.progress)
            work = 2 * len(forget) * npo.training.epochs
        else:
            ids = list(removal.ids)
            if method == "random":
                ids = random_removal(self.corpus.ids, len(removal.ids), self.config.mitigation.random_seed)
                _write_json(draft.folder / "removed.json", ids)
            retrain_without(self.loaded, self.corpus, ids, self.config.lora, training, draft.folder, stage=method, progress=self.progress)
            work = (len(self.corpus) - len(ids)) * training.epochs
        _keep_last_adapter(draft.folder)
        draft.facts |= {"removed": len(removal.ids), "work": work}

    def _evaluation(self, draft: Draft, stage: PlannedStage) -> None:
        evaluation = self.config.evaluation
        model = self.loaded.model if stage.variant == BASE else attach_adapter(self.loaded.model, self._adapter(stage))
        tokenizer = self.loaded.tokenizer
        pairs = crows_pairs.load_pairs(evaluation.crows_pairs)
        settings: dict[str, Any] = {"token_budget": evaluation.token_budget, "progress": self._titled(stage)}
        draws: dict[str, Any] = {"bootstrap": evaluation.bootstrap, "seed": evaluation.seed}
        scores = crows_pairs.score_pairs(model, tokenizer, pairs, evaluation.crows_pairs.scorings, **settings)
        scores.save(draft.folder / "crows_pairs.parquet")
        texts = perplexity.load_texts(evaluation.perplexity)
        perplexity.refuse_training_rows(texts, [example.text for example in self.corpus])
        held_out, per_text = perplexity.perplexity(model, tokenizer, texts, **settings, **draws)
        pd.DataFrame({"nll": per_text.nll, "tokens": per_text.tokens}).to_parquet(draft.folder / "perplexity.parquet", index=False)
        metrics = [m for s in evaluation.crows_pairs.scorings for m in crows_pairs.figures(scores, s, **draws)] + [held_out]
        _write_json(draft.folder / "metrics.json", [metric.to_json() for metric in metrics])
        draft.facts |= {"weights": self._weights_digest(stage), "work": len(pairs) * len(evaluation.crows_pairs.scorings)}
        if stage.variant != BASE:
            detach_adapter(model)

    def _titled(self, stage: PlannedStage) -> ProgressCallback:
        def report(step: Progress) -> None:
            self.progress(Progress(stage="evaluation", done=step.done, total=step.total, unit=step.unit, message=stage.title))

        return report

    def _adapter(self, stage: PlannedStage) -> Path:
        if stage.variant == ORIGIN:
            return self._origin()
        return open_artefact(self.audit.path, "mitigation", stage.inputs["adapter"]).path(f"{ADAPTER_FOLDER}/{ADAPTER_FILE}").parent

    def _origin(self) -> Path:
        """Folder of the warmed-up model's adapter. Raises ArtefactError when its weights are archived."""
        warmup = self._open("warmup")
        return warmup.path(f"{list_checkpoints(warmup.folder)[-1].folder.name}/{ADAPTER_FILE}").parent

    def _weights_digest(self, stage: PlannedStage) -> str:
        """Identity of the evaluated weights: equal digests mean that nothing was changed, and are not compared."""
        return self.loaded.source.digest if stage.variant == BASE else digest_file(self._adapter(stage) / ADAPTER_FILE)

    def _report(self, draft: Draft, stage: PlannedStage) -> None:
        write_report(self.audit, stage.inputs, draft.folder)


def _keep_last_adapter(folder: Path) -> None:
    """Of a mitigation only the final adapter and the step log are kept; optimizer states served resuming.

    Each folder leaves the list of checkpoints by one rename, the last one first: killed in between, training resumes to the same end.
    """
    *earlier, last = list_checkpoints(folder)
    target = folder / ADAPTER_FOLDER
    shutil.rmtree(target, ignore_errors=True)
    last.folder.rename(target)
    (target / OPTIMIZER_FILE).unlink()
    for checkpoint in earlier:
        cleared = checkpoint.folder.with_name(checkpoint.folder.name + ".tmp")
        checkpoint.folder.rename(cleared)
        shutil.rmtree(cleared)


def _write_json(path: Path, record: Any) -> None:
    write_atomic(path, json.dumps(record, indent=1, ensure_ascii=False))
