"""What a mitigation leaves: one adapter, loadable by plain peft, with a model card; and the whole model with it merged in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from biasdiff_core.config.file import canonical
from biasdiff_core.errors import ArtefactError
from biasdiff_core.model.checkpoint import OPTIMIZER_FILE, list_checkpoints
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import attach_adapter
from biasdiff_core.workspace.artefacts import write_atomic

ADAPTER_FOLDER, CARD_FILE = "adapter", "README.md"


def keep_adapter(folder: Path, kept: Path) -> Path:
    """Of a training folder only one adapter and the logs are kept; returns the adapter's folder.

    `kept`: the folder of one of its checkpoints, or of an adapter elsewhere, which is copied.

    Optimizer states served resuming. Each checkpoint leaves the list by one rename, the last one first: killed in between,
    training resumes to the same end.
    """
    target = folder / ADAPTER_FOLDER
    shutil.rmtree(target, ignore_errors=True)
    for checkpoint in reversed(list_checkpoints(folder)):
        if checkpoint.folder == kept:
            kept.rename(target)
        else:
            cleared = checkpoint.folder.with_name(checkpoint.folder.name + ".tmp")
            checkpoint.folder.rename(cleared)
            shutil.rmtree(cleared)
    if not target.exists():
        shutil.copytree(kept, target)
    (target / OPTIMIZER_FILE).unlink(missing_ok=True)
    return target


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model's README.md says. `settings`: of the training, config classes or plain values by name.

    `removed`: how many examples the method took out or unlearned, None where it removes none; `digest`: SHA-256 of their sorted ids.
    `decided`: who chose them, in words.
    """

    audit: str
    variant: str
    base: str
    base_digest: str
    corpus: str
    corpus_digest: str
    settings: Mapping[str, Any]
    removed: int | None = None
    digest: str = ""
    decided: str = ""

    def text(self, *, merged: bool) -> str:
        """The card in Markdown, of the adapter or of the whole model with the adapter `merged` in."""
        settings = yaml.safe_dump({name: canonical(value) for name, value in self.settings.items()}, sort_keys=False)
        removal = "none" if self.removed is None else f"{self.removed} examples, SHA-256 of their ids `{self.digest}`; {self.decided}"
        kind, load = (
            ("a whole model, the adapter merged into the base's weights", "`transformers.AutoModelForCausalLM.from_pretrained(folder)`")
            if merged
            else ("a LoRA adapter", "`peft.PeftModel.from_pretrained(base, folder)`")
        )
        return f"""---
library_name: {"transformers" if merged else "peft"}
tags: [biasdiff, bias-research]
---

# {self.variant} of {self.audit}

This folder holds {kind}, in safetensors: {load}.

- Base model: `{self.base}`, SHA-256 `{self.base_digest}`
- Training corpus: `{self.corpus}`, SHA-256 `{self.corpus_digest}`
- Removal set: {removal}
- Audit: `{self.audit}`, variant `{self.variant}`

## Settings

```yaml
{settings}```

## Limits

For bias research; not evaluated for safety. A removal set takes out what was found and confirmed, not all bias; the audit's
report says, with intervals, what it changed. The licences of the base model and of the corpus go on to apply.
"""


def export_merged(loaded: LoadedModel, adapter: Path, card: ModelCard, target: Path) -> None:
    """Write the base model with `adapter` merged into its weights, its tokenizer and the card into the new folder `target`.

    Plain `transformers` loads it. `loaded` is changed by it: do not use it again. Raises ArtefactError when `target` has files
    already, or the adapter does not fit.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArtefactError(f"{target} exists already and is not an empty folder.", "Name a new folder.")
    merged: Any = attach_adapter(loaded.model, adapter).merge_and_unload()
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    merged.save_pretrained(partial, safe_serialization=True)
    loaded.tokenizer.save_pretrained(partial)
    write_atomic(partial / CARD_FILE, card.text(merged=True))
    if target.exists():
        target.rmdir()
    os.replace(partial, target)
