"""Fine-tune a fresh LoRA from the base: the warm-up, the retraining and the random control are this on different corpora."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from biasdiff_core.config import LoraConfig, TrainingConfig
from biasdiff_core.corpus.examples import TrainingExample
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import add_lora, detach_adapter
from biasdiff_core.model.tokenise import encode
from biasdiff_core.model.train import Term, mean_nll, train
from biasdiff_core.results import ProgressCallback


def finetune(
    loaded: LoadedModel,
    examples: Sequence[TrainingExample],
    lora: LoraConfig,
    training: TrainingConfig,
    folder: Path,
    *,
    stage: str,
    progress: ProgressCallback,
) -> list[Checkpoint]:
    """Train a fresh LoRA on `examples` by their mean token loss; one checkpoint an epoch in `folder`.

    Every example is seen once an epoch, so whatever was removed from a corpus, the others get equal steps.
    """
    model = add_lora(loaded.model, lora, training.seed)
    term = Term(name="nll", examples=encode(loaded.tokenizer, examples), loss=mean_nll)
    checkpoints = train(model, loaded.tokenizer.pad_token_id, [term], training, folder, stage=stage, progress=progress)
    detach_adapter(model)
    return checkpoints
