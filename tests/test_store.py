"""The gradient store: shards, resuming to the same bytes, refusals, and the stage that fills it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.attribution.store import (
    BEGUN_FILE,
    GradientStore,
    begin_store,
    digest_rows,
    finish_store,
    missing_shards,
    shard_ranges,
    write_shard,
)
from biasdiff_core.config import MapConfig
from biasdiff_core.config.gradients import StoreDtype
from biasdiff_core.errors import ArtefactError, DataError
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.results import Progress
from tests.stores import unit, vector_store
from tests.tiny_gradients import PROBES, collect, gradient_config, killed_after, killed_at, started, tiny_corpus, tiny_probes, warm_up

COUNT, SIZE, DIM = 23, 5, 8
IDENTITY = {"model": "abc", "proj_dim": DIM, "map": "adam"}
IDS = [f"row-{number}" for number in range(COUNT)]


def shard(number: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Rows as the stage makes them, a function of the shard's number; row 7 has no token to predict."""
    rows = list(shard_ranges(COUNT, SIZE)[number])
    vectors = np.random.default_rng(number).normal(size=(len(rows), DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = pd.DataFrame({"norm": np.array(rows) + 0.5, "loss": np.array(rows) / 4, "tokens": np.array(rows) + 1})
    table["cosine:probe:a"] = np.linspace(-1, 1, len(rows))
    if 7 in rows:
        vectors[rows.index(7)] = 0
        table.loc[rows.index(7), ["norm", "loss", "cosine:probe:a"]] = np.nan
        table.loc[rows.index(7), "tokens"] = 0
    return vectors, table


def fill(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for number in missing_shards(folder, COUNT, SIZE):
        write_shard(folder, number, *shard(number))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_ranges_cover_every_row_once() -> None:
    assert shard_ranges(COUNT, SIZE) == [range(5), range(5, 10), range(10, 15), range(15, 20), range(20, 23)]
    assert shard_ranges(5, 5) == [range(5)] and shard_ranges(2, 5) == [range(2)]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    finish_store(fill(tmp_path / "store"), IDENTITY, IDS, SIZE)
    store = GradientStore.open(tmp_path / "store", expect=IDENTITY)
    assert store.count == COUNT and store.ids == tuple(IDS)
    expected = np.concatenate([shard(number)[0] for number in range(5)])
    assert store.vectors().dtype == np.float32 and store.vectors().shape == (COUNT, DIM)
    # fp16 keeps 11 bits: a relative error of 2⁻¹¹ at most.
    np.testing.assert_allclose(store.vectors(), expected, rtol=2**-11, atol=1e-7)
    pd.testing.assert_frame_equal(store.rows, pd.concat([shard(number)[1] for number in range(5)], ignore_index=True))


def test_the_bitmap_says_which_rows_hold_a_vector(tmp_path: Path) -> None:
    finish_store(fill(tmp_path / "store"), IDENTITY, IDS, SIZE)
    done = GradientStore.open(tmp_path / "store").done
    assert done.dtype == bool and len(done) == COUNT
    assert np.flatnonzero(~done).tolist() == [7]


def test_shards_come_one_after_another_in_fp32(tmp_path: Path) -> None:
    finish_store(fill(tmp_path / "store"), IDENTITY, IDS, SIZE)
    shards = list(GradientStore.open(tmp_path / "store").shards())
    assert [(s.shape, s.dtype) for s in shards] == [((5, DIM), np.float32)] * 4 + [((3, DIM), np.float32)]
    np.testing.assert_array_equal(np.concatenate(shards), GradientStore.open(tmp_path / "store").vectors())


@pytest.mark.parametrize("dtype, bytes_each, error", [("float16", 2, 3e-4), ("int8", 1, 4e-3)])
def test_both_forms_keep_unit_vectors_and_int8_takes_half_the_bytes(
    tmp_path: Path, dtype: StoreDtype, bytes_each: int, error: float
) -> None:
    """No number is above 0.5. In fp16 one is off by at most 2⁻¹¹ of it, in int8 by half of max|v| / 127 before it is made unit again."""
    vectors = unit(20, 0, dim=64)
    store = vector_store(tmp_path / "store", vectors, without=(3,), dtype=dtype)
    vectors[3] = 0
    np.testing.assert_allclose(store.vectors(), vectors, atol=error)
    np.testing.assert_allclose(np.linalg.norm(store.vectors(), axis=1), np.arange(20) != 3, atol=1e-3)
    rows = np.array([19, 3, 0, 8])
    np.testing.assert_array_equal(store.take(rows), store.vectors()[rows])
    np.testing.assert_array_equal(np.concatenate([block.copy() for _, block in store.blocks(3)]), store.vectors())
    assert (store.folder / "shard-00000.npy").stat().st_size == 128 + 7 * 64 * bytes_each


def test_resuming_after_lost_and_half_written_shards_gives_identical_bytes(tmp_path: Path) -> None:
    whole, broken = fill(tmp_path / "whole"), fill(tmp_path / "broken")
    finish_store(whole, IDENTITY, IDS, SIZE)
    # Killed between the two files of a shard, in the middle of a write, and before a shard.
    (broken / "shard-00001.parquet").unlink()
    (broken / "shard-00003.parquet").unlink()
    (broken / "shard-00003.npy").write_bytes(b"half")
    (broken / "shard-00004.parquet").rename(broken / "shard-00004.parquet.tmp")
    (broken / "shard-00004.npy").unlink()
    assert missing_shards(broken, COUNT, SIZE) == [1, 3, 4]
    finish_store(fill(broken), IDENTITY, IDS, SIZE)
    assert contents(broken) == contents(whole)


def test_a_store_without_all_shards_is_not_finished(tmp_path: Path) -> None:
    folder = fill(tmp_path / "store")
    (folder / "shard-00002.parquet").unlink()
    with pytest.raises(ArtefactError, match=r"lacks shards \[2\]"):
        finish_store(folder, IDENTITY, IDS, SIZE)
    with pytest.raises(ArtefactError, match="no finished gradient store"):
        GradientStore.open(folder)


def test_a_mismatch_is_refused_naming_both_sides(tmp_path: Path) -> None:
    finish_store(fill(tmp_path / "store"), IDENTITY, IDS, SIZE)
    with pytest.raises(ArtefactError, match=r"model = 'abc', now 'xyz'"):
        GradientStore.open(tmp_path / "store", expect={"proj_dim": DIM, "model": "xyz"})


def test_a_manifest_from_before_a_field_was_recorded_is_no_mismatch(tmp_path: Path) -> None:
    finish_store(fill(tmp_path / "store"), IDENTITY, IDS, SIZE)
    assert GradientStore.open(tmp_path / "store", expect={**IDENTITY, "rows": "0123"}).count == COUNT


def test_a_begun_store_goes_on_only_as_what_it_was_begun_as(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    begin_store(folder, IDENTITY)
    begin_store(folder, IDENTITY)
    with pytest.raises(ArtefactError, match=r"map = 'adam', now 'sgd'"):
        begin_store(folder, {**IDENTITY, "map": "sgd"})
    finish_store(fill(folder), IDENTITY, IDS, SIZE)
    assert not (folder / BEGUN_FILE).exists()


@given(st.lists(st.tuples(st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=3), st.data())
def test_the_digest_of_rows_tells_rows_apart(rows: list[tuple[str, str | None]], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.tuples(st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=3) | st.permutations(rows))
    assert (digest_rows(rows) == digest_rows(other)) == (rows == other)


# The stage that fills the stores, on a real tiny model.


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    return warm_up(tmp_path_factory.mktemp("warmup"), tiny_corpus())


@pytest.fixture(scope="module")
def unbroken(warm: list[Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect(warm, tiny_corpus(), tiny_probes(), tmp_path_factory.mktemp("unbroken"), gradient_config())


def test_the_stage_in_int8_keeps_the_same_vectors_and_exact_cosines(warm: list[Checkpoint], unbroken: Path, tmp_path: Path) -> None:
    small = collect(warm, tiny_corpus(), tiny_probes(), tmp_path / "small", gradient_config(store_dtype="int8"))
    for side in ("train", "probes", "twins", "pool"):
        one, other = (GradientStore.open(folder / "epoch-02" / side) for folder in (unbroken, small))
        assert other.record["identity"] == one.record["identity"] | {"store_dtype": "int8"}
        pd.testing.assert_frame_equal(one.rows, other.rows)
        near = np.einsum("ij,ij->i", one.vectors(), other.vectors())[one.done]
        assert near.min() > 0.999 and near.max() < 1.001


def test_the_stage_makes_four_stores_a_checkpoint(unbroken: Path) -> None:
    assert sorted(p.parent.relative_to(unbroken).as_posix() for p in unbroken.rglob("store.json")) == [
        f"epoch-0{epoch}/{side}" for epoch in (1, 2) for side in ("pool", "probes", "train", "twins")
    ]
    for epoch in (1, 2):
        train, probes, twins = (GradientStore.open(unbroken / f"epoch-0{epoch}" / side) for side in ("train", "probes", "twins"))
        assert train.ids == tiny_corpus().ids and train.done.all()
        assert probes.ids == twins.ids == tuple(f"p{n}" for n in range(6))
        names = [c for c in train.rows if c.startswith("cosine:")]
        assert names == ["cosine:pool", "cosine:probe:age", "cosine:probe:gender", "cosine:twin:age", "cosine:twin:gender"]
        np.testing.assert_allclose(np.linalg.norm(train.vectors(), axis=1), 1, atol=2e-3)
        of_rows = {"map": "sgd", "rows": digest_rows((f"p{n}", text) for n, (text, _, _) in enumerate(PROBES))}
        assert train.record["identity"] | of_rows == probes.record["identity"]
        assert len({store.record["identity"]["rows"] for store in (train, probes, twins)}) == 3
        assert train.record["identity"]["step"] == 4 * epoch  # 24 examples, 6 a step
        # A probe and its twin are different sentences, so they must not have ended up with the same vector.
        assert not np.allclose(probes.vectors(), twins.vectors(), atol=1e-2)


def test_a_killed_stage_resumes_to_the_bytes_of_an_unbroken_one(warm: list[Checkpoint], unbroken: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(step: Progress) -> None:
        if step.message.endswith("epoch-02") and step.done > 12:
            raise Killed

    folder = tmp_path / "broken"
    with pytest.raises(Killed):
        collect(warm, tiny_corpus(), tiny_probes(), folder, gradient_config(), kill)
    assert not (folder / "epoch-02" / "train" / "store.json").exists()
    assert missing_shards(folder / "epoch-02" / "train", 24, 5) == [2, 3, 4]
    first = {path: path.stat().st_mtime_ns for path in (folder / "epoch-01").rglob("shard*")}
    assert contents(collect(warm, tiny_corpus(), tiny_probes(), folder, gradient_config())) == contents(unbroken)
    assert {path: path.stat().st_mtime_ns for path in first} == first  # what was finished is not made again


@pytest.mark.parametrize("seed", range(10))
def test_kill_9_at_any_moment_leaves_a_stage_that_resumes_to_the_same_bytes(
    seed: int, warm: list[Checkpoint], unbroken: Path, tmp_path: Path
) -> None:
    """A process of its own is killed after a random number of rows. What is left is done in another order: a random finished shard is
    lost and so made again after later ones, and the last checkpoint comes first."""
    generator = np.random.default_rng(seed)
    rows = len(warm) * len(tiny_corpus())
    folder = tmp_path / "killed"
    assert killed_after(int(generator.integers(1, rows + 1)), warm, folder) == -signal.SIGKILL
    assert not (folder / "epoch-02" / "train" / "store.json").exists()
    finished = sorted(folder.glob("*/train/shard-*.parquet"))
    if finished:
        lost = finished[int(generator.integers(len(finished)))]
        lost.unlink()
        (lost.parent / "store.json").unlink(missing_ok=True)
    assert contents(collect(warm[::-1], tiny_corpus(), tiny_probes(), folder, gradient_config())) == contents(unbroken)


def test_killed_from_outside_ten_times_and_resumed_each_time_it_ends_in_the_same_bytes(
    warm: list[Checkpoint], unbroken: Path, tmp_path: Path
) -> None:
    """The moments are a random number of files after each start, so in the middle of a pass, of a shard or of a manifest."""
    generator = np.random.default_rng(5)
    folder = tmp_path / "killed"
    ends = [killed_at(int(generator.integers(1, 9)), warm, folder) for _ in range(10)]
    assert set(ends) <= {-signal.SIGKILL, 0} and ends[0] == -signal.SIGKILL
    assert contents(collect(warm, tiny_corpus(), tiny_probes(), folder, gradient_config())) == contents(unbroken)


def test_two_processes_at_once_at_a_checkpoint_each_leave_the_bytes_of_one(warm: list[Checkpoint], unbroken: Path, tmp_path: Path) -> None:
    """On what a killed run left. At one checkpoint there are never two: `publish` refuses the second (tests/test_artefacts.py)."""
    folder = tmp_path / "shared"
    assert killed_after(7, warm, folder) == -signal.SIGKILL
    both = [started([checkpoint], folder) for checkpoint in warm]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert contents(folder) == contents(unbroken)


def test_resumed_with_another_number_of_threads_the_vectors_are_nearly_the_same(
    warm: list[Checkpoint], unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "threads"
    assert killed_after(7, warm, folder) == -signal.SIGKILL
    process = started(warm, folder, threads=2)
    process.join()
    assert process.exitcode == 0
    for epoch in ("epoch-01", "epoch-02"):
        one, other = (GradientStore.open(place / epoch / "train").vectors() for place in (unbroken, folder))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)  # of unit vectors, within the rounding of fp16
        assert (np.einsum("ij,ij->i", one, other) / lengths).min() >= 0.9999


def test_what_was_begun_with_another_adapter_or_corpus_is_refused(warm: list[Checkpoint], tmp_path: Path) -> None:
    """The epoch-01 of another warm-up in place of the first one's, as when a warm-up was made anew under the same key; then another row."""
    other = tmp_path / "epoch-01"
    shutil.copytree(warm[0].folder, other)
    shutil.copy(warm[1].folder / "adapter_model.safetensors", other)
    changed = Checkpoint(folder=other, epoch=1, step=4, learning_rate=1e-3)
    half, whole = tmp_path / "half", tmp_path / "whole"
    assert killed_after(1, warm, half) == -signal.SIGKILL
    collect(warm[:1], tiny_corpus(), tiny_probes(), whole, gradient_config())
    for folder in (half, whole):
        with pytest.raises(ArtefactError, match=r"The gradient store train was made with adapter = '\w{64}', now '\w{64}'"):
            collect([changed], tiny_corpus(), tiny_probes(), folder, gradient_config())
        with pytest.raises(ArtefactError, match=r"rows = '\w{64}', now '\w{64}'"):
            collect(warm[:1], tiny_corpus("One more."), tiny_probes(), folder, gradient_config())


def test_the_adapters_digest_does_not_depend_on_the_order_in_which_peft_wrote_the_settings(warm: list[Checkpoint], tmp_path: Path) -> None:
    folder = collect(warm[:1], tiny_corpus(), tiny_probes(), tmp_path / "stores", gradient_config())
    again = tmp_path / "epoch-01"
    shutil.copytree(warm[0].folder, again)
    settings = json.loads((again / "adapter_config.json").read_text(encoding="utf8"))
    settings["target_modules"].reverse()
    (again / "adapter_config.json").write_text(json.dumps(settings), encoding="utf8")
    collect([Checkpoint(folder=again, epoch=1, step=4, learning_rate=1e-3)], tiny_corpus(), tiny_probes(), folder, gradient_config())


def test_a_lost_shard_is_made_again_alone(warm: list[Checkpoint], unbroken: Path, tmp_path: Path) -> None:
    folder = collect(warm[-1:], tiny_corpus(), tiny_probes(), tmp_path / "again", gradient_config())
    place = folder / "epoch-02" / "train"
    (place / "store.json").unlink()
    (place / "shard-00002.parquet").unlink()
    done: list[int] = []
    collect(warm[-1:], tiny_corpus(), tiny_probes(), folder, gradient_config(), lambda step: done.append(step.done))
    assert done and all(10 < row <= 15 for row in done)
    assert contents(place) == contents(unbroken / "epoch-02" / "train")


def test_the_shard_size_changes_only_the_files(warm: list[Checkpoint], unbroken: Path, tmp_path: Path) -> None:
    folder = collect(warm[-1:], tiny_corpus(), tiny_probes(), tmp_path / "large", gradient_config(shard_size=100, token_budget=60))
    one, other = (GradientStore.open(f / "epoch-02" / "train") for f in (folder, unbroken))
    assert len(list(one.shards())) == 1 and len(list(other.shards())) == 5
    np.testing.assert_allclose(one.vectors(), other.vectors(), atol=1e-3)
    np.testing.assert_allclose(one.rows, other.rows, rtol=1e-3, atol=1e-4)


def test_progress_ends_at_the_last_row_of_each_checkpoint(warm: list[Checkpoint], tmp_path: Path) -> None:
    steps: list[Progress] = []
    collect(warm[:1], tiny_corpus(), tiny_probes(), tmp_path / "p", gradient_config(), steps.append)
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert steps[-1].done == steps[-1].total == 24


def test_probes_without_twins_give_no_twin_store(warm: list[Checkpoint], tmp_path: Path) -> None:
    folder = collect(warm[-1:], tiny_corpus(), tiny_probes(twins=False), tmp_path / "p", gradient_config())
    assert not (folder / "epoch-02" / "twins").exists()
    assert not [c for c in GradientStore.open(folder / "epoch-02" / "train").rows if "twin" in c]


def test_a_probe_without_a_token_is_refused(warm: list[Checkpoint], tmp_path: Path) -> None:
    probes = tiny_probes()
    empty = type(probes)(probes=(*probes.probes, type(probes.probes[0])(id="e", text="", twin="x", bias_type="age")))
    with pytest.raises(DataError, match="no token to predict"):
        collect(warm[-1:], tiny_corpus(), empty, tmp_path / "p", gradient_config())


def test_maps_without_an_optimizer_state_are_refused_and_sgd_needs_none(warm: list[Checkpoint], tmp_path: Path) -> None:
    bare = tmp_path / "epoch-02"
    shutil.copytree(warm[-1].folder, bare)
    (bare / "optimizer.safetensors").unlink()
    checkpoint = [Checkpoint(folder=bare, epoch=2, step=8, learning_rate=1e-3)]
    with pytest.raises(ArtefactError, match="no optimizer state"):
        collect(checkpoint, tiny_corpus(), tiny_probes(), tmp_path / "a", gradient_config())
    folder = collect(checkpoint, tiny_corpus(), tiny_probes(), tmp_path / "b", gradient_config(maps=MapConfig(train="sgd", probe="sgd")))
    assert json.loads((folder / "epoch-02" / "train" / "store.json").read_text())["identity"]["map"] == "sgd"
