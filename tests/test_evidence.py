"""What a report stands on: frozen decisions by hand, where results come from, what is missing and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.config.mitigation import RemovalConfig
from biasdiff_core.corpus.card import built
from biasdiff_core.errors import DataError
from biasdiff_core.evidence import (
    Decided,
    corpus_card,
    frozen_decisions,
    groups_mentioned,
    nearest_types,
    or_error,
    outside,
    provenance,
    stands_on,
)
from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.review.removal import freeze, removal_set
from biasdiff_core.workspace.artefacts import MANIFEST, digest_bytes, digest_file, manifests, open_artefact, publish
from biasdiff_core.workspace.database import database

RANKING = [f"e{number}" for number in range(10)]


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(database(tmp_path), "audit")


def frozen(folder: Path, log: DecisionLog, percent: float) -> Decided:
    """What was decided, after freezing what is confirmed."""
    with publish(folder, "ranking", {}, {"scores": "s"}) as draft:
        pd.DataFrame({"id": RANKING}).to_parquet(draft.folder / "ranking.parquet")
    ranking = open_artefact(folder, "ranking", manifests(folder, "ranking")[0].parent.name)
    config = RemovalConfig()
    removal = freeze(folder, config, removal_set(config, RANKING, log.current(), log.head()[1]), ranking.key, log)
    return frozen_decisions(removal, ranking, {"e0": "age", "e1": "age", "e2": "gender"}, percent)


def test_frozen_decisions_by_hand(tmp_path: Path, log: DecisionLog) -> None:
    log.decide_each([("e0", "biased", ""), ("e1", "biased", ""), ("e2", "not_biased", ""), ("e3", "unsure", "")], "Ann")
    log.decide_each([("e0", "biased", ""), ("e1", "not_biased", ""), ("e2", "not_biased", "")], "Bo")
    log.decide_many(["e8", "e9"], "biased", "Bo")
    log.decide("e7", "biased", "Cy")
    log.undo("Cy")
    found = frozen(tmp_path / "audit", log, percent=30)
    log.decide("e0", "not_biased", "Ann")  # after freezing: not in it
    assert (len(found.links), found.undone, found.cut, found.ranked) == (5, {log.actions()[3].action_id}, 3, 10)
    # What holds is the latest: e3 of Ann; e0, e1, e2 and in bulk e8, e9 of Bo; nothing of Cy.
    ann, bo = found.judges
    assert (ann.auditor, ann.inspected, ann.in_bulk, dict(ann.verdicts)) == ("Ann", 1, 0, {"unsure": 1})
    assert (bo.auditor, bo.inspected, bo.in_bulk, dict(bo.verdicts)) == ("Bo", 3, 2, {"biased": 3, "not_biased": 2})
    # Both judged e0, e1, e2 and agree on 2 of 3: observed 2/3. Ann said biased twice, Bo once: by chance 2/3 · 1/3 + 1/3 · 2/3 = 4/9.
    # Kappa = (2/3 − 4/9) / (1 − 4/9) = 2/5.
    overall, age, gender = found.agreement
    assert found.second_reviews == 3 and overall.kappas["Ann", "Bo"].value == pytest.approx(0.4)
    assert (age.bias_type, age.alpha.n, gender.bias_type, gender.alpha.n) == ("age", 2, "gender", 1)
    # The first 3 ranks are all inspected; by what holds, 1 of 3 is biased.
    precision, coverage, share, left = found.estimates
    assert precision.value == pytest.approx(1 / 3) and precision.n == 3
    assert coverage.value is None and "drawn at random" in coverage.convention


def test_without_a_second_review_agreement_is_not_defined(tmp_path: Path, log: DecisionLog) -> None:
    log.decide("e0", "biased", "Ann")
    found = frozen(tmp_path / "audit", log, percent=10)
    assert found.second_reviews == 0 and found.agreement[0].alpha.value is None


def test_a_result_stands_on_all_that_it_was_made_from(finished_audit: Audit) -> None:
    report = finished_audit.report()
    found = stands_on(finished_audit.folder, [report])
    stages = [one.stage for one in found]
    # 5 evaluations (base, origin, retrain, NPO, random) and 3 mitigations.
    assert {stage: stages.count(stage) for stage in stages} == {
        "corpus": 1,
        "probes": 1,
        "warmup": 1,
        "gradients": 1,
        "scores": 1,
        "ranking": 1,
        "removal": 1,
        "mitigation": 3,
        "evaluation": 5,
        "report": 1,
    }
    assert found == sorted(found, key=lambda one: one.created)
    for source, artefact in zip(provenance(found), found, strict=True):
        assert source.digest == digest_file(artefact.folder / MANIFEST)
    digests = outside(found)
    assert set(digests) == {"corpus", "probes", "model", "pairs", "held_out", "answers"}
    assert digests["corpus"] == digest_file(Path(finished_audit.config.corpus.path))


def test_the_nearest_probe_gives_its_type(finished_audit: Audit) -> None:
    top = pd.DataFrame({"id": ["a", "a", "b"], "place": [1, 2, 1], "probe": ["p", "q", "q"]})
    probes = pd.DataFrame({"id": ["p", "q"], "bias_type": ["age", "gender"]})
    assert nearest_types(top, probes).to_dict() == {"a": "age", "b": "gender"}
    tables = [finished_audit.artefact(stage).path(name) for stage, name in (("scores", "top_probes.parquet"), ("probes", "probes.parquet"))]
    kinds = nearest_types(*map(pd.read_parquet, tables))
    assert len(kinds) == 40 and set(kinds) == {"gender", "age", "nationality"}


def test_the_card_is_that_of_the_file_or_it_is_said_why_not(tmp_path: Path) -> None:
    rows = [("A text.", "1"), ("Another.", "0")]
    made = built(recipe="mix", about="For a test.", seed=1, ratio=None, columns=("text", "label"), rows=rows, taken=(), notes=("A note.",))
    path = tmp_path / "mix.csv"
    made.write(path)
    digest = digest_bytes(made.content)
    assert corpus_card(str(path), digest) == made.card.lines() and f"SHA-256 of the file: {digest}" in made.card.lines()
    with pytest.raises(DataError, match="of another file"):
        corpus_card(str(path), "0" * 64)
    (tmp_path / "mix.card.json").unlink()
    with pytest.raises(DataError, match="not built from a recipe"):
        corpus_card(str(path), digest)
    assert isinstance(or_error(lambda: corpus_card("owner/name", digest)), DataError)


def test_mentions_are_counted_before_and_after(finished_workspace: Path, finished_audit: Audit) -> None:
    audit = Audit.open(finished_audit.folder.id, finished_workspace)
    texts = pd.read_parquet(audit.artefact("corpus").path("corpus.parquet")).set_index("id")["text"]
    women = [id_ for id_, text in texts.items() if "women" in text]
    # 4 stereotypes and 7 others speak of women, 7 of men.
    assert len(women) == 11
    found = {one.bias_type: one for one in groups_mentioned(audit.folder, audit.artefact("corpus"), women)}
    assert (found["gender"].before, found["gender"].after) == (18, 7)
    assert all(one.group is None and one.before for one in found.values())


def test_probes_of_an_audit_without_gradients_say_so(finished_workspace: Path, finished_audit: Audit) -> None:
    audit = Audit.open(finished_audit.folder.id, finished_workspace)
    shutil.rmtree(audit.folder.path / "gradients")
    quality = audit.probe_quality()
    assert quality["coherence"].value is None and "not measured" in quality["coherence"].convention
    assert quality["one_change"].value is not None
    assert json.dumps(quality.to_json())
