"""What a search over a store of gradients costs, and what an approximate index misses.

python -m benchmarks.search [--sizes 20000 --sizes 100000 --sizes 1000000] [--dry]
python -m benchmarks.search --trex-mix WORKSPACE [--dry]      recall on real gradients
python -m benchmarks.search --gpu [--sizes 20000] [--dry]     the flat index on a GPU beside the CPU's

Cost: stores of synthetic vectors are written as shards into a temporary folder (two bytes a dimension: 16 GB for a million rows) and
deleted again. Each search runs in a process of its own, whose greatest resident memory is read; page cache is not in it. Where all
vectors fit into memory, it is timed against NumPy: all in fp32, one product, one `argpartition`, with and without reading the shards;
and the same store in int8 is searched beside the one in fp16, and its cosines are compared with those of the vectors in fp32.

On a GPU: the same vectors and queries, searched by FAISS's flat index on each; the seconds include building the index, so on the GPU the
copying of the vectors there.

Recall: of the 50 rows nearest by true cosine, how many IVF-Flat and IVF-PQ find, after a re-rank of `REFINED` times as many by true
cosine. Over synthetic vectors; or, with `--trex-mix`, this alone over the gradients of an audit on Trex_mix, by the paper's probes. The
audit is made where the workspace has none (some 10 minutes).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from benchmarks.alone import alone, peak_bytes
from benchmarks.arms import Recipe
from benchmarks.record import dry_option, record
from biasdiff_core.attribution.index import Kind, build_index, nearest
from biasdiff_core.attribution.search import REFINED, nearest_rows
from biasdiff_core.attribution.store import GradientStore, finish_store, shard_ranges, write_shard
from biasdiff_core.audit import Audit
from biasdiff_core.cli_common import progress_bar
from biasdiff_core.config import GradientConfig, MapConfig
from biasdiff_core.config.gradients import StoreDtype
from biasdiff_core.evaluation.statistics import bootstrap_mean
from biasdiff_core.evidence import last_stores
from biasdiff_core.pipeline import Pipeline

QUERIES = (100, 891)  # the second: the paper's probing set
K = 50
KINDS: tuple[Kind, ...] = ("ivf_flat", "ivf_pq")
IN_MEMORY = 20_000  # rows up to which all vectors are held in fp32 as well
REPEATS = 3
SHARD = 2_000
TREX_MIX = 3_000  # rows of it: the fewest that PQ can well be trained on, and minutes of gradients
MEMBERS = 100  # rows about one centre
SPREAD = 0.7  # length of what a row has of its own, beside a centre of length 1
DRAWS = 2_000
Row = dict[str, Any]  # of `record`, but for the model


def clustered(rows: range, centres: int, dim: int) -> np.ndarray:
    """Unit vectors [rows, dim] in fp32 about random centres; a function of the rows' numbers."""
    generator = np.random.default_rng([dim, rows.start])
    own = generator.standard_normal((len(rows), dim), np.float32)
    for place, centre in enumerate(generator.integers(0, centres, len(rows))):
        about = np.random.default_rng([dim, 0, centre]).standard_normal(dim, np.float32)
        own[place] = about + SPREAD * own[place]
    return own / np.linalg.norm(own, axis=1, keepdims=True)


def write_store(folder: Path, count: int, dim: int, dtype: StoreDtype = "float16") -> GradientStore:
    """A store of so many synthetic vectors."""
    folder.mkdir(exist_ok=True)
    needed = np.dtype(dtype).itemsize * count * dim
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise SystemExit(f"{folder} has {free / 1e9:.0f} GB free, and the vectors take {needed / 1e9:.0f}. Give another --folder.")
    for number, rows in enumerate(shard_ranges(count, SHARD)):
        table = pd.DataFrame({"norm": 1.0, "loss": 2.0, "tokens": 3}, index=rows)
        write_shard(folder, number, clustered(rows, max(1, count // MEMBERS), dim), table, dtype=dtype)
    finish_store(folder, {}, [str(row) for row in range(count)], SHARD)
    return GradientStore.open(folder)


def queries(store: GradientStore, count: int) -> np.ndarray:
    """Unit vectors [count, dim] about the centres of a synthetic store's rows, none of them in it."""
    return clustered(range(store.count, store.count + count), max(1, store.count // MEMBERS), store.dim)


def streamed(store: GradientStore, asked: np.ndarray) -> dict[str, float]:
    """Seconds and greatest resident memory of this process, in GB, of one search."""
    seconds = _least_seconds(lambda: nearest_rows(store, asked, K), repeats=1)
    return {"seconds": seconds, "peak_rss_gb": peak_bytes() / 1e9}


def beside_matmul(store: GradientStore, asked: np.ndarray) -> dict[str, float]:
    """Seconds of the streamed search as a ratio to NumPy's on the same shards, and to its product and partition alone."""
    vectors = store.vectors()

    def plain(known: np.ndarray) -> None:
        np.argpartition(asked @ known.T, -K, axis=1)

    ours = _least_seconds(lambda: nearest_rows(store, asked, K), REPEATS)
    whole, product = _least_seconds(lambda: plain(store.vectors()), REPEATS), _least_seconds(lambda: plain(vectors), REPEATS)
    return {"ratio_to_matmul": ours / whole, "ratio_to_matmul_in_memory": ours / product}


def int8_beside_fp16(small: GradientStore, store: GradientStore, asked: np.ndarray) -> dict[str, float]:
    """Seconds and bytes of the store in int8 over those in fp16; the error of the cosines of both, and what of the nearest is the same."""
    ours, other = (_least_seconds(lambda s=s: nearest_rows(s, asked, K), REPEATS) for s in (small, store))
    exact = [clustered(rows, max(1, store.count // MEMBERS), store.dim) @ asked.T for rows in shard_ranges(store.count, SHARD)]
    errors = [
        float(np.sqrt(np.mean([np.mean((shard @ asked.T - true) ** 2) for shard, true in zip(s.shards(), exact, strict=True)])))
        for s in (small, store)
    ]
    found = [set(row) for row in nearest_rows(small, asked, K)[1].tolist()]
    true = [set(row) for row in np.argsort(-np.concatenate(exact), axis=0, kind="stable")[:K].T.tolist()]
    bytes_of = [sum(path.stat().st_size for path in s.folder.glob("shard-*.npy")) for s in (small, store)]
    return {
        "int8.seconds_ratio": ours / other,
        "int8.bytes_ratio": bytes_of[0] / bytes_of[1],
        "int8.cosine_rms_error": errors[0],
        "float16.cosine_rms_error": errors[1],
        f"int8.recall{K}": float(np.mean([len(one & other) / K for one, other in zip(found, true, strict=True)])),
    }


def _least_seconds(work: Callable[[], Any], repeats: int) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(once() for _ in range(repeats))


UNITS = {
    "seconds": "seconds",
    "peak_rss_gb": "GB of resident memory at most, whole process",
    "ratio_to_matmul": "streamed search / NumPy product and argpartition of all vectors, both from the shards",
    "int8.seconds_ratio": "streamed search of the store in int8 / in fp16",
    "int8.bytes_ratio": "bytes of the vectors in int8 / in fp16",
    "int8.cosine_rms_error": "rms of cosines from the store in int8 less those of the vectors in fp32",
    "float16.cosine_rms_error": "rms of cosines from the store in fp16 less those of the vectors in fp32",
    f"int8.recall{K}": f"share of the {K} nearest by the vectors in fp32 that the store in int8 finds",
    "ratio_to_matmul_in_memory": "streamed search from the shards / NumPy product and argpartition of vectors in memory in fp32",
}


def cost_rows(store: GradientStore, label: str) -> Iterator[Row]:
    """Cost by number of queries; the metric of the first number carries no number."""
    for count in QUERIES:
        name = f"search.{label}" + ("" if count == QUERIES[0] else f".{count}_probes")
        against = f"{store.count} synthetic vectors of {store.dim} dimensions, {count} queries, k = {K}"
        asked = queries(store, count)
        found = alone(streamed, store, asked)
        if store.count <= IN_MEMORY:
            found |= alone(beside_matmul, store, asked)
        if store.count <= IN_MEMORY and count == QUERIES[0]:
            small = write_store(store.folder.with_name(f"{store.folder.name}-int8"), store.count, store.dim, "int8")
            found |= alone(int8_beside_fp16, small, store, asked)
        for what, value in found.items():
            yield {"metric": f"{name}.{what}", "value": value, "n": store.count, "unit": UNITS[what], "against": against}


def recall_rows(store: GradientStore, asked: np.ndarray, label: str, against: str) -> Iterator[Row]:
    """Recall of each approximate index, and its bytes beside those of the flat one."""
    _, exact = nearest_rows(store, asked, K)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / kind
            build_index(store, path, kind)
            share = path.stat().st_size / (4 * store.count * store.dim)
            _, found = nearest_rows(store, asked, K, path)
        recall = [len(set(one) & set(other)) / exact.shape[1] for one, other in zip(found.tolist(), exact.tolist(), strict=True)]
        unit = f"share of the {K} nearest found, mean over queries, after a re-rank of {REFINED * K} by true cosines"
        name, mean = f"search.{label}.{kind}", bootstrap_mean(recall, draws=DRAWS, seed=0)
        yield {"metric": f"{name}.recall{K}", **asdict(mean), "n": len(asked), "unit": unit, "against": against}
        yield {"metric": f"{name}.bytes_share", "value": share, "n": store.count, "unit": "of the flat index", "against": against}


def gpu_rows(sizes: tuple[int, ...], dim: int) -> Iterator[Row]:
    """What the flat index finds on the GPU and on the CPU, and how long each takes."""
    for size in sizes:
        centres = max(1, size // MEMBERS)
        vectors = np.concatenate([clustered(rows, centres, dim) for rows in shard_ranges(size, SHARD)])
        asked = clustered(range(size, size + QUERIES[0]), centres, dim)
        (theirs, other), (ours, found) = nearest(vectors, asked, K), nearest(vectors, asked, K, "gpu")
        same = np.mean([len(set(one) & set(two)) / K for one, two in zip(found.tolist(), other.tolist(), strict=True)])
        cpu, gpu = (_least_seconds(partial(nearest, vectors, asked, K, device), REPEATS) for device in ("cpu", "gpu"))
        name = f"search.{label_of(size)}.gpu"
        against = f"FAISS's flat index on the CPU: {size} synthetic vectors, {len(asked)} queries, k = {K}"
        for what, value, unit in (
            ("seconds", gpu, f"seconds of building and searching the flat index on the GPU; the CPU took {cpu:.3g}"),
            ("same_rows", float(same), f"share of the {K} nearest rows that are the CPU's"),
            ("cosine_difference", float(np.abs(ours - theirs).max()), "greatest difference of a cosine from the CPU's, place by place"),
        ):
            yield {"metric": f"{name}.{what}", "value": value, "n": size, "unit": unit, "against": against}


def label_of(size: int) -> str:
    """20k, 1m."""
    return f"{size // 10**6}m" if size >= 10**6 else f"{size // 1000}k"


def all_rows(sizes: tuple[int, ...], dim: int, folder: Path | None) -> Iterator[Row]:
    """Every row of synthetic stores, size after size; one is deleted before the next is written."""
    for size in sizes:
        label = label_of(size)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            store = write_store(Path(place) / "store", size, dim)
            yield from cost_rows(store, label)
            if size <= IN_MEMORY:
                against = f"{size} synthetic vectors in clusters of about {MEMBERS}, {dim} dimensions"
                yield from recall_rows(store, queries(store, QUERIES[0]), label, against)


def trex_mix_rows(workspace: Path) -> Iterator[Row]:
    """Recall over gradients at the last checkpoint of a few-sample warm-up, of the examples nearest to the probes."""
    recipe = Recipe(workspace=workspace.resolve(), n=TREX_MIX)
    gradients = GradientConfig(maps=MapConfig(train="less", probe="sgd"), checkpoints="last")
    audit = Audit.from_config(replace(recipe.config("recall", 0, "few"), gradients=gradients), recipe.workspace)
    with progress_bar() as show:
        Pipeline(audit.folder, show).analyse(until="gradients")
    stores = last_stores(audit.artefact("gradients"))
    train, probes = stores.train, stores.probes
    against = f"gradients of {train.count} rows of Trex_mix, {train.dim} dimensions, by {probes.count} probes"
    yield from recall_rows(train, probes.vectors(), "audit", against)


@click.command()
@click.option("--sizes", type=click.IntRange(min=1_000), multiple=True, default=(20_000, 100_000, 1_000_000), help="Rows of the stores.")
@click.option("--dim", type=click.IntRange(min=1), default=8192, show_default=True, help="Dimensions of the synthetic vectors.")
@click.option(
    "--trex-mix", "workspace", type=click.Path(path_type=Path), help="Only recall on gradients of Trex_mix, made in this workspace."
)
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Where the stores are written for a while.")
@click.option("--gpu", is_flag=True, help="Only the flat index on the GPU (faiss-gpu), beside the CPU's.")
@dry_option
def main(sizes: tuple[int, ...], dim: int, workspace: Path | None, folder: Path | None, gpu: bool, dry: bool) -> None:
    """Record seconds, memory, the ratio to NumPy, and the recall and size of approximate indexes."""
    rows = gpu_rows(sizes, dim) if gpu else all_rows(sizes, dim, folder)
    for row in trex_mix_rows(workspace) if workspace else rows:
        record(**row, model="none", dry=dry)


if __name__ == "__main__":
    main()
