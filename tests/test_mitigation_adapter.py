"""What a mitigation leaves: the adapter that is kept, its card, and the merged model that plain libraries load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from biasdiff_core.config import LoraConfig, ModelConfig, UnlearnConfig
from biasdiff_core.errors import ArtefactError
from biasdiff_core.mitigation.adapter import ModelCard, export_merged, keep_adapter
from biasdiff_core.model.load import load_model
from biasdiff_core.model.lora import ADAPTER_FILE, add_lora, lora_parameters, save_adapter
from biasdiff_core.model.train import LOG_FILE, Term, mean_nll, train
from tests.test_train import CONFIG
from tests.tiny_models import sequences, tiny_base

CARD = ModelCard(
    audit="tiny-abc123",
    variant="npo",
    base="tiny",
    base_digest="b" * 64,
    corpus="corpus.csv",
    corpus_digest="c" * 64,
    settings={"method": "npo", "npo": UnlearnConfig()},
    removed=12,
    digest="d" * 64,
    decided="policy `confirmed`, decided by people",
)


def training(folder: Path) -> Path:
    """Three epochs, each with its checkpoint."""
    folder.mkdir(exist_ok=True)
    model = add_lora(tiny_base(), LoraConfig(r=3, alpha=6, dropout=0.0), seed=0)
    train(model, 0, [Term(name="nll", examples=sequences(6), loss=mean_nll)], CONFIG, folder, stage="npo")
    return folder


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_one_epoch_is_kept_with_the_log(tmp_path: Path, epoch: int) -> None:
    folder = training(tmp_path / "run")
    expected = (folder / f"epoch-0{epoch}" / ADAPTER_FILE).read_bytes()
    kept = keep_adapter(folder, folder / f"epoch-0{epoch}")
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", LOG_FILE]
    assert (kept / ADAPTER_FILE).read_bytes() == expected and not (kept / "optimizer.safetensors").exists()


def test_the_origin_is_kept_by_a_copy(tmp_path: Path) -> None:
    origin, folder = training(tmp_path / "origin") / "epoch-03", training(tmp_path / "run")
    kept = keep_adapter(folder, origin)
    assert (kept / ADAPTER_FILE).read_bytes() == (origin / ADAPTER_FILE).read_bytes()
    assert (origin / "optimizer.safetensors").exists() and not (kept / "optimizer.safetensors").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", LOG_FILE]


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_killed_while_an_earlier_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    """Killed at any removal of a folder, training goes on to the same epochs, and the same one is kept."""
    real, calls = shutil.rmtree, iter(range(100))

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        if next(calls) == kills:
            raise KeyboardInterrupt
        real(path, ignore_errors=ignore_errors)

    folder = training(tmp_path / "run")
    expected = (folder / "epoch-02" / ADAPTER_FILE).read_bytes()
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt):
        keep_adapter(folder, folder / "epoch-02")
    monkeypatch.setattr(shutil, "rmtree", real)
    kept = keep_adapter(training(folder), folder / "epoch-02")
    assert (kept / ADAPTER_FILE).read_bytes() == expected
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", LOG_FILE]


def test_the_card_names_base_corpus_settings_and_removal_set_with_digests() -> None:
    for merged in (False, True):
        text = CARD.text(merged=merged)
        _, front, body = text.split("---\n", 2)
        assert yaml.safe_load(front) == {"library_name": "transformers" if merged else "peft", "tags": ["biasdiff", "bias-research"]}
        assert all(part in body for part in ("tiny-abc123", "b" * 64, "corpus.csv", "c" * 64, "12 examples", "d" * 64, "decided by people"))
        settings = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
        assert settings["method"] == "npo" and settings["npo"]["beta"] == 0.1
        assert "not evaluated for safety" in body


def test_the_merged_model_gives_the_logits_of_base_and_adapter(tmp_path: Path, tiny_model_folder: Path) -> None:
    config = ModelConfig(name=str(tiny_model_folder))
    model = add_lora(load_model(config, tmp_path).model, LoraConfig(r=3, alpha=6, dropout=0.05), seed=0)
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter += 0.1
    save_adapter(model, tmp_path / "adapter")
    export_merged(load_model(config, tmp_path), tmp_path / "adapter", CARD, tmp_path / "merged")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    inputs = tokenizer("The ferry was late.", return_tensors="pt")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_folder), str(tmp_path / "adapter"))
    found, expected = AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), plain.eval()
    with torch.no_grad():
        torch.testing.assert_close(found(**inputs).logits, expected(**inputs).logits, rtol=0, atol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)(**inputs).logits
        assert (found(**inputs).logits - base).abs().max() > 1e-2
    assert "a whole model" in (tmp_path / "merged" / "README.md").read_text(encoding="utf8")
    names = {path.suffix for path in (tmp_path / "merged").iterdir()}
    assert ".safetensors" in names and not names & {".bin", ".pt", ".pkl"}
    assert not list(tmp_path.glob("*.partial"))


def test_nothing_is_written_over(tmp_path: Path, tiny_model_folder: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="is not an empty folder"):
        export_merged(load_model(ModelConfig(name=str(tiny_model_folder)), tmp_path), tmp_path, CARD, tmp_path / "full")
