"""The form of a new audit: model; corpus and columns; probes, preset and evaluation; what it will cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config import AuditConfig, CorpusConfig, ModelConfig, ProbeConfig
from biasdiff_core.config.audit import ReviewConfig
from biasdiff_core.config.model import BUNDLED_MODEL
from biasdiff_core.config.presets import DEMO_CORPUS, DEMO_PROBES, PRESETS, preset
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.corpus.read import count_corpus
from biasdiff_core.corpus.sources import DEMO
from biasdiff_core.corpus.summary import CorpusCount
from biasdiff_core.cost import predicted_cost
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.model.source import locate, lora_settings
from biasdiff_core.workspace.audits import default_workspace
from biasdiff_ui.data_source import (
    KINDS_OF_TEXTS,
    TEXTS,
    choose_column,
    choose_probe_columns,
    choose_source,
    columns_of,
    show_preview,
    stamp,
)
from biasdiff_ui.evaluation_form import choose_evaluation
from biasdiff_ui.format import count, duration, uncounted_words
from biasdiff_ui.jobs_view import start_job
from biasdiff_ui.notices import errors_shown, plain, show_error
from biasdiff_ui.state import choose_audit

PRESET_WORDS = {
    "quick": "Quick: {} epochs, last checkpoint, 400 pairs of CrowS-Pairs",
    "standard": "Standard: {} epochs, all checkpoints, all 1508 pairs, random control",
    "paper": "Paper: settings as published, {} epochs, top 35 % removed",
}


def preset_words(name: str) -> str:
    """What a preset stands for."""
    return PRESET_WORDS[name].format(preset(name, "new").warmup.training.epochs)


def new_audit() -> None:
    """Draw the form. Starting creates the audit and a detached job, and makes the audit the current one."""
    st.subheader("1 Model")
    model = _model()
    st.subheader("2 Corpus")
    corpus = _corpus()
    st.subheader("3 Probes and preset")
    probes = _probes()
    chosen = st.radio("Preset", list(PRESETS), format_func=preset_words, key="new_preset")
    base = preset(chosen, "new")
    evaluation = choose_evaluation(base.evaluation)
    simulate = (
        corpus is not None
        and corpus[2]
        and st.checkbox(
            "Let a simulated auditor decide by the known labels, and go on to the result (to try BiasDiff out; marked in every report)",
            key="new_simulate",
        )
    )
    name = st.text_input("Name of the audit", value="audit", key="new_name", help="Small letters, digits, - and _.")
    if model is None or corpus is None or probes is None or evaluation is None:
        st.caption("Choose a model, a corpus and probes: what it will cost is then said here.")
        return
    with errors_shown():
        config = replace(
            base,
            name=name.strip(),
            model=model,
            lora=lora_settings(Path(model.adapter)) if model.adapter else base.lora,
            corpus=corpus[0],
            probes=probes[0],
            evaluation=evaluation,
            review=ReviewConfig(simulate_from_labels=bool(simulate)),
        )
        _cost_and_start(config, corpus[1], probes[1])


def _cost_and_start(config: AuditConfig, examples: int, probes: int) -> None:
    workspace = default_workspace()
    cost = predicted_cost(workspace, config, examples, probes)
    source = "measured on earlier audits here" if cost.measured else "not all measured here yet; for the rest, the bundled model on 2 cores"
    words = f"The whole audit takes about {duration(cost.seconds)} and {cost.gigabytes:.1f} GB on this machine ({source})"
    st.markdown(plain(f"{words}{uncounted_words(cost.uncounted)}."))
    if st.button("Start the audit", type="primary", key="new_start"):
        audit = Audit.from_config(config, workspace)
        start_job(audit, ["run", audit.folder.id])
        choose_audit(audit.folder.id)
        st.session_state["new_audit_open"] = False
        st.rerun()


def _model() -> ModelConfig | None:
    bundled, other = "Bundled (SmolLM2, 135M)", "Folder or Hugging Face id"
    how = st.segmented_control("Which model?", [bundled, other], default=bundled, key="new_model_how", required=True)
    name = BUNDLED_MODEL
    if how == other:
        name = st.text_input("Model folder on this machine, or Hugging Face id", key="new_model").strip()
    adapter = st.text_input(
        "Adapter folder (optional)",
        key="new_adapter",
        help="A peft LoRA adapter or a transformers.Trainer checkpoint of one, trained on this corpus. It takes the place of the warm-up.",
    ).strip()
    if not name:
        return None
    config = ModelConfig(name=name, adapter=adapter or None)
    try:
        source = locate(config)
    except BiasDiffError as error:
        show_error(error)
        return None
    if source.kind == "hub":
        st.caption("No such folder is on this machine: the job downloads this model from Hugging Face, if it is not in the cache.")
    return config


def _corpus() -> tuple[CorpusConfig, int, bool] | None:
    """The corpus, how many examples it has, and whether each has a known label."""
    path = choose_source("corpus", "new_corpus", KINDS_OF_TEXTS)
    if path is None:
        return None
    try:
        columns, preview = columns_of(path, "corpus.csv")
        config = DEMO_CORPUS if path == DEMO else _corpus_columns(path, columns)
        show_preview(preview, "Corpus")
        report = _corpus_report(config, stamp(path))
    except BiasDiffError as error:
        show_error(error)
        return None
    unprompted = f" {count(report.unprompted, 'row')} with an empty prompt." if report.unprompted else ""
    st.markdown(
        plain(
            f"{count(report.rows_used, 'example')} of {count(report.rows_read, 'row')} can be used; {report.empty} empty, "
            f"{count(report.repeated, 'group')} of duplicates.{unprompted} {_label_words(report)}"
        )
    )
    return config, report.rows_used, bool(report.labels) and "unknown" not in report.labels


def _label_words(report: CorpusCount) -> str:
    return "Known labels: " + ", ".join(f"{number} × {label}" for label, number in report.labels.items()) + "." if report.labels else ""


def _corpus_columns(path: str, columns: tuple[str, ...]) -> CorpusConfig:
    with st.container(horizontal=True):
        paired = st.toggle("Rows are prompt and completion", key="new_corpus_paired", help="Then only the completion is learned.")
        truncate = st.toggle("Cut rows that are too long", key="new_corpus_truncate", help="Rows over 512 tokens are refused otherwise.")
    boxes = st.columns(5 if paired else 4)
    with boxes[0]:
        first = choose_column("Prompt column" if paired else "Text column", columns, "new_corpus_first", PROMPTS if paired else TEXTS)
    completion = None
    if paired:
        with boxes[1]:
            completion = choose_column("Completion column", columns, "new_corpus_completion", COMPLETIONS)
    tags = []
    for box, (tag, likely) in zip(boxes[-3:], TAGS.items(), strict=True):
        with box:
            tags.append(choose_column(f"{tag.capitalize()} column", columns, f"new_corpus_{tag}", likely, optional=True))
    return CorpusConfig(
        path=path,
        text_column=None if paired else first,
        prompt_column=first if paired else None,
        completion_column=completion,
        label_column=tags[0],
        source_column=tags[1],
        group_column=tags[2],
        truncate=truncate,
    )


PROMPTS = ("prompt", "instruction", "question")
COMPLETIONS = ("completion", "response", "output", "answer")
TAGS = {"label": ("label", "is_biased", "biased"), "source": ("source", "kind", "dataset"), "group": ("group",)}


@st.cache_data(max_entries=16, show_spinner="Checking the corpus")
def _corpus_report(config: CorpusConfig, stamp_key: str) -> CorpusCount:
    return count_corpus(config)


def _probes() -> tuple[ProbeConfig, int] | None:
    """The probes, and how many sentences they are with their twins."""
    path = choose_source("probes", "new_probes", "Stereotyped sentences: CSV, TSV, JSONL or Parquet.")
    if path is None:
        return None
    try:
        columns, preview = columns_of(path, "probes.csv")
        config = DEMO_PROBES if path == DEMO else choose_probe_columns(path, columns, "new_probes")
        show_preview(preview, "Probes")
        probes, twins, kinds, notes = _probe_report(config, stamp(path))
    except BiasDiffError as error:
        show_error(error)
        return None
    st.markdown(plain(f"{count(probes, 'probe')}, {twins} with an anti-stereotype twin, {count(kinds, 'bias type')}. {' '.join(notes)}"))
    return config, probes + twins


@st.cache_data(max_entries=16, show_spinner="Checking the probes")
def _probe_report(config: ProbeConfig, stamp_key: str) -> tuple[int, int, int, list[str]]:
    probes, notes = read_probes(config)
    return len(probes), sum(probe.twin is not None for probe in probes), len(probes.bias_types), notes
