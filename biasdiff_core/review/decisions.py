"""Human decisions: an append-only log of actions, one hash-chain link an action, and its fold to what holds now."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy.engine import Connection

from biasdiff_core.errors import ReviewError
from biasdiff_core.review import chain
from biasdiff_core.review.exchange import read_rows, write_rows
from biasdiff_core.workspace.artefacts import digest_file
from biasdiff_core.workspace.database import Database

Verdict = Literal["biased", "not_biased", "neutral_but_influential", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
PairVerdict = Literal["accept", "edit", "reject"]  # on probe pairs, see `curation`
PAIR_VERDICTS: tuple[PairVerdict, ...] = get_args(PairVerdict)
Declared = Literal["assign", "stop_rule", "freeze"]
Kind = Literal["decide", "bulk", "import", "undo", "withdraw"] | Declared
Selection = Mapping[str, Any] | None
ByAuditor = dict[str, dict[str, "Decision"]]  # auditor → example id → decision

SIMULATED_AUDITOR = "demo (known labels)"
ADJUDICATION: Literal["disagreements"] = "disagreements"  # the queue that marks a decision as an adjudicator's


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One verdict on one example. `inspected`: seen on its own, not by a bulk act. `selection`: what led to it (filter, lasso)."""

    example_id: str
    verdict: Verdict | PairVerdict
    auditor: str
    reason: str
    created: str
    inspected: bool
    action_id: str
    selection: Selection

    @property
    def simulated(self) -> bool:
        """Whether no person made it."""
        return self.auditor == SIMULATED_AUDITOR

    @property
    def adjudication(self) -> bool:
        """Whether it settles a disagreement: made with the verdicts of others in view, so no judgement of its own."""
        return (self.selection or {}).get("queue") == ADJUDICATION


@dataclass(frozen=True, kw_only=True)
class Action:
    """One link of the log.

    `decide`: examples judged on their own; `bulk`: one verdict for many; `undo`: takes `undoes` back; `withdraw`: takes back the decision
    on one example of an action, both named in `selection`, whose others stay as and where they are. Those without decisions say in
    `selection` what they declare: `assign`, who reviews what from now on (see `assignment`); `stop_rule`, when enough is found (see
    `stop_rule`); `freeze`, that a removal set was frozen (see `removal`), which cannot be undone.
    """

    number: int
    action_id: str
    kind: Kind
    auditor: str
    created: str
    selection: Selection
    undoes: str | None
    hash: str
    count: int


def undone_by(actions: Iterable[Action]) -> dict[str, Action]:
    """The undo that stands against each undone action, by the id of that. An undo that is itself undone counts for nothing, so undoing
    it restores what it took back."""
    found: dict[str, Action] = {}
    for action in sorted(actions, key=lambda action: action.number, reverse=True):
        if action.undoes and action.action_id not in found:
            found[action.undoes] = action
    return found


def in_effect(actions: Sequence[Action]) -> set[str]:
    """Ids of the actions that are not undone."""
    return {action.action_id for action in actions} - undone_by(actions).keys()


def withdrawn(actions: Sequence[Action]) -> set[tuple[str, str]]:
    """The decisions that were taken back one by one: (action id, example id)."""
    standing = in_effect(actions)
    taken = [action.selection or {} for action in actions if action.kind == "withdraw" and action.action_id in standing]
    return {(selection["action"], selection["example"]) for selection in taken}


def _valid(actions: Sequence[Action], decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions that nobody took back, in their order."""
    standing, taken = in_effect(actions), withdrawn(actions)
    return [one for one in decisions if one.action_id in standing and (one.action_id, one.example_id) not in taken]


def last_of(actions: Sequence[Action], auditor: str) -> Action | None:
    """The newest action of this auditor that stands and that an undo without a name takes back: none that takes back, no freezing."""
    standing, passed = in_effect(actions), ("undo", "withdraw", "freeze")
    own = (a for a in reversed(actions) if a.auditor == auditor and a.kind not in passed and a.action_id in standing)
    return next(own, None)


def regarded_head(actions: Sequence[Action]) -> str:
    """Hash of the last action that a removal set can follow from: freezing one changes nothing that the next would regard."""
    return next((action.hash for action in reversed(actions) if action.kind != "freeze"), DecisionLog.EMPTY_HEAD)


def fold(actions: Sequence[Action], decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The latest decision on each example that is not taken back, whoever made it."""
    return _latest(actions, _valid(actions, decisions))


def _latest(actions: Sequence[Action], valid: Iterable[Decision]) -> dict[str, Decision]:
    number = {action.action_id: action.number for action in actions}
    return {decision.example_id: decision for decision in sorted(valid, key=lambda decision: number[decision.action_id])}


def fold_by_auditor(actions: Sequence[Action], decisions: Iterable[Decision]) -> ByAuditor:
    """The latest inspected decision of each auditor on each example (auditor → id → decision), adjudications aside."""
    own: dict[str, list[Decision]] = {}
    for decision in _valid(actions, decisions):
        if decision.inspected and not decision.adjudication:
            own.setdefault(decision.auditor, []).append(decision)
    return {auditor: _latest(actions, of_auditor) for auditor, of_auditor in own.items()}


def fold_first(actions: Sequence[Action], decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The first inspected decision on each example that is not taken back, in the order in which they were made."""
    first: dict[str, Decision] = {}
    for decision in _valid(actions, decisions):
        if decision.inspected:
            first.setdefault(decision.example_id, decision)
    return first


def read_links(links: Iterable[chain.Link]) -> tuple[list[Action], list[Decision]]:
    """Actions and decisions of a log's links, oldest first, undone ones too."""
    kept = list(links)
    return [_action(link) for link in kept], [decision for link in kept for decision in decisions_of(link)]


class DecisionLog:
    """The decisions of one audit. Nothing in it is ever changed or deleted; many processes may append at once.

    `known_ids`: ids of the corpus; when given, decisions on any other id are refused. `verdicts`: those that may be given.
    """

    EMPTY_HEAD = chain.GENESIS

    def __init__(
        self,
        db: Database,
        audit_id: str,
        known_ids: Collection[str] | None = None,
        verdicts: Collection[Verdict | PairVerdict] = VERDICTS,
    ) -> None:
        self.audit_id = audit_id
        self._db = db
        self._verdicts = verdicts
        self._known_ids = None if known_ids is None else frozenset(known_ids)
        self._actions: list[Action] = []
        self._folded: tuple[int, dict[str, Decision], ByAuditor, dict[str, Decision]] = (0, {}, {}, {})

    def decide(
        self, example_id: str, verdict: Verdict | PairVerdict, auditor: str, reason: str = "", selection: Selection = None
    ) -> Action:
        """Record the verdict on one example that the auditor has seen. Raises ReviewError when it cannot be accepted."""
        return self.decide_each([(example_id, verdict, reason)], auditor, selection)

    def decide_each(self, judged: Sequence[tuple[str, Verdict | PairVerdict, str]], auditor: str, selection: Selection = None) -> Action:
        """Record (id, verdict, reason) of examples seen one by one, as one action. Raises ReviewError."""
        rows = [{"example_id": id_, "verdict": verdict, "reason": reason, "inspected": True} for id_, verdict, reason in judged]
        return self._append("decide", auditor, rows, selection)

    def decide_many(self, ids: Sequence[str], verdict: Verdict, auditor: str, reason: str = "", selection: Selection = None) -> Action:
        """Record one verdict on many examples that were not inspected one by one, as one action. Raises ReviewError."""
        rows = [{"example_id": id_, "verdict": verdict, "reason": reason, "inspected": False} for id_ in ids]
        return self._append("bulk", auditor, rows, selection)

    def import_(self, path: Path, auditor: str) -> Action:
        """Record the decisions of a .jsonl or .csv file as one action of `auditor`; each keeps the auditor and time it names.

        Raises ReviewError with the line of a row that cannot be accepted.
        """
        rows = read_rows(path)
        return self._append("import", auditor, rows, {"imported": path.name, "sha256": digest_file(path)})

    def declare(self, kind: Declared, terms: Mapping[str, Any], auditor: str) -> Action:
        """Record something that is no decision on examples (see `Action`). Raises ReviewError."""
        auditor = _text(auditor, "The auditor's name")
        with self._db.write(self.audit_id) as connection:
            return self._link(connection, kind, auditor, [], terms, None)

    def undo(self, auditor: str, action_id: str | None = None, selection: Selection = None) -> Action:
        """Take back an action; by default the last one of this auditor (`last_of`).

        `selection`: what asked for it. The undo of an undo restores. Raises ReviewError when there is none, it is undone already, or it
        froze a removal set.
        """
        auditor = _text(auditor, "The auditor's name")
        with self._db.write(self.audit_id) as connection:
            actions = [_action(header) for header in chain.headers(connection, self.audit_id)]
            named = {action.action_id: action for action in actions}
            action = last_of(actions, auditor) if action_id is None else named.get(action_id)
            if action is None and action_id is None:
                raise ReviewError(f"{auditor} has no action that could be undone.")
            if action is None:
                raise ReviewError(f"There is no action {action_id} in {self.audit_id}.", "See `actions()`.")
            if action.kind == "freeze":
                raise ReviewError(f"Action {action.number} froze a removal set, which stays as it is.", "Freeze another one.")
            undo = undone_by(actions).get(action.action_id)
            if undo is not None:
                raise ReviewError(f"Action {action.number} is undone already.", f"Undo action {undo.number} to restore it.")
            return self._link(connection, "undo", auditor, [], selection, action.action_id)

    def withdraw(self, auditor: str, decision: Decision, selection: Selection = None) -> Action:
        """Take back one decision; the others of its action stay as and where they are, and without others the action is undone.

        The undo of this restores it. Raises ReviewError when it is taken back already.
        """
        auditor = _text(auditor, "The auditor's name")
        with self._db.write(self.audit_id) as connection:
            actions = [_action(header) for header in chain.headers(connection, self.audit_id)]
            made = next((action for action in actions if action.action_id == decision.action_id), None)
            links = chain.read(connection, self.audit_id, after=made.number - 1)[:1] if made else []
            standing = _valid(actions, [one for link in links for one in decisions_of(link)])
            if decision not in standing:
                raise ReviewError(f"The decision on {decision.example_id} is taken back already.", "See the history.")
            if len(standing) == 1:
                return self._link(connection, "undo", auditor, [], selection, decision.action_id)
            named = {**(selection or {}), "action": decision.action_id, "example": decision.example_id}
            return self._link(connection, "withdraw", auditor, [], named, None)

    def actions(self) -> list[Action]:
        """All actions, oldest first. Only those newer than the last call are read."""
        known = self._actions
        with self._db.read() as connection:
            newer = chain.headers(connection, self.audit_id, after=len(known))
        self._actions = known = [*known, *map(_action, newer)]
        return list(known)

    def action(self, number: int) -> Action:
        """The action with this number. Raises ReviewError when there is none."""
        found = next((action for action in self.actions() if action.number == number), None)
        if found is None:
            raise ReviewError(f"There is no action {number} in {self.audit_id}.", f"See `biasdiff decide history {self.audit_id}`.")
        return found

    def verdict_counts(self) -> dict[str, dict[str, int]]:
        """How often each verdict was given in each action that holds decisions, by the action's id."""
        with self._db.read() as connection:
            return chain.verdict_counts(connection, self.audit_id)

    def head(self) -> tuple[int, str]:
        """Number and hash of the last action; `(0, "000…")` of an empty log."""
        with self._db.read() as connection:
            return chain.head(connection, self.audit_id)

    def decisions(self) -> list[Decision]:
        """All decisions ever made, oldest first, those of undone actions too."""
        return [decision for link in self.links() for decision in decisions_of(link)]

    def current(self) -> dict[str, Decision]:
        """The decision that holds on each example, whoever made it (see `fold`)."""
        return dict(self._follow()[0])

    def by_auditor(self) -> ByAuditor:
        """What each auditor holds on their own (see `fold_by_auditor`)."""
        return {auditor: dict(held) for auditor, held in self._follow()[1].items()}

    def first_inspected(self) -> dict[str, Decision]:
        """How each inspected example came to be so, in order (see `fold_first`)."""
        return dict(self._follow()[2])

    def _follow(self) -> tuple[dict[str, Decision], ByAuditor, dict[str, Decision]]:
        """The three folds. Only actions newer than the last call are read, unless one takes something back."""
        number, holding, each, first = self._folded
        with self._db.read() as connection:
            links = chain.read(connection, self.audit_id, after=number)
            if any(link["kind"] in ("undo", "withdraw") for link in links):
                holding, each, first, links = {}, {}, {}, chain.read(connection, self.audit_id)
        if links:
            actions, decisions = read_links(links)
            holding = holding | fold(actions, decisions)
            newer = fold_by_auditor(actions, decisions)
            each = {auditor: each.get(auditor, {}) | newer.get(auditor, {}) for auditor in {**each, **newer}}
            first = first | {id_: decision for id_, decision in fold_first(actions, decisions).items() if id_ not in first}
            self._folded = (actions[-1].number, holding, each, first)
        return holding, each, first

    def verify(self, known_heads: Collection[str] = ()) -> list[str]:
        """Recompute the hash chain; what does not fit, first action first (see `chain.misfits`). Empty when all fits."""
        with self._db.read() as connection:
            links, lost = chain.read(connection, self.audit_id), chain.orphans(connection, self.audit_id)
        return chain.misfits(links, known_heads) + ([f"{lost} decision(s) belong to no action of {self.audit_id}"] if lost else [])

    def links(self, after: int = 0) -> list[dict[str, Any]]:
        """The log as chain links (see `chain`), oldest first; only those with a number above `after`."""
        with self._db.read() as connection:
            return chain.read(connection, self.audit_id, after=after)

    def adopt(self, links: Sequence[chain.Link]) -> None:
        """Take over a whole log with its ids and hashes. Raises ReviewError when this one is not empty or the other does not verify."""
        found = chain.misfits(links)
        if found:
            raise ReviewError(f"The log does not verify: {found[0]}.", "Get an unaltered copy.")
        self._check_ids([row["example_id"] for link in links for row in link["decisions"]])
        with self._db.write(self.audit_id) as connection:
            number, _ = chain.head(connection, self.audit_id)
            if number:
                mend = "Only an empty log can take over another: choose another workspace."
                raise ReviewError(f"{self.audit_id} has {number} action(s) already.", mend)
            if links:
                chain.insert(connection, self.audit_id, links)

    def export(self, path: Path) -> int:
        """Write the decisions that hold now as .csv, .jsonl or .parquet, by example id; how many. Raises ReviewError for another suffix."""
        current = self.current()
        write_rows([asdict(current[id_]) for id_ in sorted(current)], path)
        return len(current)

    def _append(self, kind: Kind, auditor: str, rows: Sequence[Mapping[str, Any]], selection: Selection) -> Action:
        auditor = _text(auditor, "The auditor's name")
        if not rows:
            raise ReviewError("No example is named.", "Select at least one.")
        checked = [_checked(row, auditor, self._verdicts) for row in rows]
        self._check_ids([row["example_id"] for row in checked])
        with self._db.write(self.audit_id) as connection:
            return self._link(connection, kind, auditor, checked, selection, None)

    def _check_ids(self, ids: Iterable[str]) -> None:
        unknown = [] if self._known_ids is None else sorted(set(ids) - self._known_ids)
        if unknown:
            raise ReviewError(
                f"{len(unknown)} id(s) are not in the corpus of {self.audit_id}, e.g. {unknown[0]}.", "Use ids of its ranking."
            )

    def _link(
        self,
        connection: Connection,
        kind: Kind,
        auditor: str,
        rows: Sequence[Mapping[str, Any]],
        selection: Selection,
        undoes: str | None,
    ) -> Action:
        """Append one link; the caller holds the write lock, so the head cannot move."""
        number, previous = chain.head(connection, self.audit_id)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        link: dict[str, Any] = {
            "number": number + 1,
            "action_id": uuid.uuid4().hex,
            "kind": kind,
            "auditor": auditor,
            "created": now,
            "selection": _plain(selection),
            "undoes": undoes,
            "previous_hash": previous,
            "count": len(rows),
            "decisions": [{**row, "created": row["created"] or now} for row in rows],
        }
        link["hash"] = chain.link_hash(link)
        chain.insert(connection, self.audit_id, [link])
        return _action(link)


def _action(link: chain.Link) -> Action:
    return Action(**{field.name: link[field.name] for field in fields(Action)})


def decisions_of(link: chain.Link) -> Iterable[Decision]:
    """The decisions of one link of the log."""
    for row in link["decisions"]:
        yield Decision(**row, action_id=link["action_id"], selection=link["selection"])


def _checked(row: Mapping[str, Any], auditor: str, verdicts: Collection[str]) -> dict[str, Any]:
    where = f"{row['where']}: " if "where" in row else ""
    if row["verdict"] not in verdicts:
        raise ReviewError(f"{where}the verdict is {row['verdict']!r}.", f"Use one of {', '.join(verdicts)}.")
    return {
        "example_id": _text(row["example_id"], f"{where}the example id"),
        "verdict": row["verdict"],
        "auditor": _text(row.get("auditor") or auditor, f"{where}the auditor's name"),
        "reason": _storable(row["reason"], f"{where}the reason"),
        "created": _storable(row.get("created", ""), f"{where}the time"),
        "inspected": row["inspected"],
    }


def _text(value: str, what: str) -> str:
    if not value.strip():
        raise ReviewError(f"{what} is empty.", "Give one.")
    return _storable(value.strip(), what)


def _storable(value: str, what: str) -> str:
    """`value`, unless no database or JSON file could hold it (NUL, half a surrogate pair)."""
    if "\0" in value or not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ReviewError(f"{what} holds a character that is no text: {value!r:.60}.", "Remove it.")
    return value


def _plain(selection: Selection) -> Any:
    """The selection as it comes back from JSON, so that hash and stored text agree."""
    try:
        return json.loads(json.dumps(selection, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ReviewError(f"The selection cannot be written as JSON: {error}.", "Use plain values in it.") from error
