"""BiasDiff: which training examples made a language model biased, take them out, and prove what that did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biasdiff_core.version import __version__

if TYPE_CHECKING:
    from biasdiff_core.audit import Audit

__all__ = ["Audit", "__version__"]


def __getattr__(name: str) -> Any:
    """`Audit` is loaded on first use, so that importing the package stays cheap and free of torch."""
    if name == "Audit":
        from biasdiff_core.audit import Audit

        return Audit
    raise AttributeError(f"module 'biasdiff_core' has no attribute {name!r}")
