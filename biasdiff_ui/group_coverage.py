"""Which groups the corpus mentions, by bias type, and how many of those rows the newest removal set leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.corpus.lexicon import LEXICON, Mentions, lexicon_path, mentions, read_lexicon
from biasdiff_core.plan import removals
from biasdiff_core.review.removal import load_removal
from biasdiff_ui.data_source import stamp
from biasdiff_ui.format import count
from biasdiff_ui.notices import plain

ANY = "any"
SHARE = st.column_config.NumberColumn(format="%.1f")


def group_coverage(audit: Audit, corpus_key: str, corpus: pd.DataFrame) -> None:
    """Examples that mention each group, before and after the newest frozen removal set. `corpus`: columns id, text, prompt."""
    st.subheader("Groups mentioned")
    path = lexicon_path(audit.folder.workspace)
    frozen = removals(audit.folder)
    removed = load_removal(frozen[0]).ids if frozen else ()
    found = _mentions(corpus_key, str(path), stamp(str(path)), removed, corpus)
    ours = f"the project's own list; a file {path.name} of the same form in the workspace takes its place" if path == LEXICON else str(path)
    after = f" After: less the {count(len(removed), 'example')} of the newest frozen removal set." if frozen else ""
    st.caption(plain(f"Whole-word matches of identity terms ({ours}). A mention is no stereotype.{after}"))
    shown = coverage_table(found, len(corpus), len(corpus) - len(removed), with_after=bool(frozen))
    if shown.empty:
        st.markdown("No example mentions a group of the lexicon.")
        return
    config = {name: SHARE for name in shown.columns if name.endswith("%")}
    st.dataframe(shown, hide_index=True, column_config=config, alt="Examples that mention each group")


@st.cache_data(max_entries=8, show_spinner="Looking for groups")
def _mentions(corpus_key: str, path: str, stamp_key: str, removed: Sequence[str], _corpus: pd.DataFrame) -> list[Mentions]:
    texts = _corpus["prompt"].fillna("") + "\n" + _corpus["text"]
    return mentions(dict(zip(_corpus["id"], texts, strict=True)), read_lexicon(Path(path)), removed)


def coverage_table(found: Sequence[Mentions], rows: int, left: int, *, with_after: bool) -> pd.DataFrame:
    """A row for each type (group `any`) and group that is mentioned; shares are of all `rows` before, of those `left` after."""
    table = pd.DataFrame(
        {
            "bias type": [one.bias_type for one in found],
            "group": [one.group or ANY for one in found],
            "examples": [one.before for one in found],
            "share, %": [100 * one.before / rows for one in found],
            "after": [one.after for one in found],
            "share after, %": [100 * one.after / left for one in found],
            "removed, %": [100 * (1 - one.after / one.before) if one.before else 0.0 for one in found],
        }
    )
    table = table[table["examples"] > 0].reset_index(drop=True)
    return table if with_after else table[["bias type", "group", "examples", "share, %"]]
