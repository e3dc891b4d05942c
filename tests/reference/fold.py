"""The fold of decisions, slow and obvious: an action stands unless one that stands undoes it, a decision unless one withdraws it."""

from __future__ import annotations

from collections.abc import Sequence

from biasdiff_core.review.decisions import Action, Decision


def stands(action: Action, actions: Sequence[Action]) -> bool:
    return not any(later.undoes == action.action_id and stands(later, actions) for later in actions if later.number > action.number)


def taken_back(decision: Decision, actions: Sequence[Action]) -> bool:
    """Whether a withdrawal that stands names the decision."""
    named = {"action": decision.action_id, "example": decision.example_id}
    return any(a.kind == "withdraw" and stands(a, actions) and named.items() <= dict(a.selection or {}).items() for a in actions)


def fold(actions: Sequence[Action], decisions: Sequence[Decision]) -> dict[str, Decision]:
    held: dict[str, Decision] = {}
    for action in actions:
        if stands(action, actions):
            for decision in decisions:
                if decision.action_id == action.action_id and not taken_back(decision, actions):
                    held[decision.example_id] = decision
    return held
