"""Search by a sentence of one's own: a job takes its gradient; the nearest training examples are a table whose rows open in Explore.

What it found can be the selection itself, as if by a filter: on map and table, in bulk, in Review, as a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.plan import search_stage
from biasdiff_ui.examples import Examples
from biasdiff_ui.filters import FOUND
from biasdiff_ui.jobs_view import job_panel, start_job
from biasdiff_ui.loaders import archived
from biasdiff_ui.notices import errors_shown, plain
from biasdiff_ui.ranking_table import draw_rows, page_rows
from biasdiff_ui.timeline import Standing

COMMAND = "search"
SENTENCE = "sentence"
NEAREST = 50  # as many as an auditor looks through for the sake of one sentence
LONGEST = 1_000  # characters


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a sentence found. `rows`: in the ranking's table, nearest first; `only`: whether they are selected, as by a filter; `opened`:
    the rank of the row that is chosen in the table of the search.
    """

    query: str
    rows: np.ndarray
    only: bool
    opened: int | None


def sentence_search(at: Standing, examples: Examples, verdicts: pd.Series) -> Found | None:
    """The field, and below it the way to an answer: the button, the job while it is not finished, or the table, which is returned."""
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
            return None
        with errors_shown():
            stage = search_stage(at.audit.folder, text)
            if stage.done:
                nearest = _nearest(str(at.audit.folder.path), stage.key, text, at.audit)
                return _table(nearest, text, stage.key, examples, verdicts)
            _way_to_it(at, text)
    return None


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


def _table(found: pd.DataFrame, text: str, key: str, examples: Examples, verdicts: pd.Series) -> Found:
    found = found[found["id"].isin(examples.place.keys())]  # one whose score is not defined has no rank
    places = np.array([examples.place[id_] for id_ in found["id"]], dtype=np.int64)
    rows = examples.table.iloc[places]
    shown = page_rows(rows, verdicts.loc[rows.index])
    shown.insert(0, "cosine", found["cosine"].to_numpy())
    title = f"The {len(shown)} nearest training examples"
    st.caption(f"{title}, nearest first. A click opens one below.")
    opened = draw_rows(shown, f"found-{key}", 320, title)
    only = st.toggle(
        "Select only these", key=FOUND, bind="query-params", help="As a filter does, for map, table, bulk, Review and download."
    )
    return Found(query=text, rows=places, only=only, opened=opened)
