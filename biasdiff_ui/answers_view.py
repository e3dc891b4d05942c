"""Answers of all variants to the same questions, side by side, as inert text."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from biasdiff_core.naming import variant_name

ROW_HEIGHT = 96
COLUMNS = 3


def answers(table: pd.DataFrame) -> None:
    """One question at a time, and all of them in a table. `table`: columns question, source and one a variant."""
    if table.empty:
        return
    st.subheader("Answers side by side")
    st.caption("Decoded greedily, quoted as the models wrote them. Examples, not a measure.")
    variants = [name for name in table if name not in ("question", "source")]
    number = st.selectbox(
        "Question", range(len(table)), format_func=lambda row: f"{row + 1}. {table['question'].iloc[row]}", key="question"
    )
    asked = table.iloc[number]
    with st.container(border=True):
        st.text(asked["question"])
        if asked["source"]:
            st.text(f"Source: {asked['source']}")
    for start in range(0, len(variants), COLUMNS):
        for box, variant in zip(st.columns(COLUMNS), variants[start : start + COLUMNS], strict=False):
            with box, st.container(border=True, height="stretch"):
                st.caption(variant_name(variant))
                st.text(asked[variant] or "(no answer)")
    with st.expander(f"All {len(table)} questions"):
        names = {variant: variant_name(variant) for variant in variants}
        config = {name: st.column_config.TextColumn(width=220) for name in ("question", *names.values())}
        config["question"] = st.column_config.TextColumn(width=220, pinned=True)
        st.dataframe(table.rename(columns=names), hide_index=True, column_config=config, row_height=ROW_HEIGHT, alt="Answers side by side")
