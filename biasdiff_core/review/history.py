"""The log as people read it: who did what, when and from which filter, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from biasdiff_core.review.decisions import Action, DecisionLog, undone_by
from biasdiff_core.review.stop_rule import rule_of

KINDS = {"bulk": ", in bulk", "import": ", imported"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One action in words. `undo`: what takes it back while it holds (itself), or restores it (the undo that stands against it)."""

    action: Action
    what: str
    origin: str
    undo: Action

    @property
    def holds(self) -> bool:
        """Whether it is not undone."""
        return self.undo is self.action

    @property
    def state(self) -> str:
        """`holds`, or `undone by action 14`."""
        return "holds" if self.holds else f"undone by action {self.undo.number}"

    def row(self) -> dict[str, Any]:
        """The action as a row of a table; `when` as it is recorded, in UTC."""
        made = self.action
        return {
            "action": made.number,
            "when": made.created,
            "who": made.auditor,
            "what": self.what,
            "from": self.origin,
            "state": self.state,
        }


def history(log: DecisionLog) -> list[Entry]:
    """Every action of the log, newest first."""
    actions, counts = log.actions(), log.verdict_counts()
    named, undone = {action.action_id: action for action in actions}, undone_by(actions)
    return [
        Entry(
            action=action,
            what=_what(action, counts.get(action.action_id, {}), named),
            origin=origin_words(action.selection),
            undo=undone.get(action.action_id, action),
        )
        for action in reversed(actions)
    ]


def _what(action: Action, counts: Mapping[str, int], named: Mapping[str, Action]) -> str:
    if action.undoes:
        at, undoes = _undone(action, named)
        return f"{'undid' if undoes else 'restored'} action {at.number}"
    if action.kind == "withdraw":
        selection = action.selection or {}
        return f"took back the decision on {selection['example']} of action {named[selection['action']].number}"
    if action.kind == "assign":
        return "assigned the examples"
    if action.kind == "stop_rule":
        return f"set what is to be found: {rule_of(action).words()}"
    if action.kind == "freeze":
        return f"froze a removal set of {(action.selection or {})['examples']:,} examples"
    return ", ".join(f"{number:,} {verdict.replace('_', ' ')}" for verdict, number in counts.items()) + KINDS.get(action.kind, "")


def _undone(undo: Action, named: Mapping[str, Action]) -> tuple[Action, bool]:
    """The action that a chain of undos is about, and whether it is undone by this one: every second restores it."""
    undoes, at = True, named[undo.undoes or ""]
    while at.undoes:
        undoes, at = not undoes, named[at.undoes]
    return at, undoes


def undone_words(log: DecisionLog, undo: Action) -> tuple[str, bool]:
    """What an undo did, in words (`restored action 4`), and whether it took something back."""
    named = {action.action_id: action for action in log.actions()}
    return _what(undo, {}, named), _undone(undo, named)[1]


def origin_words(selection: Mapping[str, Any] | None) -> str:
    """What a decision or a removal set came from, in words."""
    parts = []
    for name, value in (selection or {}).items():
        if name == "filter":
            parts += [f"{key.replace('_', ' ')}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in value.items()]
        elif name == "lasso":
            parts.append(f"lasso of {len(value)} area{'' if len(value) == 1 else 's'}")
        elif name == "query":
            parts.append(f"search: “{value}”")
        elif name == "top_percent":
            parts.append(f"top {value:g} %")
        elif name == "assignment":
            parts.append(f"{', '.join(value['auditors'])} · overlap {value['overlap']:g} %")
        elif name in ("page", "queue", "rank", "imported", "removal"):
            parts.append(str(value) if name == "page" else f"{name} {value}")
        elif name == "drawn":
            parts.append(f"{len(value):,} at random")
        elif name == "simulated":
            parts.append("simulated")
    return " · ".join(parts)
