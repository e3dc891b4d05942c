"""Retrain: a fresh LoRA from the base on corpus − removal set, same settings and steps per example as the origin (paper, 2.4)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from biasdiff_core.config import LoraConfig, TrainingConfig
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.model.finetune import finetune
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.results import ProgressCallback


def retrain_without(
    loaded: LoadedModel,
    corpus: Corpus,
    removed: Collection[str],
    lora: LoraConfig,
    training: TrainingConfig,
    folder: Path,
    *,
    stage: str,
    progress: ProgressCallback,
) -> list[Checkpoint]:
    """Retrain without the examples `removed`: the removal set, or for the control as many drawn at random."""
    return finetune(loaded, corpus.without(removed), lora, training, folder, stage=stage, progress=progress)
