"""The removal set: which examples a mitigation takes out, frozen together with the decisions that it follows from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from biasdiff_core.attribution.ranking import selected_count
from biasdiff_core.config.mitigation import Policy, RemovalConfig
from biasdiff_core.errors import ArtefactError, ReviewError, one_line
from biasdiff_core.review.decisions import Decision, DecisionLog, Selection, regarded_head
from biasdiff_core.review.history import origin_words
from biasdiff_core.workspace.artefacts import (
    Artefact,
    digest_file,
    digest_json,
    is_complete,
    open_artefact,
    publish,
    stage_key,
    write_atomic,
)

STAGE = "removal"


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Examples for the policy `filter`, and what selected them, as decisions record it."""

    ids: tuple[str, ...]
    selection: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Selected:
        """Of a file: one id a line, or a JSON list as in the `ids.json` of a frozen set. Raises ReviewError when it cannot be read."""
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
            ids = tuple(json.loads(text)) if text.startswith("[") else tuple(filter(None, map(str.strip, text.splitlines())))
        except (OSError, ValueError) as error:
            raise ReviewError(f"{path} cannot be read: {one_line(error)}.", "Give one id a line, or a JSON list of ids.") from error
        if not all(isinstance(id_, str) for id_ in ids):
            raise ReviewError(f"{path} holds something that is no id.", "Give one id a line, or a JSON list of ids.")
        return cls(ids=ids, selection={"imported": path.name, "sha256": digest_file(path)})


@dataclass(frozen=True, kw_only=True)
class RemovalSet:
    """The ids to remove, sorted, and how they came about.

    `percent`: of `top_percent` alone. `selection`: what selected the examples of `filter`. `frozen_by`: who froze it, empty before that
    and where nobody gave a name. `digest`: SHA-256 of the ids. `decision_head`: hash of the last action regarded.
    `simulated`: at least one of the decisions regarded is by the simulated auditor. `ranked`: examples in the ranking;
    `candidates`: examples that the policy looks at; of them `false_positives` were spared for the verdict `not_biased`;
    of the ids, `confirmed` are judged `biased` and `undecided` have no decision.
    """

    policy: Policy
    percent: float | None
    ids: tuple[str, ...]
    digest: str
    decision_head: str
    simulated: bool
    ranked: int
    candidates: int
    false_positives: int
    confirmed: int
    undecided: int
    selection: Selection = None
    frozen_by: str = ""

    def policy_words(self) -> str:
        """What is removed, in words."""
        if self.policy == "confirmed":
            return "what was confirmed as biased"
        if self.policy == "top_percent":
            return f"top {self.percent:g} % of the ranking, less the false positives"
        return f"what was selected ({origin_words(self.selection)}), less the false positives"


def removal_set(
    config: RemovalConfig,
    ranking_ids: Sequence[str],
    decisions: Mapping[str, Decision],
    head: str,
    selected: Selected | None = None,
) -> RemovalSet:
    """The examples to remove under the policy. `ranking_ids`: best first; `decisions`: as `DecisionLog.current()`; `head`: hash of the
    last action regarded (`regarded_head`); `selected`: for the policy `filter`.

    `confirmed`: verdict `biased` only, also of examples without a rank; `neutral_but_influential` is no confirmation,
    since the text itself is unbiased. `top_percent`: the first n·percent/100 of the ranking (rounded half up) less those
    judged `not_biased` (paper 3.5). `filter`: those selected, less the same. Raises ReviewError when nothing would be removed or fewer
    than 2 examples would be left, and for `filter` without a selection or with ids that have no rank.
    """
    verdicts = {id_: decision.verdict for id_, decision in decisions.items()}
    if config.policy == "confirmed":
        candidates = [id_ for id_, verdict in verdicts.items() if verdict == "biased"]
    elif config.policy == "filter":
        candidates = _ranked(selected, ranking_ids)
    else:
        candidates = list(ranking_ids[: selected_count(len(ranking_ids), config.percent)])
    ids = tuple(sorted(id_ for id_ in candidates if verdicts.get(id_) != "not_biased"))
    _check(ids, ranking_ids, config)
    return RemovalSet(
        policy=config.policy,
        percent=config.percent if config.policy == "top_percent" else None,
        ids=ids,
        digest=digest_json(ids),
        decision_head=head,
        simulated=any(decisions[id_].simulated for id_ in candidates if id_ in decisions),
        ranked=len(ranking_ids),
        candidates=len(candidates),
        false_positives=len(candidates) - len(ids),
        confirmed=sum(verdicts.get(id_) == "biased" for id_ in ids),
        undecided=sum(id_ not in verdicts for id_ in ids),
        selection=selected.selection if selected and config.policy == "filter" else None,
    )


def _ranked(selected: Selected | None, ranking_ids: Sequence[str]) -> list[str]:
    if selected is None:
        raise ReviewError("The policy filter needs a selection.", "Name a file of ids (--ids), or filter on Explore first.")
    unknown = sorted(set(selected.ids).difference(ranking_ids))
    if unknown:
        raise ReviewError(f"{len(unknown)} selected id(s) have no rank, e.g. {unknown[0]}.", "Select among the ranked examples.")
    return list(dict.fromkeys(selected.ids))


def _check(ids: Sequence[str], ranking_ids: Sequence[str], config: RemovalConfig) -> None:
    if not ids:
        mend = {
            "confirmed": "Confirm an example as biased first.",
            "top_percent": "Raise removal.percent or review the decisions.",
            "filter": "Select other examples or review the decisions.",
        }[config.policy]
        raise ReviewError(f"The removal set is empty (policy {config.policy}).", mend)
    left = len(set(ranking_ids).difference(ids))
    if left < 2:
        raise ReviewError(f"Removing {len(ids)} of {len(ranking_ids)} examples would leave {left}.", "At least 2 must be left to train on.")


def freeze(audit: Path, config: RemovalConfig, removal: RemovalSet, ranking_key: str, log: DecisionLog, by: str = "") -> Artefact:
    """Publish the removal set (ids.json) with the action log up to its head (decisions.jsonl); opened when it is there already.

    `by`: who freezes it; the name stands with the set, and in the log as an action that holds key and digest.
    Raises ReviewError when the head of the removal set is not in the log.
    """
    record = {"removal": config, "ids_digest": removal.digest, "decisions_head": removal.decision_head}
    inputs = {"ranking": ranking_key}
    key = stage_key(STAGE, record, inputs)
    if not is_complete(audit, STAGE, key):
        number = next((action.number for action in log.actions() if action.hash == removal.decision_head), 0)
        if number == 0 and removal.decision_head != DecisionLog.EMPTY_HEAD:
            raise ReviewError(
                f"The decision log of {log.audit_id} has no action {removal.decision_head[:12]}….", "Make the removal set anew."
            )
        links = log.links()[:number]
        with publish(audit, STAGE, record, inputs) as draft:
            write_atomic(draft.folder / "ids.json", json.dumps(removal.ids, indent=0))
            write_atomic(draft.folder / "decisions.jsonl", "".join(json.dumps(link, ensure_ascii=False) + "\n" for link in links))
            signed = replace(removal, frozen_by=by)
            draft.facts.update({name: value for name, value in asdict(signed).items() if name != "ids"})
    artefact = open_artefact(audit, STAGE, key)
    # Also of a set that is there already: the process that froze it may have died before it told the log.
    signed_by = artefact.facts.get("frozen_by")
    if signed_by and not any(action.kind == "freeze" and (action.selection or {}).get("removal") == key for action in log.actions()):
        log.declare("freeze", {"removal": key, "examples": len(removal.ids), "ids_digest": removal.digest}, signed_by)
    return artefact


def load_removal(artefact: Artefact) -> RemovalSet:
    """The removal set of a frozen artefact. Raises ArtefactError when the ids do not have the recorded digest."""
    ids = tuple(artefact.read_json("ids.json"))
    if digest_json(ids) != artefact.config["ids_digest"]:
        raise ArtefactError(
            f"removal/{artefact.key}: the ids have the digest {digest_json(ids)[:12]}…, recorded is {artefact.config['ids_digest'][:12]}….",
            "Delete it and freeze the removal set again.",
        )
    return RemovalSet(ids=ids, **artefact.facts)


def replay(log: DecisionLog, decisions_jsonl: Path) -> int:
    """Take a frozen action log over into an empty one, ids and hashes unchanged; the number of actions.

    Where `log` ends with the same decision, but for freezing, nothing is left to do: the one who was killed after it goes on.
    Raises ArtefactError when the file is no action log, ReviewError when it does not verify or `log` holds other actions.
    """
    try:
        links = [json.loads(line) for line in decisions_jsonl.read_text(encoding="utf8").split("\n") if line]
        if not links or links[-1]["hash"] != regarded_head(log.actions()):
            log.adopt(links)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{decisions_jsonl} is no action log: {error!r}.", "Run `biasdiff verify` on the audit.") from error
    return len(links)
