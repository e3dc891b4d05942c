"""Disagreements between auditors, and how they are settled.

An adjudicator decides like anybody else, by the same log; the decision's selection names the queue `ADJUDICATION`, which keeps it out
of the agreement and leaves the verdicts as they were given. As the latest decision it is what holds; a later decision on
the example opens the disagreement again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from biasdiff_core.review.decisions import Decision


def disagreements(
    ids: Sequence[str],
    verdicts: Mapping[str, Mapping[str, Decision]],
    current: Mapping[str, Decision],
    to_review: Collection[str] = (),
) -> tuple[str, ...]:
    """Of `ids`, in order, those on which inspected verdicts differ (`unsure` too) and no adjudication holds.

    `verdicts`: as `DecisionLog.by_auditor()`; `current`: as `DecisionLog.current()`; an adjudicator's `unsure` settles nothing.
    `to_review`: what the adjudicator has still to review; they cannot settle it before, since that shows the verdicts.
    """
    given: dict[str, set[str]] = {}
    for held in verdicts.values():
        for id_, decision in held.items():
            given.setdefault(id_, set()).add(decision.verdict)
    hidden = frozenset(to_review)
    return tuple(id_ for id_ in ids if len(given.get(id_, ())) > 1 and id_ not in hidden and not _settled(current.get(id_)))


def _settled(decision: Decision | None) -> bool:
    return decision is not None and decision.adjudication and decision.verdict != "unsure"


def given_on(id_: str, verdicts: Mapping[str, Mapping[str, Decision]]) -> list[Decision]:
    """The auditors' own verdicts on one example, by name."""
    return [held[id_] for _, held in sorted(verdicts.items()) if id_ in held]
