"""Greedy decoding one prompt at a time: the whole sequence again for every token, no cache, no batch, no stop but the end token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def greedy_slow(model: Any, ids: Sequence[int], max_new_tokens: int, end: int | None) -> list[int]:
    """The tokens written after `ids`, without the end token."""
    written: list[int] = []
    while len(written) < max_new_tokens:
        with torch.no_grad():
            logits = model(torch.tensor([[*ids, *written]])).logits[0, -1]
        token = int(logits.float().argmax())
        if token == end:
            break
        written.append(token)
    return written
