"""The library's face: one audit from start to finish, as a notebook or a script would do it.

audit = Audit.create("my-audit", corpus="train.csv", probes="probes.csv", twin_column="twin")
audit.run()
audit.ranking().head()
audit.decide(example_id, "biased", auditor="ana", reason="stereotype about nurses")
audit.mitigate(("retrain", "npo")).tests
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from biasdiff_core.attribution.ranking import selected_count
from biasdiff_core.attribution.search import nearest_rows, similar_rows, vector_of
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.comparison import BASE, ORIGIN
from biasdiff_core.config import AuditConfig, RemovalConfig
from biasdiff_core.config.mitigation import Method
from biasdiff_core.config.paths import anchored
from biasdiff_core.config.presets import preset
from biasdiff_core.corpus.examples import Corpus, ProbeSet
from biasdiff_core.corpus.export import export_without
from biasdiff_core.corpus.probes import LeakageReport, leakage
from biasdiff_core.corpus.table import read_corpus_table, read_probes_table
from biasdiff_core.errors import DataError, ReviewError
from biasdiff_core.evaluation.texts import scored_texts
from biasdiff_core.evidence import last_stores, or_error, quality_of, train_index
from biasdiff_core.model.source import lora_settings
from biasdiff_core.plan import Plan, plan, removals, repair_plan, require_done, search_stage
from biasdiff_core.probe_report import ProbeQuality
from biasdiff_core.report import COMPARISON_FILE, HTML_FILE, MARKDOWN_FILE, NOT_VARIANTS, comparison_of
from biasdiff_core.results import Comparison, MetricResult, ProgressCallback, no_progress
from biasdiff_core.review.decisions import Action, DecisionLog, Verdict, regarded_head
from biasdiff_core.review.removal import RemovalSet, Selected, freeze, load_removal, removal_set, replay
from biasdiff_core.review.simulate import decide_from_labels
from biasdiff_core.workspace.artefacts import Artefact, open_artefact
from biasdiff_core.workspace.audits import AuditFolder, create_audit, default_workspace, find_audit
from biasdiff_core.workspace.database import database

if TYPE_CHECKING:  # it loads torch
    from biasdiff_core.attribution.tuning import Trial

UNTRAINED = (BASE, "prompt")  # variants without weights of their own


class Audit:
    """One audit of a workspace."""

    def __init__(self, folder: AuditFolder) -> None:
        self.folder = folder
        self.log = DecisionLog(database(folder.workspace), folder.id)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        corpus: str | None = None,
        probes: str | None = None,
        model: str | None = None,
        adapter: str | None = None,
        preset_name: str = "quick",
        workspace: Path | str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        twin_column: str | None = None,
        bias_type_column: str | None = None,
    ) -> Audit:
        """A new audit from a preset and what differs from it (for every other choice build an `AuditConfig`, see `from_config`).

        `adapter`: a peft adapter folder or a `transformers.Trainer` checkpoint of one; it takes the place of the warm-up.
        Raises ConfigError.
        """
        config = preset(preset_name, name)
        changes: dict[str, Any] = {
            "corpus": _changed(config.corpus, path=corpus, text_column=text_column, label_column=label_column),
            "probes": _changed(config.probes, path=probes, twin_column=twin_column, bias_type_column=bias_type_column),
            "model": _changed(config.model, name=model, adapter=adapter),
        }
        if adapter:
            changes["lora"] = lora_settings(Path(adapter))
        return cls.from_config(replace(config, **changes), workspace)

    @classmethod
    def from_config(cls, config: AuditConfig, workspace: Path | str | None = None) -> Audit:
        """The audit of these choices in `workspace` (default: `$BIASDIFF_WORKSPACE`, else ./biasdiff-workspace).

        Relative paths of what is there are made absolute, so that they mean the same wherever the audit is opened.
        """
        return cls(create_audit(Path(workspace).resolve() if workspace else default_workspace(), anchored(config)))

    @classmethod
    def open(cls, reference: str, workspace: Path | str | None = None) -> Audit:
        """An existing audit by id, name or folder. Raises ArtefactError."""
        return cls(find_audit(Path(workspace).resolve() if workspace else default_workspace(), reference))

    @property
    def config(self) -> AuditConfig:
        return self.folder.config

    def plan(self) -> Plan:
        """What is done and what is left of the analysis."""
        return plan(self.folder)

    def run(self, progress: ProgressCallback = no_progress, decisions: Path | None = None) -> Audit:
        """Analyse: warm-up to ranking, map, base and origin evaluated. Goes on where an earlier run stopped.

        With `decisions` (a frozen `decisions.jsonl`) or the simulated auditor configured, it goes on to the configured
        mitigations and the report, so that an audit.yaml replays the whole audit.
        """
        from biasdiff_core.pipeline import Pipeline

        pipeline = Pipeline(self.folder, progress)
        if decisions is not None:
            pipeline.analyse(until="corpus")
            self.replay(decisions)  # what is refused is refused before the work, not after it
        pipeline.analyse()
        if decisions is None and self.config.review.simulate_from_labels and not self.log.actions():
            labels = {example.id: example.label for example in self.corpus() if example.label is not None}
            decide_from_labels(self.log, labels, self.ranking()["id"].tolist(), self.config.removal.percent)
        if decisions is not None or self.config.review.simulate_from_labels:
            self.mitigate(self.config.mitigation.methods, progress=progress)
        return self

    def replay(self, decisions: Path) -> None:
        """Take over a frozen `decisions.jsonl`, unless the audit's log ends with it. Raises as `review.removal.replay`."""
        replay(self._log_of_corpus(), decisions)

    def tune(self, progress: ProgressCallback = no_progress) -> tuple[Audit, list[Trial]]:
        """The audit of the same choices with the dtype and token budget that take gradients quickest on this machine, and what was tried.

        Both enter keys, so they are settled before the first row. Raises NumericError where no setting is exact and fits.
        """
        from biasdiff_core.attribution.tuning import choose, measure
        from biasdiff_core.pipeline import Pipeline

        Pipeline(self.folder, progress).analyse(until="corpus")
        trials = measure(self.config.model, self.config.lora, self.corpus(), self.folder.workspace, progress)
        best = choose(trials)
        model = replace(self.config.model, dtype=best.dtype)
        gradients = replace(self.config.gradients, token_budget=best.token_budget)
        return Audit.from_config(replace(self.config, model=model, gradients=gradients), self.folder.workspace), trials

    def artefact(self, name: str) -> Artefact:
        """A finished result of the analysis, e.g. `ranking` or `evaluation:origin`. Raises ArtefactError."""
        return require_done(self.plan()[name], self.folder)

    def corpus(self) -> Corpus:
        """The corpus as it was read."""
        return read_corpus_table(self.artefact("corpus").path("corpus.parquet"))

    def probes(self) -> ProbeSet:
        """The probing set as it was read."""
        return read_probes_table(self.artefact("probes").path("probes.parquet"))

    def leakage(self) -> LeakageReport:
        """Where probes and twins stand in the corpus, and in the texts that the evaluation scores, as its files are now."""
        return leakage(self.probes(), self.corpus(), or_error(lambda: scored_texts(self.config.evaluation)))

    def probe_quality(self) -> ProbeQuality:
        """Figures and flags of the probing set, from what is there; a figure that lacks something says what (see `compare_meanings`)."""
        return quality_of(
            self.folder,
            corpus=self.artefact("corpus"),
            probes=self.artefact("probes"),
            gradients=or_error(lambda: self.artefact("gradients")),
            evaluation=self.plan()["evaluation"].inputs,
        )

    def compare_meanings(self, progress: ProgressCallback = no_progress) -> None:
        """Measure how near the probes are in meaning to corpus and evaluation, unless it is done. Raises MissingDependency."""
        from biasdiff_core.pipeline import Pipeline

        Pipeline(self.folder, progress).compare_meanings()

    def shade_tokens(self, progress: ProgressCallback = no_progress) -> None:
        """Measure loss and influence of each token of the candidates, unless it is done. Raises ArtefactError without the weights."""
        from biasdiff_core.pipeline import Pipeline

        Pipeline(self.folder, progress).shade_tokens()

    def search(self, text: str, k: int = 20, *, probes: bool = False, progress: ProgressCallback = no_progress) -> pd.DataFrame:
        """The training examples, or the probes, whose gradients are nearest to that of a sentence of one's own, taken as a probe's.

        Columns place, cosine, id, text, nearest first. The sentence's gradient is kept: a second search by it loads no model.
        Raises ArtefactError when vectors or weights are archived, DataError for a sentence without tokens.
        """
        stage = search_stage(self.folder, text)
        if not stage.done:
            from biasdiff_core.pipeline import Pipeline

            Pipeline(self.folder, progress).search(text)
        query = GradientStore.open(open_artefact(self.folder.path, stage.stage, stage.key).folder).vectors()
        stores = last_stores(self.artefact("gradients"))
        store = stores.probes if probes else stores.train
        cosines, rows = nearest_rows(store, query, k, None if probes else train_index(self.artefact("index")))
        return _found(_by_id(store, cosines[0], rows[0]), self.probes() if probes else self.corpus())

    def similar_examples(self, example_id: str, k: int = 20) -> pd.DataFrame:
        """The training examples whose gradients are nearest to another one's: columns as of `search`. Raises as `similar_to`."""
        return _found(self.similar_to(example_id, k), self.corpus())

    def similar_to(self, example_id: str, k: int) -> dict[str, float]:
        """The ids of the training examples whose gradients are nearest to another one's, with their cosines, nearest first.

        Raises DataError for an id that is not in the corpus or has no gradient, ArtefactError when the vectors are archived.
        """
        store = last_stores(self.artefact("gradients")).train
        return _by_id(store, *similar_rows(store, self._row(store, example_id), k, train_index(self.artefact("index"))))

    def nearest_probes(self, example_id: str, k: int = 20) -> pd.DataFrame:
        """The probes whose gradients are nearest to that of a training example: columns as of `search`. Raises as `similar_to`."""
        stores = last_stores(self.artefact("gradients"))
        query = vector_of(stores.train, self._row(stores.train, example_id))
        cosines, rows = nearest_rows(stores.probes, query, k)
        return _found(_by_id(stores.probes, cosines[0], rows[0]), self.probes())

    def _row(self, store: GradientStore, example_id: str) -> int:
        if example_id not in store.ids:
            raise DataError(f"{self.folder.id} has no example {example_id!r}.", f"Take an id of `biasdiff rank {self.folder.id}`.")
        return store.ids.index(example_id)

    def ranking(self) -> pd.DataFrame:
        """Columns rank, id, score, text, source, group, label, verdict; best first."""
        table = pd.read_parquet(self.artefact("ranking").path("ranking.parquet"))
        corpus = pd.read_parquet(self.artefact("corpus").path("corpus.parquet"))[["id", "text", "source", "group", "label"]]
        verdicts = {i: decision.verdict for i, decision in self.log.current().items()}
        return table.merge(corpus, on="id", how="left").assign(verdict=lambda t: t["id"].map(verdicts))

    def detection(self) -> list[MetricResult]:
        """How well influence and the baselines find known labels; empty where the corpus has none."""
        ranking = self.artefact("ranking")
        return [MetricResult.from_json(r) for r in ranking.read_json("detection.json")] if "detection.json" in ranking.files else []

    def decide(self, example_id: str, verdict: Verdict, auditor: str, reason: str = "") -> Action:
        """Record one inspected decision. Raises ReviewError."""
        return self._log_of_corpus().decide(example_id, verdict, auditor, reason)

    def import_decisions(self, file: Path, auditor: str) -> Action:
        """Record the decisions of a CSV or JSONL file as one action. Raises ReviewError, also for ids that are not in the corpus."""
        return self._log_of_corpus().import_(file, auditor)

    def _log_of_corpus(self) -> DecisionLog:
        """The log, refusing ids that are not in the corpus."""
        return DecisionLog(database(self.folder.workspace), self.folder.id, known_ids=self.corpus().ids)

    def decide_top(self, percent: float, verdict: Verdict, auditor: str, reason: str = "") -> Action:
        """One bulk action over the top `percent` % of the ranking (not inspected one by one). Raises ReviewError."""
        if not 0 < percent <= 100:
            raise ReviewError(f"The top {percent:g} % of a ranking is no selection.", "Give a percentage above 0, at most 100.")
        ids = self.ranking()["id"].tolist()
        chosen = ids[: selected_count(len(ids), percent)]
        return self.log.decide_many(chosen, verdict, auditor, reason, {"top_percent": percent})

    def removal_set(self, policy: RemovalConfig | None = None, selected: Selected | None = None) -> RemovalSet:
        """The removal set that follows from the decisions as they stand. `selected`: for the policy `filter`. Raises ReviewError."""
        ids = pd.read_parquet(self.artefact("ranking").path("ranking.parquet"), columns=["id"])["id"].tolist()
        return removal_set(policy or self.config.removal, ids, self.log.current(), regarded_head(self.log.actions()), selected)

    def freeze(self, policy: RemovalConfig | None = None, selected: Selected | None = None, *, auditor: str = "") -> Artefact:
        """Freeze the same; `auditor`: who does, for the record. Raises ReviewError when it is empty."""
        removal = self.removal_set(policy, selected)
        return freeze(self.folder.path, policy or self.config.removal, removal, self.artefact("ranking").key, self.log, auditor)

    def frozen(self, key: str) -> Artefact:
        """The frozen removal set of this key, of the present ranking. Raises ReviewError when there is none."""
        found = next((one for one in removals(self.folder) if one.key == key), None)
        if found is None:
            raise ReviewError(f"{self.folder.id} has no frozen removal set {key}.", "See the page Mitigate, or name a policy.")
        return found

    def mitigate(
        self,
        methods: Sequence[Method] = ("retrain", "npo"),
        removal: RemovalConfig | Artefact | None = None,
        progress: ProgressCallback = no_progress,
    ) -> Comparison:
        """Carry out each method on the removal set, evaluate, and write the report: its comparison.

        `removal`: a frozen set, or how to freeze one.
        """
        from biasdiff_core.pipeline import Pipeline

        frozen = removal if isinstance(removal, Artefact) else self.freeze(removal)
        Pipeline(self.folder, progress).mitigate(frozen, methods)
        return comparison_of(self.report_of(frozen, methods))

    def report_of(self, removal: Artefact, methods: Sequence[Method]) -> Artefact:
        """The report of these methods on this frozen removal set. Raises ArtefactError when it is not done."""
        return require_done(self.repair_plan(removal, methods)["report"], self.folder)

    def reports(self) -> list[Artefact]:
        """Finished reports of the present ranking, newest first."""
        keys = {removal.key for removal in removals(self.folder)}
        found = [
            open_artefact(self.folder.path, "report", p.parent.name) for p in self.folder.manifests() if p.parent.parent.name == "report"
        ]
        return sorted((r for r in found if r.inputs["removal"] in keys), key=lambda r: r.created, reverse=True)

    def report(self) -> Artefact:
        """The newest report. Raises ReviewError when nothing was mitigated yet."""
        reports = self.reports()
        if not reports:
            raise ReviewError(f"Nothing was mitigated yet in {self.folder.id}.", f"Run `biasdiff mitigate {self.folder.id}`.")
        return reports[0]

    def compare(self) -> Comparison:
        """The newest comparison of variants."""
        return comparison_of(self.report())

    def report_files(self) -> list[Path]:
        """The newest report's documents: HTML, Markdown, JSON."""
        return [self.report().path(name) for name in (HTML_FILE, MARKDOWN_FILE, COMPARISON_FILE)]

    def export_cleaned(self, target: Path) -> int:
        """Write the corpus without the newest frozen removal set, in its original format and columns; rows written."""
        frozen = removals(self.folder)
        if not frozen:
            raise ReviewError(f"No removal set is frozen in {self.folder.id}.", f"Run `biasdiff mitigate {self.folder.id}`.")
        return export_without(self.config.corpus, load_removal(frozen[0]).ids, target)

    def export_model(self, variant: str, folder: Path) -> None:
        """Write a variant's whole model, adapter merged in, into a new folder that plain `transformers` loads, with a model card.

        `variant`: `origin`, or one that was mitigated (of the newest report that has it). Raises ReviewError for another name.
        """
        from biasdiff_core.pipeline import Pipeline

        keys = {ORIGIN: self.artefact(f"evaluation:{ORIGIN}").key}
        for report in reversed(self.reports()):
            keys |= {name: key for name, key in report.inputs.items() if name not in (*NOT_VARIANTS, *UNTRAINED)}
        if variant not in keys:
            raise ReviewError(f"{self.folder.id} has no trained variant {variant!r}.", f"It has: {', '.join(keys)}.")
        trained = open_artefact(self.folder.path, "evaluation", keys[variant]).inputs["adapter"]
        Pipeline(self.folder).export_model(variant, trained, folder)

    def repair_plan(self, removal: Artefact, methods: Sequence[Method]) -> Plan:
        """What is done and left of the mitigations of a frozen removal set."""
        return repair_plan(self.folder, removal.key, methods)


def _by_id(store: GradientStore, cosines: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """What a search found, the cosine by id, in its order; −1 is no row."""
    return {store.ids[row]: float(cosine) for cosine, row in zip(cosines, rows, strict=True) if row >= 0}


def _found(cosines: Mapping[str, float], of: Corpus | ProbeSet) -> pd.DataFrame:
    """The same as a table, with the texts of `of`."""
    texts = {one.id: one.text for one in of}
    columns = {"cosine": list(cosines.values()), "id": list(cosines), "text": [texts[id_] for id_ in cosines]}
    return pd.DataFrame({"place": range(1, len(cosines) + 1), **columns})


def _changed(config: Any, **values: Any) -> Any:
    return replace(config, **{name: value for name, value in values.items() if value is not None})
