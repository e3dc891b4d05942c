"""Checkpoints: our own, and those of a real transformers.Trainer, read by name and shape or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainingArguments

from biasdiff_core.config import LoraConfig, TrainingConfig
from biasdiff_core.errors import ArtefactError, ConfigError, DataError
from biasdiff_core.model.checkpoint import (
    import_checkpoint,
    list_checkpoints,
    load_optimizer_state,
    save_checkpoint,
    trainer_learning_rate,
)
from biasdiff_core.model.lora import add_lora, attach_adapter, check_same, detach_adapter, load_weights, lora_parameters, save_adapter
from biasdiff_core.model.source import lora_settings
from biasdiff_core.model.train import Term, mean_nll, train
from tests.reference.gradients_slow import gradients_slow
from tests.tiny_models import put_lora, sequences, tiny_base, tiny_lora

LORA = LoraConfig(r=3, alpha=6, dropout=0.0)


def optimized(model: PeftModel, steps: int = 2) -> torch.optim.AdamW:
    """AdamW after some steps."""
    optimizer = torch.optim.AdamW(lora_parameters(model).values(), lr=1e-3, betas=(0.8, 0.9), eps=1e-5)
    for step in range(steps):
        gradients = gradients_slow(model, sequences(1, seed=step)[0])[1]
        for name, parameter in lora_parameters(model).items():
            parameter.requires_grad_(True)
            parameter.grad = gradients[name].reshape(parameter.shape)
        optimizer.step()
    model.requires_grad_(False)
    return optimizer


def moments(model: PeftModel, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    return {
        moment: {name: optimizer.state[parameter][moment] for name, parameter in lora_parameters(model).items()}
        for moment in ("exp_avg", "exp_avg_sq")
    }


def test_our_own_state_comes_back_by_name_and_shape(tmp_path: Path) -> None:
    model = tiny_lora()
    optimizer = optimized(model)
    save_checkpoint(model, optimizer, tmp_path / "epoch-01", epoch=1, step=2, learning_rate=0.5)
    other = tiny_lora()
    state = load_optimizer_state(tmp_path / "epoch-01", other)
    assert (state.step, state.beta1, state.beta2, state.epsilon) == (2, 0.8, 0.9, 1e-5)
    for moment, expected in moments(model, optimizer).items():
        found = getattr(state, moment)
        assert found.keys() == expected.keys() == lora_parameters(other).keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    load_weights(other, tmp_path / "epoch-01")
    assert all(torch.equal(p, lora_parameters(model)[name]) for name, p in lora_parameters(other).items())
    (checkpoint,) = list_checkpoints(tmp_path)
    assert (checkpoint.epoch, checkpoint.step, checkpoint.learning_rate) == (1, 2, 0.5)


def test_a_checkpoint_holds_no_pickle_and_is_plain_peft(tmp_path: Path) -> None:
    model = tiny_lora()
    save_checkpoint(model, optimized(model), tmp_path / "epoch-01", epoch=1, step=2, learning_rate=0.5)
    assert {p.suffix for p in (tmp_path / "epoch-01").iterdir()} == {".json", ".safetensors"}
    plain = PeftModel.from_pretrained(tiny_base(), str(tmp_path / "epoch-01"))
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain.eval()(ids).logits, model(ids).logits)


def test_a_half_written_checkpoint_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "epoch-01.tmp").mkdir()
    assert list_checkpoints(tmp_path) == [] and list_checkpoints(tmp_path / "nothing") == []


def test_taking_an_adapter_off_gives_the_base_back(tmp_path: Path) -> None:
    base, ids = tiny_base(), torch.tensor([[5, 6, 7]])
    before = base(ids).logits
    model = put_lora(base, ("q_proj", "v_proj"))
    save_adapter(model, tmp_path)
    changed = model(ids).logits
    assert not torch.allclose(before, changed)
    again = detach_adapter(model)
    assert torch.equal(again(ids).logits, before) and not any("lora" in name for name, _ in again.named_parameters())
    assert torch.equal(attach_adapter(again, tmp_path)(ids).logits, changed)


def test_an_adapter_made_elsewhere_for_a_pattern_of_names_is_saved_with_the_pattern(tmp_path: Path) -> None:
    """peft takes a text as a pattern; sorted as if it were a list of names, it would be one of letters."""
    pattern, ids = r".*\.(v_proj|q_proj)", torch.tensor([[5, 6, 7]])
    model = get_peft_model(tiny_base(), PeftLoraConfig(r=3, target_modules=pattern, task_type="CAUSAL_LM")).eval()
    save_adapter(model, tmp_path / "pattern")
    assert json.loads((tmp_path / "pattern" / "adapter_config.json").read_text())["target_modules"] == pattern
    assert torch.equal(attach_adapter(tiny_base(), tmp_path / "pattern")(ids).logits, model(ids).logits)
    save_adapter(put_lora(tiny_base(), ("v_proj", "q_proj")), tmp_path / "names")
    assert json.loads((tmp_path / "names" / "adapter_config.json").read_text())["target_modules"] == ["q_proj", "v_proj"]


def test_a_state_of_other_parameters_is_refused_naming_the_first(tmp_path: Path) -> None:
    model = put_lora(tiny_base(), ("q_proj", "v_proj"), r=3)
    save_checkpoint(model, optimized(model), tmp_path / "epoch-01", epoch=1, step=2, learning_rate=0.5)
    with pytest.raises(ArtefactError, match=r"layers\.0\.self_attn\.q_proj\.lora_A\.weight: stored \(3, 32\), model \(2, 32\)"):
        load_optimizer_state(tmp_path / "epoch-01", put_lora(tiny_base(), ("q_proj", "v_proj"), r=2))
    with pytest.raises(ArtefactError, match=r"k_proj\.lora_A\.weight: stored absent, model \(3, 32\)"):
        load_optimizer_state(tmp_path / "epoch-01", put_lora(tiny_base(), ("q_proj", "v_proj", "k_proj"), r=3))
    with pytest.raises(ArtefactError, match=r"v_proj\.lora_A\.weight: stored \(3, 32\), model absent"):
        load_weights(put_lora(tiny_base(), ("q_proj",), r=3), tmp_path / "epoch-01")


def test_a_state_without_one_of_the_moments_is_refused(tmp_path: Path) -> None:
    model = tiny_lora()
    save_checkpoint(model, optimized(model), tmp_path / "epoch-01", epoch=1, step=2, learning_rate=0.5)
    path = tmp_path / "epoch-01" / "optimizer.safetensors"
    save_file({name: t for name, t in load_file(path).items() if "exp_avg_sq" not in name}, path)
    with pytest.raises(ArtefactError, match="exp_avg_sq does not fit"):
        load_optimizer_state(tmp_path / "epoch-01", model)


def test_no_state_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no optimizer state"):
        load_optimizer_state(tmp_path, tiny_lora())


@pytest.mark.parametrize("layers", [1, 3])
def test_an_adapter_of_a_model_with_other_layers_is_refused(tmp_path: Path, layers: int) -> None:
    """peft itself only warns of missing weights and lets the layers it has none for run with random ones."""
    save_adapter(put_lora(tiny_base(), ("q_proj", "v_proj")), tmp_path)
    base = tiny_base()
    stack = base.model.layers
    base.model.layers = stack[:1] if layers == 1 else type(stack)([*stack, tiny_base(seed=3).model.layers[0]])
    with pytest.raises(ArtefactError, match=r"layers\.[12]\."):
        attach_adapter(base, tmp_path)


def test_an_adapter_of_other_widths_or_without_safetensors_is_refused(tmp_path: Path) -> None:
    save_adapter(put_lora(tiny_base(), ("q_proj", "v_proj")), tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    save_file({name: t[:, :-1].contiguous() for name, t in stored.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ArtefactError, match="does not fit"):
        attach_adapter(tiny_base(), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ArtefactError, match="safetensors"):
        attach_adapter(tiny_base(), tmp_path)


def test_check_same_is_silent_when_all_is_equal() -> None:
    check_same("adapter", {"a": (1, 2)}, {"a": (1, 2)})


# A real Trainer.


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """transformers.Trainer after two steps on a tiny model, and its checkpoint folder."""
    folder = tmp_path_factory.mktemp("trainer")
    settings = PeftLoraConfig(r=3, lora_alpha=6, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], bias="none", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_base(), settings)
    rows = [{"input_ids": list(e.ids[:3]), "labels": list(e.ids[:3]), "attention_mask": [1] * 3} for e in sequences(8)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        adam_beta1=0.85,
        adam_beta2=0.95,
        adam_epsilon=1e-6,
        logging_steps=1,
        save_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    return trainer, folder / "checkpoint-2"


def trainer_moments(trainer: Any) -> dict[str, dict[str, Tensor]]:
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return moments(trainer.model, optimizer)


def test_a_trainer_checkpoint_is_read_with_its_own_state(trainer: tuple[Any, Path]) -> None:
    run, folder = trainer
    state = load_optimizer_state(folder, attach_adapter(tiny_base(), folder))
    assert (state.step, state.beta1, state.beta2, state.epsilon) == (2, 0.85, 0.95, 1e-6)
    for moment, expected in trainer_moments(run).items():
        found = getattr(state, moment)
        assert found.keys() == expected.keys() and len(found) == 8
        assert all(torch.equal(found[name], expected[name]) and found[name].any() for name in expected)
    # Every parameter has moments of its own, so a permutation would not have gone unseen.
    assert len({float(t.sum()) for t in state.exp_avg.values()}) == 8


def test_importing_it_makes_a_checkpoint_of_ours(trainer: tuple[Any, Path], tmp_path: Path) -> None:
    run, source = trainer
    base = tiny_base()
    import_checkpoint(base, source, LORA, tmp_path)
    assert not any("lora" in name for name, _ in base.named_parameters())
    assert {p.suffix for p in (tmp_path / "epoch-01").iterdir()} == {".json", ".safetensors"}
    (checkpoint,) = list_checkpoints(tmp_path)
    assert checkpoint.step == 2 and checkpoint.learning_rate > 0
    model = attach_adapter(base, checkpoint.folder)
    state = load_optimizer_state(checkpoint.folder, model)
    assert (state.step, state.beta1, state.beta2, state.epsilon) == (2, 0.85, 0.95, 1e-6)
    for moment, expected in trainer_moments(run).items():
        assert all(torch.equal(getattr(state, moment)[name], expected[name]) for name in expected)
    for name, weight in lora_parameters(run.model).items():
        assert torch.equal(lora_parameters(model)[name], weight)


def test_the_learning_rate_of_a_trainer_is_the_mean_of_those_it_logged(trainer: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = trainer
    logged = [e["learning_rate"] for e in json.loads((folder / "trainer_state.json").read_text())["log_history"] if "learning_rate" in e]
    assert len(logged) == 2
    assert trainer_learning_rate(folder) == (2, pytest.approx(sum(logged) / 2))
    assert trainer_learning_rate(tmp_path) == (0, 1.0)


@pytest.mark.parametrize("history", [[], [{"learning_rate": 0.0}], [{"loss": 1.0}]])
def test_a_learning_rate_that_says_nothing_is_taken_as_one(tmp_path: Path, history: list[dict[str, float]]) -> None:
    """A Trainer that logs only its last step logs 0; a weight of 0 would leave Eq. 5 with nothing to divide by."""
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 7, "log_history": history}))
    assert trainer_learning_rate(tmp_path) == (7, 1.0)


def test_importing_again_after_a_kill_replaces_what_was_there(trainer: tuple[Any, Path], tmp_path: Path) -> None:
    (tmp_path / "epoch-01").mkdir()
    (tmp_path / "epoch-01" / "half").write_text("")
    import_checkpoint(tiny_base(), trainer[1], LORA, tmp_path)
    assert not (tmp_path / "epoch-01" / "half").exists() and len(list_checkpoints(tmp_path)) == 1


def test_a_plain_adapter_is_imported_without_a_state(tmp_path: Path) -> None:
    source = tmp_path / "adapter"
    save_adapter(put_lora(tiny_base(), ("q_proj", "v_proj")), source)
    import_checkpoint(tiny_base(), source, LORA, tmp_path / "out")
    (checkpoint,) = list_checkpoints(tmp_path / "out")
    assert checkpoint.step == 0 and not (checkpoint.folder / "optimizer.safetensors").exists()
    with pytest.raises(ArtefactError, match="no optimizer state"):
        load_optimizer_state(checkpoint.folder, attach_adapter(tiny_base(), checkpoint.folder))


def test_a_checkpoint_of_ours_is_imported_too(tmp_path: Path) -> None:
    model = add_lora(tiny_base(), LORA, seed=0)
    config = TrainingConfig(epochs=1, learning_rate=1e-3, batch_size=4)
    train(model, 0, [Term(name="nll", examples=sequences(6), loss=mean_nll)], config, tmp_path, stage="warmup")
    import_checkpoint(tiny_base(), tmp_path / "epoch-01", LORA, tmp_path / "out")
    one, other = (load_optimizer_state(tmp_path / p, model) for p in ("epoch-01", "out/epoch-01"))
    assert one.step == other.step == 2
    assert all(torch.equal(one.exp_avg[name], other.exp_avg[name]) for name in one.exp_avg)


def test_other_lora_settings_are_refused_naming_both(trainer: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)r=3.*r=16"):
        import_checkpoint(tiny_base(), trainer[1], replace(LORA, r=16), tmp_path)


def test_a_state_of_more_than_the_adapter_is_refused(trainer: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(trainer[1], tmp_path / "c")
    stored = torch.load(tmp_path / "c" / "optimizer.pt", weights_only=True)
    stored["param_groups"][0]["params"].append(99)
    torch.save(stored, tmp_path / "c" / "optimizer.pt")
    with pytest.raises(ArtefactError, match="9 parameters, the adapter has 8"):
        load_optimizer_state(tmp_path / "c", attach_adapter(tiny_base(), tmp_path / "c"))


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trap-was-sprung"),))


def test_a_state_that_carries_code_is_refused_and_not_run(
    trainer: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trainer[1], tmp_path / "c")
    torch.save({"state": Trap(), "param_groups": []}, tmp_path / "c" / "optimizer.pt")
    with pytest.raises(ArtefactError, match="optimizer.pt"):
        load_optimizer_state(tmp_path / "c", attach_adapter(tiny_base(), tmp_path / "c"))
    assert not (tmp_path / "trap-was-sprung").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": "all-linear"}, "target_modules"),
        ({"r": None}, "r"),
    ],
)
def test_anything_but_plain_lora_is_refused(trainer: tuple[Any, Path], tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    shutil.copytree(trainer[1], tmp_path / "c")
    path = tmp_path / "c" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DataError, match=word):
        lora_settings(tmp_path / "c")


def test_settings_are_read_from_a_real_adapter(trainer: tuple[Any, Path], tmp_path: Path) -> None:
    assert lora_settings(trainer[1]) == LORA
    with pytest.raises(DataError, match="holds no LoRA adapter"):
        lora_settings(tmp_path)
