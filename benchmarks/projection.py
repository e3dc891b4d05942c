"""What a projection costs beside the gradients that it projects, by the shape of the bundled model's LoRA.

python -m benchmarks.projection

Measured on one LoRA weight of 16 × 576 and scaled to all 921,600: both projections do the same work for every weight. CPU seconds of one
thread, so that a busy machine counts little.
"""

from __future__ import annotations

import time
from typing import get_args

import click
import torch

from benchmarks.record import dry_option, record
from biasdiff_core.attribution.projection import HELD_ROWS, make_projection
from biasdiff_core.config.gradients import GradientConfig, ProjectionKind

MEASURED = 16 * 576
WEIGHTS = 921_600
ROUNDS = 3


def cpu_seconds(kind: ProjectionKind, dim: int, rows: int, batch: int) -> float:
    """CPU seconds to project `rows` vectors that come `batch` at a time, the least of some rounds; what is kept between them is made."""
    projector, vectors = make_projection(kind, dim, 0), torch.randn(batch, MEASURED)
    taken = []
    for _ in range(1 + ROUNDS):
        started = time.process_time()
        for _ in range(rows // batch):
            projector.add(torch.zeros(batch, dim), "lora_A", vectors)
        projector.flush()
        taken.append(time.process_time() - started)
    return min(taken[1:])


@click.command()
@click.option("--dim", type=int, default=GradientConfig().proj_dim, show_default=True)
@dry_option
def main(dim: int, dry: bool) -> None:
    """Record CPU milliseconds an example of each projection; of the dense one also where a batch of 16 has its own making of signs."""
    torch.set_num_threads(1)
    cases = [(kind, "", HELD_ROWS) for kind in get_args(ProjectionKind)] + [("rademacher", ".alone", 16)]
    for kind, name, rows in cases:
        milliseconds = 1000 * cpu_seconds(kind, dim, rows, 16) / rows * WEIGHTS / MEASURED
        operations = WEIGHTS * (dim if kind == "rademacher" else 1)
        work = f"{WEIGHTS:,} weights to {dim:,} ({operations / 1e6:,.1f} M multiply-adds)"
        unit = f"CPU ms an example, one thread, to project {work}, {rows} rows at a time"
        record(f"projection.{kind}{name}.cpu_ms", milliseconds, n=rows, unit=unit, model="none", dry=dry)


if __name__ == "__main__":
    main()
