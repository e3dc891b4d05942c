"""When a review is enough: which share of the biased examples is to be found, with which confidence; chosen before the review.

The choice is an action of the decision log, so who made it and when stands in the hash chain. The assurance of the stop hint (`suggest`)
is that of a rule chosen before anything was judged: one that is changed in view of what was found may be missed more often than it says,
so every later change is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from biasdiff_core.errors import ReviewError
from biasdiff_core.review.decisions import Action, DecisionLog, in_effect
from biasdiff_core.review.suggest import StopRule


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The rule in force. `action`: that chose it, None for the default; `late`: what changed it after the first decision that stands."""

    rule: StopRule
    action: Action | None
    late: tuple[Action, ...]

    def words(self) -> str:
        """What is to be found, who chose it, and what was changed too late, in sentences."""
        whose = f"chosen by {self.action.auditor} in action {self.action.number}" if self.action else "the default"
        said = f"To be found: at least {self.rule.words()} ({whose})."
        if not self.late:
            return said
        changes = ", ".join(f"action {action.number} of {action.auditor}" for action in self.late)
        return f"{said} Changed after the review had begun ({changes}): the assurance is that of a rule chosen before."


def choose(log: DecisionLog, rule: StopRule, auditor: str) -> Action:
    """Put the rule in force, from this action on. Raises ReviewError."""
    return log.declare("stop_rule", asdict(rule), auditor)


def chosen(actions: Sequence[Action]) -> Chosen:
    """The rule in force: the latest that was chosen and is not undone. `actions`: all of the log, oldest first. Raises ReviewError."""
    standing = in_effect(actions)
    choices = [action for action in actions if action.kind == "stop_rule"]
    latest = next((action for action in reversed(choices) if action.action_id in standing), None)
    judged = next((action.number for action in actions if action.kind in ("decide", "import") and action.action_id in standing), None)
    return Chosen(
        rule=rule_of(latest) if latest else StopRule(),
        action=latest,
        late=tuple(action for action in _changes(actions, choices) if judged is not None and action.number > judged),
    )


def _changes(actions: Sequence[Action], choices: Sequence[Action]) -> list[Action]:
    """The choices, and every undo that took one back or restored it."""
    concerned = {action.action_id for action in choices}
    found = []
    for action in actions:
        if action.action_id in concerned or action.undoes in concerned:
            concerned.add(action.action_id)
            found.append(action)
    return found


def rule_of(action: Action) -> StopRule:
    """The rule that an action chose. Raises ReviewError when it holds none that this version reads."""
    record: Any = action.selection
    try:
        return StopRule(**record)
    except TypeError as error:
        raise ReviewError(f"Action {action.number} holds no stop rule: {record!r:.60}.", "Undo it.") from error
