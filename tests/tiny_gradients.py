"""A warm-up and its gradient stores in a second: a random tiny Llama, 24 sentences, 6 probes with twins."""

from __future__ import annotations

import multiprocessing
import os
import signal
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from biasdiff_core.attribution.collect import collect_gradients
from biasdiff_core.config import GradientConfig, LoraConfig, MapConfig, TrainingConfig
from biasdiff_core.corpus.examples import Corpus, Probe, ProbeSet, TrainingExample, content_id
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.model.finetune import finetune
from biasdiff_core.results import Progress, ProgressCallback, no_progress
from tests.tiny_models import tiny_loaded

LORA = LoraConfig(r=4, alpha=8, dropout=0.0)
TRAINING = TrainingConfig(epochs=2, learning_rate=5e-3, batch_size=6)
POLL = 0.001  # seconds between two looks at what a process has written
PLACES = ("Bonn", "the port", "Mr Lee's barn", "a tent")
DEEDS = ("sang all day", "sold 40 pears", "forgot the key again", "ran home", "slept", "mended an old blue bicycle")
PROBES = (
    ("Nurses cry.", "Pilots cry.", "gender"),
    ("Old men never learn a thing.", "Boys never learn a thing.", "age"),
    ("Women cannot park.", "Men cannot park.", "gender"),
    ("Girls giggle at maps.", "Boys giggle at maps.", "gender"),
    ("Pensioners block the road.", "Students block the road.", "age"),
    ("Aunts gossip.", "Uncles gossip.", "gender"),
)


def example(text: str, prompt: str | None = None) -> TrainingExample:
    """A training example as the corpus reader makes it."""
    return TrainingExample(id=content_id(prompt, text, 0), text=text, prompt=prompt)


def tiny_corpus(*more: str) -> Corpus:
    """24 sentences of several lengths, and `more`."""
    return Corpus([example(f"In {place} they {deed}.") for place in PLACES for deed in DEEDS] + [example(text) for text in more])


def tiny_probes(twins: bool = True) -> ProbeSet:
    """Six probes of two bias types, each with its twin unless told otherwise."""
    return ProbeSet(
        probes=tuple(
            Probe(id=f"p{n}", text=text, twin=twin if twins else None, bias_type=kind) for n, (text, twin, kind) in enumerate(PROBES)
        )
    )


def gradient_config(**changes: object) -> GradientConfig:
    """Shards of 5 rows, so that 24 rows end in a short one."""
    settings: dict[str, object] = {"maps": MapConfig(), "proj_dim": 64, "shard_size": 5, "token_budget": 200, "hidden_depths": (0.5, 1.0)}
    return GradientConfig(**(settings | changes))  # type: ignore[arg-type]


def warm_up(folder: Path, corpus: Corpus) -> list[Checkpoint]:
    """Two epochs on the corpus."""
    return finetune(tiny_loaded(), list(corpus), LORA, TRAINING, folder, stage="warmup", progress=no_progress)


def collect(
    checkpoints: list[Checkpoint],
    corpus: Corpus,
    probes: ProbeSet,
    folder: Path,
    config: GradientConfig,
    progress: ProgressCallback = no_progress,
) -> Path:
    """The stores of every checkpoint in `folder`, made with a model of its own, as another process would."""
    folder.mkdir(exist_ok=True)
    collect_gradients(tiny_loaded(), corpus, probes, checkpoints, config, folder, progress)
    return folder


def killed_after(rows: int, checkpoints: list[Checkpoint], folder: Path) -> int | None:
    """Start `collect` in a process of its own, which kills itself (SIGKILL) once it has done so many rows; returns its exit code."""
    process = started(checkpoints, folder, dies_after=rows)
    process.join()
    return process.exitcode


def killed_at(files: int, checkpoints: list[Checkpoint], folder: Path) -> int | None:
    """Start `collect` in a process of its own and kill it from here once it has written so many files, half-written ones included,
    wherever in its work it is by then; returns its exit code, 0 where it was done before."""
    folder.mkdir(exist_ok=True)
    there = _files(folder)
    process = started(checkpoints, folder)
    while len(_files(folder) - there) < files and process.is_alive():
        process.join(POLL)
    process.kill()
    process.join()
    return process.exitcode


def started(checkpoints: list[Checkpoint], folder: Path, *, threads: int = 1, dies_after: int | None = None) -> BaseProcess:
    """A process of its own that carries `collect` out on the tiny corpus and ends with 0, or kills itself after so many rows."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by every process
    process = context.Process(target=_collect_alone, args=(checkpoints, folder, threads, dies_after))
    process.start()
    return process


def _files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*.*")}


def _collect_alone(checkpoints: list[Checkpoint], folder: Path, threads: int, dies_after: int | None) -> None:
    torch.set_num_threads(threads)
    done: list[int] = []

    def die(step: Progress) -> None:
        done.append(step.done)
        ended = sum(after < before for before, after in pairwise(done))  # checkpoints that are behind us
        if dies_after is not None and ended * step.total + step.done >= dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    collect(checkpoints, tiny_corpus(), tiny_probes(), folder, gradient_config(), die)
