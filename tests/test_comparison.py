"""What a comparison computes beside the figures of its variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biasdiff_core.audit import Audit
from biasdiff_core.comparison import Evaluated, build_comparison
from biasdiff_core.evaluation.suites import PAIRS_FILE
from biasdiff_core.workspace.artefacts import Artefact, open_artefact
from biasdiff_core.workspace.audits import AuditFolder


@pytest.fixture
def evaluations(finished_audit: Audit) -> dict[str, Artefact]:
    inputs = finished_audit.report().inputs
    variants = finished_audit.compare().variants
    return {variant: open_artefact(finished_audit.folder.path, "evaluation", inputs[variant]) for variant in variants}


def test_an_origin_trained_on_a_part_is_told_beside_every_comparison(finished_audit: Audit, evaluations: dict[str, Artefact]) -> None:
    notes = []
    for scope in ("full", "few"):
        folder = AuditFolder(finished_audit.folder.path)
        folder.__dict__["config"] = replace(finished_audit.config, warmup=replace(finished_audit.config.warmup, scope=scope))
        notes.append(" ".join(build_comparison(folder, evaluations).notes))
    assert "trained on 5 % of the corpus" in notes[1] and "of the corpus" not in notes[0]


def test_a_share_counts_the_pairs_that_have_a_score(
    finished_audit: Audit, evaluations: dict[str, Artefact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Evaluated.read

    def with_gaps(variant: str, artefact: Artefact) -> Evaluated:
        """As it was read, but that the first two stereotype pairs have no score, as in `modified` those that only add words."""
        found = read(variant, artefact)
        frame = found.scores.frame.copy()
        frame.loc[np.flatnonzero(frame["direction"] == "stereo")[:2], ["more_sum", "less_sum"]] = np.nan
        return replace(found, scores=replace(found.scores, frame=frame))

    monkeypatch.setattr(Evaluated, "read", with_gaps)
    share = build_comparison(finished_audit.folder, evaluations).metrics["npo"]["crows_pairs.sum.rise_undone"]
    stereotypes = int((pd.read_parquet(evaluations["npo"].path(PAIRS_FILE))["direction"] == "stereo").sum())
    assert (share.n, share.not_scored) == (stereotypes - 2, 2)
