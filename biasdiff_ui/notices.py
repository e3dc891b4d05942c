"""Words from outside (errors, names, dataset text) made inert, and errors shown with what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from biasdiff_core.errors import BiasDiffError

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&^=])")


def plain(text: str) -> str:
    """`text` such that Markdown shows it as it is: no link, picture, formula or colour comes of it; one paragraph."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


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
