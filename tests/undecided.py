"""A finished audit on which nobody has decided anything yet."""

from __future__ import annotations

from pathlib import Path

from biasdiff_core.audit import Audit
from biasdiff_core.review.decisions import SIMULATED_AUDITOR
from biasdiff_core.workspace.audits import list_audits


def undecided_audit(workspace: Path) -> Audit:
    """The audit of a copied workspace, after the simulated auditor's action is undone."""
    audit = Audit(list_audits(workspace)[0])
    audit.log.undo(SIMULATED_AUDITOR)
    return audit
