"""Grey shapes where the parts of a page will stand, while what they show is being read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import streamlit as st

LOADED = "skeleton-loaded"


@contextmanager
def skeleton(key: str, *rows: tuple[Sequence[int], int]) -> Iterator[None]:
    """Shown while the block runs for the first time in the session, if that is long enough to be noticed.

    `key`: what is read; `rows`: the widths of the columns, and the height in pixels.
    """
    loaded: set[str] = st.session_state.setdefault(LOADED, set())
    place = st.empty()
    with ExitStack() as shapes:
        if key not in loaded:
            with place.container():
                for widths, height in rows:
                    for column in st.columns(widths, gap="medium"):
                        shapes.enter_context(column.skeleton(height=height))
        yield
    place.empty()
    loaded.add(key)
