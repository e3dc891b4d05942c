"""Search by a sentence of one's own: a job takes its gradient; the nearest training examples are a table whose rows open in Explore."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.plan import search_stage
from biasdiff_ui.examples import Examples
from biasdiff_ui.jobs_view import job_panel, start_job
from biasdiff_ui.loaders import archived
from biasdiff_ui.notices import errors_shown, plain
from biasdiff_ui.ranking_table import draw_rows, page_rows
from biasdiff_ui.timeline import Standing

COMMAND = "search"
SENTENCE = "sentence"
NEAREST = 50  # as many as an auditor looks through for the sake of one sentence
LONGEST = 1_000  # characters


def sentence_search(at: Standing, examples: Examples, verdicts: pd.Series) -> None:
    """The field, and below it the way to an answer: the button, the job while it is not finished, or the table."""
    with st.expander("Search by a sentence of your own", expanded=SENTENCE in st.query_params):
        text = st.text_input(
            "A sentence",
            key=SENTENCE,
            bind="query-params",
            max_chars=LONGEST,
            placeholder="a stereotype, say, that no probe states",
            help="Training on the examples found changes the model the most like training on the sentence: "
            "near by the cosine of the projected gradients at the last checkpoint.",
        ).strip()
        if not text:
            return
        with errors_shown():
            stage = search_stage(at.audit.folder, text)
            if stage.done:
                _table(_nearest(str(at.audit.folder.path), stage.key, text, at.audit), stage.key, examples, verdicts)
            else:
                _way_to_it(at, text)


def _way_to_it(at: Standing, text: str) -> None:
    """The job of this sentence, or the button that starts it, or why it would find nothing. Raises ArtefactError, JobError."""
    if at.job is not None and at.job.state != "finished" and (at.job.command[0], at.job.command[-1]) == (COMMAND, text):
        job_panel(at)
        return
    why_not = archived(at.audit, vectors=True, weights=True)
    if why_not:
        st.caption(plain(f"This audit cannot be searched by a sentence. {why_not}"))
    elif st.button("Search", key="search_sentence", disabled=at.live, help="A job loads the model and takes the sentence's gradient."):
        start_job(at.audit, [COMMAND, at.audit.folder.id, "--", text])  # the sentence may begin with a dash
        st.rerun()


@st.cache_resource(max_entries=16, show_spinner="Searching …")
def _nearest(folder: str, key: str, text: str, _audit: Audit) -> pd.DataFrame:
    return _audit.search(text, NEAREST)


def _table(found: pd.DataFrame, key: str, examples: Examples, verdicts: pd.Series) -> None:
    found = found[found["id"].isin(examples.ids)]  # one whose score is not defined has no rank
    rows = examples.table.iloc[[examples.place[id_] for id_ in found["id"]]]
    shown = page_rows(rows, verdicts.loc[rows.index])
    shown.insert(0, "cosine", found["cosine"].to_numpy())
    title = f"The {len(shown)} nearest training examples"
    st.caption(f"{title}, nearest first. A click opens one below.")
    draw_rows(shown, f"found-{key}", 320, title)
