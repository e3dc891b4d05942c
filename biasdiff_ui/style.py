"""What the theme in `.streamlit/config.toml` cannot say: tabular figures, tighter spacing."""

from __future__ import annotations

import streamlit as st

WRAPPED = 66  # height of a table's row in pixels, two lines; Streamlit breaks the text of cells only in rows of more than 4 rem
STYLE = """
<style>
.stApp { font-variant-numeric: tabular-nums; }
.stMainBlockContainer { padding: 2.5rem clamp(1rem, 3vw, 3rem) 3rem; }
@media (max-width: 768px) { .stMainBlockContainer { padding-top: 4.5rem; } }
.stSidebar [data-testid="stSidebarUserContent"] { padding-bottom: 2rem; }
.stSidebar hr { margin: 0.5rem 0; }
</style>
"""


def apply_style() -> None:
    """Put the style sheet into the page."""
    st.html(STYLE)
