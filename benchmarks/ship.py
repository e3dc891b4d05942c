"""Make the finished demo audit that comes with the project: heavy payloads archived, manifests and digests kept.

python -m benchmarks.demo --workspace DIR && python -m benchmarks.ship DIR demo
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from biasdiff_core.audit import Audit
from biasdiff_core.workspace.artefacts import archive, manifests, open_artefact

SHIPPED = Path(__file__).resolve().parents[1] / "assets" / "audits"
KEEP_BELOW = 150_000  # bytes


@click.command()
@click.argument("workspace", type=click.Path(path_type=Path, exists=True))
@click.argument("reference")
def main(workspace: Path, reference: str) -> None:
    """Copy the audit REFERENCE of WORKSPACE into assets/audits, without payloads over 150 kB."""
    source = Audit.open(reference, workspace).folder
    target = SHIPPED / source.id
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source.path, target, ignore=shutil.ignore_patterns("logs", "progress", "*.partial", ".*.lock"))
    for manifest in manifests(target):
        artefact = open_artefact(target, manifest.parent.parent.name, manifest.parent.name)
        heavy = [name for name, file in artefact.files.items() if file["bytes"] > KEEP_BELOW]
        if heavy:
            archive(artefact, heavy)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    click.echo(f"{target.name}: {size / 1e6:.2f} MB")
    if size > 2_000_000:
        raise SystemExit("The shipped audit must stay under 2 MB.")


if __name__ == "__main__":
    main()
