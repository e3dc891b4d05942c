"""Blind review: whoever has still to review an example sees nobody else's verdict on it, until they have given their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from biasdiff_core.review.assignment import Assignment
from biasdiff_core.review.decisions import Decision


def still_to_review(assignment: Assignment, auditor: str, verdicts: Mapping[str, Mapping[str, Decision]]) -> list[str]:
    """The auditor's examples without an inspected verdict of their own, in the order of the assignment (best rank first).

    `verdicts`: as `DecisionLog.by_auditor()`.
    """
    own = verdicts.get(auditor, {})
    return [id_ for id_, auditors in assignment.items() if auditor in auditors and id_ not in own]


def second_reviews(
    ids: Sequence[str], assignment: Assignment, auditor: str, verdicts: Mapping[str, Mapping[str, Decision]]
) -> tuple[str, ...]:
    """Of `ids`, in order, what others have inspected and the auditor has not; with an assignment, only what is theirs to review."""
    second = {id_ for held in verdicts.values() for id_ in held} - verdicts.get(auditor, {}).keys()
    if assignment:
        second &= set(still_to_review(assignment, auditor, verdicts))
    return tuple(id_ for id_ in ids if id_ in second)


def visible(decisions: Mapping[str, Decision], auditor: str, to_review: Collection[str]) -> dict[str, Decision]:
    """Those of `decisions` (by example id) that the auditor may see while `to_review` is still to be reviewed by them."""
    hidden = frozenset(to_review)
    return {id_: decision for id_, decision in decisions.items() if decision.auditor == auditor or id_ not in hidden}
