"""Words from outside (errors, names, dataset text) made inert, and errors shown with what to do about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from biasdiff_core.errors import BiasDiffError
from biasdiff_core.report import plain


def show_error(error: BiasDiffError) -> None:
    """What is wrong, and how to mend it."""
    st.error(f"{plain(error.what)}  \n**{plain(error.mend)}**" if error.mend else plain(error.what))


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error of the work inside instead of a stack trace; what follows the block still runs."""
    try:
        yield
    except BiasDiffError as error:
        show_error(error)
