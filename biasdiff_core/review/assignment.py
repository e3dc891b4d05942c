"""Who reviews which example, some of them two: dealt anew from names, overlap and seed, so that nothing but these terms is stored.

The terms are an action of the decision log. What somebody had reviewed before it stays theirs and is never dealt again; what was
open is dealt among the auditors now named. So who joins or leaves changes nobody's finished work, and undoing the action
brings the former assignment back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import SIMULATED_AUDITOR, Action, DecisionLog, fold_by_auditor, in_effect

Assignment = Mapping[str, tuple[str, ...]]  # example id → auditors


@dataclass(frozen=True, kw_only=True)
class Terms:
    """`auditors`: by name, their order is of no account; `overlap`: percent of the examples that two of them review.

    Raises ReviewError for terms by which nothing can be dealt.
    """

    auditors: tuple[str, ...]
    overlap: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.auditors or not all(name and name == name.strip() for name in self.auditors):
            raise ReviewError("An assignment needs auditors, each with a name.", "Name at least one.")
        if len(set(self.auditors)) < len(self.auditors) or SIMULATED_AUDITOR in self.auditors:
            raise ReviewError(f"The auditors are {', '.join(self.auditors)}.", "Name each person once, and nobody but persons.")
        if not 0 <= self.overlap <= 100:
            raise ReviewError(f"The overlap is {self.overlap} %.", "Give 0 to 100.")
        if self.overlap and len(self.auditors) < 2:
            raise ReviewError(f"An overlap of {self.overlap:g} % needs two auditors.", "Name another, or set it to 0.")


def announce(log: DecisionLog, terms: Terms, auditor: str) -> Action:
    """Put the terms in force, from this action on. Raises ReviewError."""
    return log.declare("assign", {"assignment": asdict(terms)}, auditor)


def announced(actions: Sequence[Action]) -> Action | None:
    """The action whose terms are in force: the latest assignment that is not undone."""
    standing = in_effect(actions)
    return next((a for a in reversed(actions) if a.kind == "assign" and a.action_id in standing), None)


def terms_of(action: Action) -> Terms:
    """The terms that an action put in force. Raises ReviewError when it holds none that this version reads."""
    record: Any = (action.selection or {}).get("assignment")
    try:
        return Terms(**{**record, "auditors": tuple(record["auditors"])})
    except (KeyError, TypeError) as error:
        raise ReviewError(f"Action {action.number} holds no terms of an assignment: {record!r:.60}.", "Undo it.") from error


def assignment_by(action: Action, log: DecisionLog, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What the terms of `action` assign, with the work that was finished when they were announced. Raises ReviewError.

    `ids`: best rank first. What happens later changes nothing in it, so a result can be kept by the action's id.
    """
    by_then = fold_by_auditor([a for a in log.actions() if a.number < action.number], log.decisions())
    finished = {auditor: held.keys() for auditor, held in by_then.items() if auditor != SIMULATED_AUDITOR}
    return assign(ids, terms_of(action), finished)


def assign(ids: Sequence[str], terms: Terms, finished: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """The auditors of each example, those first who have reviewed it already. `ids`: best rank first; `finished`: ids by auditor.

    In rank order each open seat goes to whoever was dealt fewest so far, ties by a hash of seed, example and name: down to any rank
    the numbers dealt differ by one at most, except where finished work leaves no choice.
    """
    twice = reviewed_twice(ids, terms)
    dealt = dict.fromkeys(terms.auditors, 0)
    assignment = {}
    for id_ in ids:
        seated = sorted(auditor for auditor, done in finished.items() if id_ in done)
        free = sorted((dealt[name], _lot(terms.seed, id_, name), name) for name in terms.auditors if name not in seated)
        seats = max(0, (2 if id_ in twice else 1) - len(seated))
        newly = [name for _, _, name in free[:seats]]
        for name in newly:
            dealt[name] += 1
        assignment[id_] = (*seated, *newly)
    return assignment


def reviewed_twice(ids: Sequence[str], terms: Terms) -> frozenset[str]:
    """The examples that two auditors review: one drawn by seed from each 100 / overlap successive ranks; the names have no say."""
    share = Fraction(str(terms.overlap)) / 100
    if not share:
        return frozenset()
    groups: dict[int, list[str]] = {}
    for place, id_ in enumerate(ids):
        groups.setdefault(place * share.numerator // share.denominator, []).append(id_)
    return frozenset(min(group, key=lambda id_: _lot(terms.seed, id_)) for group in groups.values())


def _lot(seed: int, *parts: str) -> int:
    """A number drawn by hash: the same on every machine, in every order."""
    return int.from_bytes(hashlib.blake2b("\0".join((str(seed), *parts)).encode(), digest_size=8).digest())
