"""Grey shapes where the parts of a page will stand, while what they show is being read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import streamlit as st


@contextmanager
def skeleton(*rows: tuple[Sequence[int], int]) -> Iterator[None]:
    """Shown while the block runs, if that is long enough to be noticed. `rows`: the widths of the columns, and the height in pixels."""
    place = st.empty()
    with ExitStack() as shapes:
        with place.container():
            for widths, height in rows:
                for column in st.columns(widths, gap="medium"):
                    shapes.enter_context(column.skeleton(height=height))
        yield
    place.empty()
