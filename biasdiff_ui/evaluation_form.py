"""What the variants of a new audit are judged by: CrowS-Pairs and held-out text always, further evaluations where they are asked for."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import streamlit as st

from biasdiff_core.config.evaluation import (
    AnswersConfig,
    CrowsPairsConfig,
    EvaluationConfig,
    LmEvalConfig,
    SeatConfig,
    StereoSetConfig,
    TrexConfig,
)
from biasdiff_core.corpus.sources import DEMO
from biasdiff_core.errors import BiasDiffError, DataError
from biasdiff_core.evaluation import lm_harness, perplexity, seat, stereoset, trex
from biasdiff_core.evaluation.answers import load_questions
from biasdiff_core.evaluation.pairs import load_pairs
from biasdiff_ui.data_source import stamp
from biasdiff_ui.format import count
from biasdiff_ui.notices import plain, show_error

NONE, PAPER, OWN = "None", "The paper's questions", "A file of my own"


def choose_evaluation(base: EvaluationConfig) -> EvaluationConfig | None:
    """The preset's evaluation with what was chosen; None while something chosen cannot be read."""
    with st.expander("Evaluation: CrowS-Pairs and held-out text"):
        pairs = st.text_input("CrowS-Pairs file", value="bundled", key="new_pairs", help="`bundled`, or a file in the original format.")
        held_out = st.text_input(
            "Held-out text",
            value=DEMO,
            key="new_held_out",
            help="`demo`, or a file of texts outside the corpus: one a line, or a table.",
        )
        column = st.text_input(
            "Its column of texts",
            value=base.perplexity.text_column,
            key="new_held_out_column",
            help="Of a CSV or JSONL. `#2+#3`: the second and the third of a CSV without a header (title and description of AG News).",
        )
    crows = replace(base.crows_pairs, path=pairs.strip() or "bundled")
    texts = replace(base.perplexity, path=held_out.strip() or DEMO, text_column=column.strip())
    try:
        known = len(load_pairs(replace(crows, pairs=None)))
        perplexity.load_texts(texts)
    except BiasDiffError as error:
        show_error(error)
        return None
    return _further(replace(base, crows_pairs=_at_most(crows, known), perplexity=texts))


def _at_most(crows: CrowsPairsConfig, known: int) -> CrowsPairsConfig:
    """A preset's subset of pairs, all of them where the file has no more."""
    return crows if crows.pairs is None or crows.pairs < known else replace(crows, pairs=None)


def _further(base: EvaluationConfig) -> EvaluationConfig | None:
    """The evaluations that a user has files or tasks for; None while one of them cannot be read.

    Each file is read as it is chosen, so that a job does not fail on it after hours.
    """
    with st.expander("Further evaluations"):
        st.caption("Each is run on every variant.")
        limit = st.number_input(
            "Items of each at most",
            10,
            None,
            500,
            key="new_limit",
            help="Of StereoSet, T-REx and every lm-evaluation-harness task.",
            width=240,
        )
        stereoset_file = _path("StereoSet file", "new_stereoset", "StereoSet's dev.json.")
        seat_folder = _path("SEAT folder", "new_seat", "A folder with SEAT's test files sent-*.jsonl.")
        trex_file = _path("T-REx file", "new_trex", "A table with the columns query, its answer masked by <extra_id_0>, and target.")
        tasks = re.findall(
            r"[^,\s]+", _path("lm-evaluation-harness tasks", "new_lm_eval", "Names with commas between them: arc_easy, hellaswag.")
        )
        try:
            found = replace(
                base,
                stereoset=StereoSetConfig(path=stereoset_file, limit=limit) if stereoset_file else None,
                seat=SeatConfig(path=seat_folder) if seat_folder else None,
                trex=TrexConfig(path=trex_file, limit=limit) if trex_file else None,
                answers=_answers(),
                lm_eval=LmEvalConfig(tasks=tuple(dict.fromkeys(tasks)), limit=limit) if tasks else None,
            )
            sizes = _sizes(found)
        except BiasDiffError as error:
            show_error(error)
            return None
        if sizes:
            st.markdown(plain(f"To be run: {', '.join(sizes)}."))
    return found


def _path(label: str, key: str, help_: str) -> str:
    return st.text_input(label, key=key, help=help_).strip()


def _answers() -> AnswersConfig | None:
    how = st.segmented_control(
        "Questions that every variant answers", [NONE, PAPER, OWN], default=NONE, key="new_answers_how", required=True
    )
    if how == PAPER:
        return AnswersConfig()
    own = _path("Questions file", "new_answers", "JSONL: a line has `prompt` and, for multiple choice, `choices`.") if how == OWN else ""
    return AnswersConfig(path=own) if own else None


def _sizes(config: EvaluationConfig) -> list[str]:
    """How much each further evaluation is, in words. Raises DataError, MissingDependency."""
    sizes = []
    if config.stereoset:
        sizes.append(f"StereoSet, {count(_stereoset_tests(config.stereoset, stamp(config.stereoset.path)), 'test')}")
    if config.seat:
        if not Path(config.seat.path).expanduser().is_dir():
            raise DataError(f"{config.seat.path} is no folder.", "Name a folder with SEAT's test files sent-*.jsonl.")
        sizes.append(f"SEAT, {count(len(seat.load_tests(config.seat)), 'test')}")
    if config.trex:
        sizes.append(f"T-REx, {_trex_queries(config.trex, stamp(config.trex.path)):,} queries at most")
    if config.answers:
        sizes.append(count(len(load_questions(config.answers)), "question"))
    if config.lm_eval:
        if importlib.util.find_spec("lm_eval") is None:
            raise lm_harness.missing()
        sizes.append(f"lm-evaluation-harness, {count(len(config.lm_eval.tasks), 'task')} (checked when they are run)")
    return sizes


@st.cache_data(max_entries=8, show_spinner="Checking StereoSet")
def _stereoset_tests(config: StereoSetConfig, stamp_key: str) -> int:
    return len(stereoset.load_tests(config))


@st.cache_data(max_entries=8, show_spinner="Checking T-REx")
def _trex_queries(config: TrexConfig, stamp_key: str) -> int:
    """Queries that can be asked, whatever the corpus holds; those of sentences trained on are left out when it is run."""
    return len(trex.select(trex.load_queries(config.path), (), config).queries)
