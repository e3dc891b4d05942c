"""The removal set: which examples a mitigation takes out, frozen together with the decisions that it follows from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from biasdiff_core.attribution.ranking import selected_count
from biasdiff_core.config.mitigation import Policy, RemovalConfig
from biasdiff_core.errors import ArtefactError, ReviewError
from biasdiff_core.review.decisions import Decision, DecisionLog
from biasdiff_core.workspace.artefacts import Artefact, digest_json, is_complete, open_artefact, publish, stage_key, write_atomic

STAGE = "removal"


@dataclass(frozen=True, kw_only=True)
class RemovalSet:
    """The ids to remove, sorted, and how they came about.

    `percent`: None for `confirmed`. `digest`: SHA-256 of the ids. `decision_head`: hash of the last action regarded.
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


def removal_set(config: RemovalConfig, ranking_ids: Sequence[str], decisions: Mapping[str, Decision], head: str) -> RemovalSet:
    """The examples to remove under the policy. `ranking_ids`: best first; `decisions`: as `DecisionLog.current()`; `head`: its hash.

    `confirmed`: verdict `biased` only, also of examples without a rank; `neutral_but_influential` is no confirmation,
    since the text itself is unbiased. `top_percent`: the first n·percent/100 of the ranking (rounded half up) less those
    judged `not_biased` (paper 3.5). Raises ReviewError when nothing would be removed or fewer than 2 examples would be left.
    """
    verdicts = {id_: decision.verdict for id_, decision in decisions.items()}
    if config.policy == "confirmed":
        candidates = [id_ for id_, verdict in verdicts.items() if verdict == "biased"]
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
    )


def _check(ids: Sequence[str], ranking_ids: Sequence[str], config: RemovalConfig) -> None:
    if not ids:
        mend = "Confirm an example as biased first." if config.policy == "confirmed" else "Raise removal.percent or review the decisions."
        raise ReviewError(f"The removal set is empty (policy {config.policy}).", mend)
    left = len(set(ranking_ids).difference(ids))
    if left < 2:
        raise ReviewError(f"Removing {len(ids)} of {len(ranking_ids)} examples would leave {left}.", "At least 2 must be left to train on.")


def freeze(audit: Path, config: RemovalConfig, removal: RemovalSet, ranking_key: str, log: DecisionLog) -> Artefact:
    """Publish the removal set (ids.json) with the action log up to its head (decisions.jsonl); opened when it is there already.

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
            draft.facts.update({name: value for name, value in asdict(removal).items() if name != "ids"})
    return open_artefact(audit, STAGE, key)


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

    Raises ArtefactError when the file is no action log, ReviewError when it does not verify or `log` is not empty.
    """
    try:
        links = [json.loads(line) for line in decisions_jsonl.read_text(encoding="utf8").split("\n") if line]
        log.adopt(links)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{decisions_jsonl} is no action log: {error!r}.", "Run `biasdiff verify` on the audit.") from error
    return len(links)
