"""What a projection costs beside the gradients that it projects, by the shape of the bundled model's LoRA.

python -m benchmarks.projection [cost]    CPU time
python -m benchmarks.projection error     of a cosine, on gradients of the bundled model

Time is measured on one LoRA weight of 16 × 576 and scaled to all 921,600: every projection does the same work for every weight. CPU
seconds of one thread, so that a busy machine counts little.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.featurize import make_bench, rms_error
from benchmarks.record import dry_option, record
from biasdiff_core.attribution.gradients import full_vectors
from biasdiff_core.attribution.optimizer_map import gradient_map
from biasdiff_core.attribution.projection import HELD_ROWS, blank_sketch, make_projection
from biasdiff_core.config import ModelConfig
from biasdiff_core.config.gradients import GradientConfig, OptimizerMap, ProjectionKind
from biasdiff_core.model.load import load_model
from biasdiff_core.model.tokenise import collate
from biasdiff_core.workspace.audits import default_workspace

MEASURED = 16 * 576
WEIGHTS = 921_600
ROUNDS = 3
SENTENCES, SEEDS = 32, 5
MAPS: tuple[OptimizerMap, ...] = ("adam", "sgd")


def cpu_seconds(kind: ProjectionKind, dim: int, rows: int, batch: int) -> float:
    """CPU seconds to project `rows` vectors that come `batch` at a time, the least of some rounds; what is kept between them is made."""
    projector, vectors = make_projection(kind, dim, 0), torch.randn(batch, MEASURED)
    taken = []
    for _ in range(1 + ROUNDS):
        started = time.process_time()
        for _ in range(rows // batch):
            projector.add(blank_sketch(batch, dim, vectors.device), "lora_A", vectors)
        projector.flush()
        taken.append(time.process_time() - started)
    return min(taken[1:])


def cost(dim: int, dry: bool) -> None:
    """Record CPU milliseconds an example of each projection; of the dense one also where a batch of 16 has its own making of signs."""
    cases = [(kind, "", HELD_ROWS) for kind in get_args(ProjectionKind)] + [("rademacher", ".alone", 16)]
    for kind, name, rows in cases:
        milliseconds = 1000 * cpu_seconds(kind, dim, rows, 16) / rows * WEIGHTS / MEASURED
        operations = WEIGHTS * (dim if kind == "rademacher" else 1)
        work = f"{WEIGHTS:,} weights to {dim:,} ({operations / 1e6:,.1f} M multiply-adds)"
        unit = f"CPU ms an example, one thread, to project {work}, {rows} rows at a time"
        record(f"projection.{kind}{name}.cpu_ms", milliseconds, n=rows, unit=unit, model="none", dry=dry)


def error(dim: int, dry: bool) -> None:
    """Record the error of a cosine between gradients of each projection, over all pairs of sentences and seeds, and of each seed the
    least and greatest."""
    config = ModelConfig()
    with TemporaryDirectory() as folder:
        bench = make_bench(load_model(config, default_workspace()), SENTENCES, Path(folder))
    batch = collate(bench.sentences, range(SENTENCES), bench.pad_id, bench.device)
    for name in MAPS:
        parts, _ = full_vectors(bench.model, batch, gradient_map(name, bench.state))
        whole = torch.cat(list(parts.values()), dim=1).cpu().numpy()
        for kind in get_args(ProjectionKind):
            errors = np.array([rms_error(projected(kind, parts, dim, seed), whole) for seed in range(SEEDS)])
            unit = f"rms of projected less exact cosine over pairs of {SENTENCES} sentences, {whole.shape[1]:,} weights to {dim:,}; seeds"
            value = float(np.sqrt(np.mean(errors**2)))
            bounds = {"low": float(errors.min()), "high": float(errors.max())}
            record(f"projection.{kind}.rms_error.{name}", value, **bounds, n=SEEDS, unit=unit, model=config.name, dry=dry)


def projected(kind: ProjectionKind, parts: Mapping[str, Tensor], dim: int, seed: int) -> np.ndarray:
    """Projection [n, dim] of vectors given by parameter, [n, size] each."""
    projector, total = make_projection(kind, dim, seed), blank_sketch(SENTENCES, dim, torch.device("cpu"))
    for name, vectors in parts.items():
        projector.add(total, name, vectors.cpu())
    projector.flush()
    return total.numpy()


@click.command()
@click.argument("what", type=click.Choice(["cost", "error"]), default="cost")
@click.option("--dim", type=int, default=GradientConfig().proj_dim, show_default=True)
@dry_option
def main(what: str, dim: int, dry: bool) -> None:
    """Record what each projection costs, or how far off its cosines are."""
    torch.set_num_threads(1)
    (cost if what == "cost" else error)(dim, dry)


if __name__ == "__main__":
    main()
