"""What the corpus page shows: counts, duplicates with their rows, leakage of probes, and a paged search."""

from __future__ import annotations

from math import ceil

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.corpus.probes import LeakageReport
from biasdiff_core.corpus.refusals import listed
from biasdiff_core.corpus.summary import CorpusReport
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.plan import nearness_stage
from biasdiff_ui.charts import bars, lengths, show
from biasdiff_ui.format import count
from biasdiff_ui.notices import plain

PAGE = 200
MOST_ROWS = 500


@st.cache_resource(max_entries=16, show_spinner="Looking for the probes in corpus and evaluation")
def _leakage(made_from: str, _audit: Audit) -> LeakageReport:
    return _audit.leakage()


def load_leakage(audit: Audit) -> LeakageReport:
    """Where the audit's probes stand in corpus and evaluation, kept for as long as none of the three changes."""
    return _leakage(nearness_stage(audit.folder).key, audit)


def counts(report: CorpusReport, corpus: pd.DataFrame) -> None:
    """Bars of labels, sources and groups where there are columns of them, and the lengths."""
    columns = {"Known labels": report.labels, "Sources": report.sources, "Groups": report.groups}
    named = {name: {_label_word(name, value): number for value, number in values.items()} for name, values in columns.items() if values}
    boxes = st.columns(len(named) + 1)
    for box, (name, values) in zip(boxes, named.items(), strict=False):
        with box:
            show(bars(values, f"{name}: examples"), f"corpus_{name}", f"{name}: number of examples of each")
    with boxes[-1]:
        words = corpus["text"].map(lambda text: len(text.split()))
        show(
            lengths(words, f"Length: median {report.words_median:g} words"),
            "corpus_lengths",
            "Histogram of the lengths of the texts in words",
        )


def _label_word(column: str, value: str) -> str:
    return {"0": "not biased (0)", "1": "biased (1)"}.get(value, value) if column == "Known labels" else value


def findings(report: CorpusReport, corpus: pd.DataFrame, leaks: LeakageReport, probes: pd.DataFrame, notes: list[str]) -> None:
    """What reading found, each with the rows that it is about."""
    st.subheader("What reading found")
    lines = {"without text, left out": report.empty_lines, "cut to the token limit": report.truncated_lines}
    if report.unprompted_lines:
        lines["with an empty prompt, learned without one"] = report.unprompted_lines
    words = [f"{count(len(at), 'row')} {what}" + (f": {listed(at)}." if at else ".") for what, at in lines.items()]
    words += [f"{what}: none." for what, found in _kinds(report, leaks).items() if not found]
    st.markdown("  \n".join(plain(line) for line in words))
    _duplicates("Duplicates", "equal texts", report.duplicate_groups, corpus)
    _duplicates("Near duplicates", "texts equal but for case, punctuation and white space", report.near_duplicate_groups, corpus)
    texts = dict(zip(corpus["id"], corpus["text"], strict=True))
    _leaks("Probes that stand in the corpus", leaks.in_corpus, probes, texts)
    if isinstance(leaks.in_evaluation, BiasDiffError):
        st.caption(plain(f"Probes that stand in the evaluation: not known. {leaks.in_evaluation}"))
    else:
        _leaks("Probes that stand in the evaluation", leaks.in_evaluation, probes, {})
    for note in notes:
        st.caption(plain(f"Probes: {note}"))


def _kinds(report: CorpusReport, leaks: LeakageReport) -> dict[str, tuple[object, ...] | BiasDiffError]:
    return {
        "Duplicates": report.duplicate_groups,
        "Near duplicates": report.near_duplicate_groups,
        "Probes that stand in the corpus": leaks.in_corpus,
        "Probes that stand in the evaluation": leaks.in_evaluation,
    }


def _duplicates(title: str, what: str, groups: tuple[tuple[str, ...], ...], corpus: pd.DataFrame) -> None:
    if not groups:
        return
    with st.expander(f"{title}: {count(len(groups), 'group')} of {what}"):
        rows = pd.DataFrame([(number, id_) for number, ids in enumerate(groups, start=1) for id_ in ids], columns=["group of", "id"])
        shown = rows.head(MOST_ROWS).merge(corpus[["id", "line", "text"]], on="id", how="left")
        st.dataframe(shown, hide_index=True, alt=title)
        if len(rows) > len(shown):
            st.caption(f"The first {len(shown)} of {len(rows):,} rows.")


def _leaks(title: str, leaks: tuple[object, ...], probes: pd.DataFrame, texts: dict[str, str]) -> None:
    if not leaks:
        return
    found = pd.DataFrame([vars(leak) for leak in leaks]).merge(probes[["id", "text"]], left_on="probe", right_on="id", how="left")
    found["found"] = [texts.get(place, place) for place in found["found"]]
    with st.expander(f"{title}: {len(leaks)}", expanded=True):
        st.markdown("The figures of such probes are too good: leave them out of the probing set, or the rows out of the corpus.")
        shown = found[["probe", "part", "text", "found"]].head(MOST_ROWS)
        st.dataframe(shown, hide_index=True, column_config={"text": "probe text", "found": "stands as"}, alt=title)


def search(corpus: pd.DataFrame) -> None:
    """All rows, or those that hold a text, a page at a time."""
    st.subheader("Search")
    wanted = st.text_input("Text", key="corpus_search", placeholder="part of a text, any case", label_visibility="collapsed").strip()
    found = matching(corpus, wanted)
    pages = max(1, ceil(len(found) / PAGE))
    st.caption(f"{count(len(found), 'example')} of {len(corpus):,}" + (f", {PAGE} a page" if pages > 1 else ""))
    page = st.pagination(pages, key=f"corpus_page_{wanted}") if pages > 1 else 1
    shown = found.iloc[(page - 1) * PAGE : page * PAGE]
    columns = [c for c in ("line", "text", "prompt", "source", "group", "label", "id") if shown[c].notna().any() or c == "text"]
    st.dataframe(shown[columns], hide_index=True, column_config={"text": st.column_config.TextColumn(width="large")}, alt="Examples")


def matching(corpus: pd.DataFrame, wanted: str) -> pd.DataFrame:
    """Rows whose text or prompt holds `wanted`, case-folded and literal."""
    if not wanted:
        return corpus
    folded = wanted.casefold()
    hit = corpus["text"].str.casefold().str.contains(folded, regex=False)
    prompts = corpus["prompt"].fillna("").str.casefold().str.contains(folded, regex=False)
    return corpus[hit | prompts]
