"""The filter of Explore, one row and one condition at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from biasdiff_ui.filters import Filter


def passes_slow(chosen: Filter, row: Mapping[str, Any]) -> bool:
    """Whether the row (columns of the table, and verdict and auditor) meets every condition that is set."""
    pattern = chosen.text.strip() if chosen.regex else re.escape(chosen.text.strip())
    conditions = [
        any(isinstance(text, str) and re.search(pattern, text, re.IGNORECASE) for text in (row["text"], row["prompt"])),
        not chosen.verdicts or row["verdict"] in chosen.verdicts,
        not chosen.auditors or row["auditor"] in chosen.auditors,
        not chosen.bias_types or row["bias_type"] in chosen.bias_types,
        not chosen.sources or row["source"] in chosen.sources,
        not chosen.clusters or row["cluster"] in chosen.clusters,
        not chosen.groups or row["group"] in chosen.groups,
        chosen.low is None or chosen.low <= row["score"],
        chosen.high is None or row["score"] <= chosen.high,
        chosen.first is None or chosen.first <= row["rank"],
        chosen.last is None or row["rank"] <= chosen.last,
        {"all": True, "repeated": row["copy"] > 0, "one of each": row["copy"] < 2}[chosen.copies],
    ]
    return all(conditions)
