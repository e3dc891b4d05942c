"""Token log-probabilities one sequence at a time: no batch, no padding, no mask, no positions given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def token_log_probs_slow(model: Any, ids: Sequence[int]) -> np.ndarray:
    """Natural log-probabilities of tokens 1..L-1, float64 [L-1]."""
    with torch.no_grad():
        log_probs = model(torch.tensor([list(ids)])).logits[0].float().log_softmax(-1)
    return np.array([log_probs[place, ids[place + 1]].item() for place in range(len(ids) - 1)])
