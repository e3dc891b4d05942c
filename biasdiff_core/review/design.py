"""How a review is drawn: by rank, with a slice at random always mixed in; and what was drawn how, read back from the decisions.

The slice is a uniform order of the examples by hash of seed and id, so it needs no state: whoever has the decisions can draw it again.
Whatever the auditor inspects beside it, the first example of that order that is still open is a uniform draw from all that are open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biasdiff_core.review.decisions import Decision

EVERY = 5  # of so many successive examples of a queue one is drawn at random
PASSED_OVER = 0.1  # the ranks count as reached where at most this share above was left open

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@lru_cache(maxsize=8)
def uniform_order(ids: tuple[str, ...], seed: str) -> tuple[str, ...]:
    """The ids in an order that is uniform over all orders, whatever the ranking; that of a part of them is the same without the others.

    `seed`: the audit's id. A repaired corpus is another audit and needs a slice of its own: the examples left of the old one were judged.
    """
    return tuple(sorted(ids, key=lambda id_: hashlib.blake2b(f"{seed}\0{id_}".encode(), digest_size=16).digest()))


def mixed_order(ids: Sequence[str], seed: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The order to review open examples in, and which of them are drawn. `ids`: best rank first.

    Each `EVERY`-th is the next of the uniform order, the others are the next by rank.
    """
    by_rank, at_random = iter(ids), iter(uniform_order(tuple(ids), seed))
    mixed: dict[str, bool] = {}
    for number in range(1, len(ids) + 1):
        draw = number % EVERY == 0
        mixed[next(id_ for id_ in (at_random if draw else by_rank) if id_ not in mixed)] = draw
    return tuple(mixed), frozenset(id_ for id_, drawn in mixed.items() if drawn)


def origin(queue: str, ids: Collection[str], drawn: Collection[str], seed: str) -> dict[str, Any]:
    """The selection to record with decisions on `ids` from a queue: its kind, and what of them was drawn, by which seed."""
    at_random = [id_ for id_ in ids if id_ in drawn]
    return {"queue": queue, **({"drawn": at_random, "seed": seed} if at_random else {})}


@dataclass(frozen=True, kw_only=True, eq=False)
class Review:
    """What has been inspected of a ranking, each example once.

    `open` [ranked]: not inspected, by place (rank − 1). `places`, `biased`, `drawn` [scored]: place, whether judged biased and whether
    drawn at random, of the inspected ones in the order in which they count. An `unsure` one is neither open nor scored: it leaves the
    ranking, while one that is open may yet count as biased, which errs on the safe side. `simulated`: decisions of the simulated auditor
    are among them.
    """

    open: Bools
    places: Ints
    biased: Bools
    drawn: Bools
    simulated: bool = False

    @cached_property
    def reached(self) -> int:
        """How many ranks count as reached: down to the deepest example that was not drawn and above which few are open.

        It depends on no draw beyond it, so those are a simple random sample of the ranks beyond.
        """
        by_rank = np.sort(self.places[~self.drawn])
        left_open = np.cumsum(self.open)[by_rank]
        deepest = by_rank[left_open <= PASSED_OVER * (by_rank + 1)]
        return int(deepest[-1]) + 1 if len(deepest) else 0


def review_so_far(ranking_ids: Sequence[str], current: Mapping[str, Decision], first: Mapping[str, Decision]) -> Review:
    """The review as the decisions show it. `ranking_ids`: best first; `current`, `first`: of the log, `first_inspected` the latter.

    The verdict is the one that holds now; how an example was selected, its first inspection says. Bulk decisions and those on examples
    without a rank never enter. A draw counts from the moment when all of its slice before it are inspected; until then it counts as
    chosen, since the one passed over may have been so for what it says.
    """
    place = {id_: number for number, id_ in enumerate(ranking_ids)}
    inspected = {id_: decision for id_, decision in first.items() if id_ in place and id_ in current and current[id_].inspected}
    turn = {id_: (number, 0) for number, id_ in enumerate(inspected)}
    draws = _draws(tuple(ranking_ids), inspected, turn)
    scored = sorted((id_ for id_ in inspected if current[id_].verdict != "unsure"), key=(turn | draws).__getitem__)
    left_open = np.ones(len(place), dtype=bool)
    left_open[[place[id_] for id_ in inspected]] = False
    return Review(
        open=left_open,
        places=np.array([place[id_] for id_ in scored], dtype=np.int64),
        biased=np.array([current[id_].verdict == "biased" for id_ in scored], dtype=bool),
        drawn=np.array([id_ in draws for id_ in scored], dtype=bool),
        simulated=any(current[id_].simulated for id_ in scored),
    )


def _draws(
    ranking_ids: tuple[str, ...], inspected: Mapping[str, Decision], turn: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """The draws that count, each with its turn: the latest of all of its slice up to it."""
    by_seed: dict[str, set[str]] = {}
    for id_, decision in inspected.items():
        selection = decision.selection or {}
        if id_ in selection.get("drawn", ()):
            by_seed.setdefault(selection["seed"], set()).add(id_)
    found = {}
    for seed, drawn in by_seed.items():
        latest = 0
        for number, id_ in enumerate(uniform_order(ranking_ids, seed), start=1):
            if id_ not in turn:
                break
            latest = max(latest, turn[id_][0])
            if id_ in drawn:
                found[id_] = (latest, number)
    return found
