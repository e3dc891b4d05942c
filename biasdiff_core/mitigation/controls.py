"""Controls that a mitigation must beat: removing as many examples at random."""

from __future__ import annotations

import random
from collections.abc import Sequence


def random_removal(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` ids drawn uniformly without replacement, sorted; the same for every order of `ids`."""
    return sorted(random.Random(seed).sample(sorted(ids), count))
