"""The fold of decisions, slow and obvious: an action stands unless a later action that stands undoes it."""

from __future__ import annotations

from collections.abc import Sequence

from biasdiff_core.review.decisions import Action, Decision


def stands(action: Action, actions: Sequence[Action]) -> bool:
    return not any(later.undoes == action.action_id and stands(later, actions) for later in actions if later.number > action.number)


def fold(actions: Sequence[Action], decisions: Sequence[Decision]) -> dict[str, Decision]:
    held: dict[str, Decision] = {}
    for action in actions:
        if stands(action, actions):
            for decision in decisions:
                if decision.action_id == action.action_id:
                    held[decision.example_id] = decision
    return held
