"""The training loop: what must not change its result, resuming, schedule, log, refusals."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from biasdiff_core.config import LoraConfig, TrainingConfig
from biasdiff_core.errors import ConfigError, DataError, NumericError
from biasdiff_core.mitigation.adapter import keep_adapter
from biasdiff_core.model.checkpoint import Checkpoint, list_checkpoints, load_optimizer_state
from biasdiff_core.model.lora import ADAPTER_FILE, add_lora, lora_parameters
from biasdiff_core.model.score import Scored, score
from biasdiff_core.model.tokenise import Encoded, collate
from biasdiff_core.model.train import LOG_FILE, Gradients, Term, learning_rate_at, mean_nll, read_steps, train
from biasdiff_core.results import Progress
from tests.reference.gradients_slow import gradients_slow
from tests.tiny_models import sequences, tiny_base, tiny_lora

CONFIG = TrainingConfig(epochs=3, learning_rate=1e-2, batch_size=4, token_budget=64, seed=1)
# A larger ε keeps AdamW from blowing rounding up at coordinates whose gradient is next to nothing.
STEADY = replace(CONFIG, epsilon=1e-3)
CPU = torch.device("cpu")


def nll(encoded: list[Encoded], **changes: Any) -> Term:
    return Term(name="nll", examples=encoded, loss=mean_nll, **changes)


def run(folder: Path, config: TrainingConfig = CONFIG, *, terms: list[Term] | None = None, model: Any = None, **options: Any) -> Any:
    """Train a fresh tiny LoRA on 10 rows; the model, for its weights."""
    model = model if model is not None else add_lora(tiny_base(), LoraConfig(r=3, alpha=6, dropout=options.pop("dropout", 0.0)), seed=0)
    folder.mkdir(exist_ok=True)
    train(model, 0, terms or [nll(sequences(10))], config, folder, stage="warmup", **options)
    return model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in lora_parameters(model).items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_the_loss_goes_down_and_only_the_adapter_moves(tmp_path: Path) -> None:
    model = add_lora(tiny_base(), LoraConfig(r=3, alpha=6, dropout=0.05), seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if "lora" not in name}
    run(tmp_path, replace(CONFIG, epochs=12, learning_rate=3e-2), model=model)
    steps = read_steps(tmp_path)
    by_epoch = [sum(s["nll"] for s in steps if s["epoch"] == epoch) for epoch in (1, 12)]
    assert by_epoch[1] < 0.8 * by_epoch[0]
    assert all((p == before[name]).all() for name, p in model.named_parameters() if name in before)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(weight.any() for weight in weights(model).values())


def test_the_first_step_is_adamw_on_the_mean_of_the_rows_own_losses(tmp_path: Path) -> None:
    """One step on all rows: m = (1 − β1)·ḡ, ḡ the mean of per-example gradients, clipped to norm 1; weights move by −η·sign-like step."""
    config = TrainingConfig(epochs=1, learning_rate=1e-3, batch_size=6, warmup_ratio=0.0, weight_decay=0.1, max_grad_norm=0.05)
    model, encoded = tiny_lora(), sequences(6)
    before = weights(model)
    slow = [gradients_slow(model, example)[1] for example in encoded]
    mean = {name: torch.stack([g[name] for g in slow]).mean(0) for name in before}
    norm = float(torch.cat(list(mean.values())).norm())
    assert norm > 0.05
    run(tmp_path, config, terms=[nll(encoded)], model=model)
    state = load_optimizer_state(tmp_path / "epoch-01", model)
    assert read_steps(tmp_path)[0]["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for name, weight in weights(model).items():
        g = mean[name] * 0.05 / norm
        torch.testing.assert_close(state.exp_avg[name].flatten(), 0.1 * g, rtol=1e-3, atol=1e-8)
        # First step: m̂ = g, v̂ = g², decoupled decay 1 − η·λ.
        expected = before[name] * (1 - 1e-3 * 0.1) - 1e-3 * (g / (g.abs() + 1e-8)).reshape(before[name].shape)
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("budget", [1, 20, 4096])
def test_micro_batches_and_their_padding_change_nothing(tmp_path: Path, budget: int) -> None:
    """In float64: a token budget of one row, of a few, of all rows at once."""
    models = []
    for name, tokens in (("a", budget), ("b", 64)):
        model = tiny_lora(dtype=torch.float64)
        models.append(run(tmp_path / name, replace(STEADY, token_budget=tokens), model=model))
    assert_equal(weights(models[0]), weights(models[1]), 1e-7)
    assert not torch.equal(*[next(iter(weights(m).values())) for m in (models[0], tiny_lora(dtype=torch.float64))])


def test_the_pad_token_changes_nothing(tmp_path: Path) -> None:
    models = [tiny_lora(dtype=torch.float64) for _ in range(2)]
    for model, pad in zip(models, (0, 200), strict=True):
        folder = tmp_path / str(pad)
        folder.mkdir()
        train(model, pad, [nll(sequences(10))], STEADY, folder, stage="warmup")
    assert_equal(weights(models[0]), weights(models[1]), 1e-7)


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path: Path) -> None:
    first, again = (run(tmp_path / name, dropout=0.1) for name in ("a", "b"))
    other = run(tmp_path / "c", replace(CONFIG, seed=2), dropout=0.1)
    assert_equal(weights(first), weights(again))
    assert any((weights(first)[name] != weights(other)[name]).any() for name in weights(first))


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_resuming_gives_the_weights_of_an_unbroken_run(tmp_path: Path, lost: int) -> None:
    """The last epochs' folders are lost, as when a run is killed in epoch 4 − lost; dropout is on, so its seed counts too."""
    unbroken = run(tmp_path / "whole", dropout=0.1)
    broken = tmp_path / "broken"
    run(broken, dropout=0.1)
    for epoch in range(4 - lost, 4):
        shutil.rmtree(broken / f"epoch-0{epoch}")
    (broken / f"epoch-0{4 - lost}.tmp").mkdir()  # killed while the checkpoint was written
    resumed = run(broken, dropout=0.1)
    assert_equal(weights(resumed), weights(unbroken))
    assert (broken / LOG_FILE).read_text() == (tmp_path / "whole" / LOG_FILE).read_text()
    for name in ("adapter_model.safetensors", "optimizer.safetensors", "training.json"):
        assert (broken / "epoch-03" / name).read_bytes() == (tmp_path / "whole" / "epoch-03" / name).read_bytes()


def test_killed_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(step: Progress) -> None:
        if step.done == 5:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "broken", progress=kill)
    assert [c.epoch for c in list_checkpoints(tmp_path / "broken")] == [1]
    assert_equal(weights(run(tmp_path / "broken")), weights(run(tmp_path / "whole")))


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    steps: list[Progress] = []
    again = run(tmp_path, progress=steps.append)
    assert steps == []
    assert_equal(weights(again), weights(first))


def test_resuming_when_earlier_checkpoints_were_cleared_away(tmp_path: Path) -> None:
    """Only the last checkpoint counts: a stage that keeps nothing else must not start the epochs over from trained weights."""
    whole, broken = run(tmp_path / "whole"), tmp_path / "broken"
    run(broken)
    shutil.rmtree(broken / "epoch-01")
    shutil.rmtree(broken / "epoch-03")
    assert_equal(weights(run(broken)), weights(whole))
    assert [c.epoch for c in list_checkpoints(broken)] == [2, 3]


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_killed_while_a_mitigation_clears_its_checkpoints_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    """Killed at the n-th removal of a folder (of the old target, of epoch 2, of epoch 1), the next run ends with the same adapter."""
    real, calls = shutil.rmtree, iter(range(100))

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        if next(calls) == kills:
            raise KeyboardInterrupt
        real(path, ignore_errors=ignore_errors)

    whole = run(tmp_path / "whole")
    run(tmp_path / "broken")
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt):
        keep_adapter(tmp_path / "broken", tmp_path / "broken" / "epoch-03")
    monkeypatch.setattr(shutil, "rmtree", real)
    assert_equal(weights(run(tmp_path / "broken")), weights(whole))
    keep_adapter(tmp_path / "broken", tmp_path / "broken" / "epoch-03")
    assert [c.epoch for c in list_checkpoints(tmp_path / "broken")] == []
    assert not (tmp_path / "broken" / "adapter" / "optimizer.safetensors").exists()
    stored, expected = ((tmp_path / p / ADAPTER_FILE).read_bytes() for p in ("broken/adapter", "whole/epoch-03"))
    assert stored == expected


def test_the_schedule_by_hand() -> None:
    """10 steps, a fifth of warm-up: η/2, η, then the cosine η/2·(1 + cos(π·k/8)), k = 0 … 7."""
    config = TrainingConfig(learning_rate=2.0, warmup_ratio=0.2)
    rates = [learning_rate_at(step, 10, config) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)  # k = 4: cos(π/2) = 0
    assert rates[9] == pytest.approx(1 + math.cos(math.pi * 7 / 8))
    assert rates[2:] == sorted(rates[2:], reverse=True) and min(rates) > 0
    assert [learning_rate_at(s, 3, replace(config, warmup_ratio=0.0)) for s in range(3)] == pytest.approx([2.0, 1.5, 0.5])
    assert learning_rate_at(0, 1, config) == 2.0
    assert [learning_rate_at(s, 2, replace(config, warmup_ratio=1.0)) for s in range(2)] == [1.0, 2.0]


def test_steps_are_logged_once_with_the_rates_of_the_schedule(tmp_path: Path) -> None:
    run(tmp_path)
    steps = read_steps(tmp_path)
    assert [s["step"] for s in steps] == list(range(1, 10))  # 10 rows, 4 a step: 3 steps an epoch, 3 epochs
    assert [s["epoch"] for s in steps] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [s["learning_rate"] for s in steps] == [learning_rate_at(n, 9, CONFIG) for n in range(9)]
    for checkpoint in list_checkpoints(tmp_path):
        rates = [s["learning_rate"] for s in steps if s["epoch"] == checkpoint.epoch]
        assert checkpoint.learning_rate == pytest.approx(sum(rates) / 3)
        assert checkpoint.step == 3 * checkpoint.epoch
        assert load_optimizer_state(checkpoint.folder, run(tmp_path)).step == checkpoint.step


def test_progress_counts_the_steps(tmp_path: Path) -> None:
    steps: list[Progress] = []
    run(tmp_path, progress=steps.append)
    assert [(s.done, s.total, s.stage) for s in steps] == [(n, 9, "warmup") for n in range(1, 10)]


def counting(term: str, seen: dict[str, list[int]]) -> Any:
    def loss(scored: Scored) -> Tensor:
        seen.setdefault(term, []).extend(scored.rows.tolist())
        return mean_nll(scored)

    return loss


def test_an_epoch_takes_every_row_of_the_first_term_once_and_as_many_of_the_second(tmp_path: Path) -> None:
    seen: dict[str, list[int]] = {}
    without_loss = Encoded(ids=(5,), loss_from=1)
    first, second = [*sequences(6), without_loss], sequences(4, seed=3)
    terms = [Term(name=n, examples=e, loss=counting(n, seen)) for n, e in (("forget", first), ("retain", second))]
    run(tmp_path, replace(CONFIG, epochs=2), terms=terms)
    assert sorted(seen["forget"][:6]) == sorted(seen["forget"][6:]) == list(range(6))
    assert seen["forget"][:6] != seen["forget"][6:]  # shuffled anew
    assert len(seen["retain"]) == 12
    for epoch in (seen["retain"][:6], seen["retain"][6:]):
        assert set(epoch) == set(range(4)) and max(map(epoch.count, range(4))) <= 2


def test_a_long_second_term_is_sampled_without_repetition(tmp_path: Path) -> None:
    seen: dict[str, list[int]] = {}
    terms = [Term(name=n, examples=sequences(c), loss=counting(n, seen)) for n, c in (("forget", 6), ("retain", 30))]
    run(tmp_path, replace(CONFIG, epochs=2), terms=terms)
    assert len(set(seen["retain"][:6])) == 6 and len(set(seen["retain"])) > 6


def test_a_terms_weight_scales_its_gradient(tmp_path: Path) -> None:
    """Weights 0.25 + 0.75 of the same rows are weight 1 of them; a weight of 0 is as if the term were not there."""
    encoded = sequences(8)
    config = replace(STEADY, epochs=1, batch_size=8)
    base = weights(run(tmp_path / "a", config, terms=[nll(encoded)], model=tiny_lora(dtype=torch.float64)))
    for name, shares in (("b", (0.25, 0.75)), ("c", (1.0, 0.0))):
        terms = [Term(name=f"t{n}", examples=encoded, loss=mean_nll, weight=share) for n, share in enumerate(shares)]
        assert_equal(weights(run(tmp_path / name, config, terms=terms, model=tiny_lora(dtype=torch.float64))), base, 1e-7)


def test_losses_are_logged_unweighted_by_term(tmp_path: Path) -> None:
    encoded = sequences(4)
    model = tiny_lora()
    expected = sum(gradients_slow(model, example)[0] for example in encoded) / 4
    run(tmp_path, replace(CONFIG, epochs=1), terms=[nll(encoded, weight=0.1)], model=model)
    assert read_steps(tmp_path)[0]["nll"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    model = tiny_lora()
    before = weights(model)
    bad = Term(name="bad", examples=sequences(4), loss=lambda scored: scored.log_prob * float("nan"))
    with pytest.raises(NumericError, match="bad"):
        run(tmp_path, terms=[bad], model=model)
    assert_equal(weights(model), before)
    assert list_checkpoints(tmp_path) == []


def test_a_term_without_anything_to_learn_is_refused(tmp_path: Path) -> None:
    for examples in ([], [Encoded(ids=(5,), loss_from=1)]):
        with pytest.raises(DataError, match="'retain' has no example"):
            run(tmp_path, terms=[nll(sequences(3)), Term(name="retain", examples=examples, loss=mean_nll)])


def test_a_stop_rule_ends_training_also_when_it_is_resumed(tmp_path: Path) -> None:
    asked: list[int] = []

    def stop(checkpoint: Checkpoint) -> bool:
        asked.append(checkpoint.epoch)
        return checkpoint.epoch == 2

    first = run(tmp_path, replace(CONFIG, epochs=5), stop=stop)
    assert [c.epoch for c in list_checkpoints(tmp_path)] == [1, 2] and asked == [1, 2]
    again = run(tmp_path, replace(CONFIG, epochs=5), stop=stop)
    assert [c.epoch for c in list_checkpoints(tmp_path)] == [1, 2]
    assert_equal(weights(again), weights(first))


def test_more_than_99_epochs_stay_in_order(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, epochs=1))
    for epoch in (2, 11, 100):
        shutil.copytree(tmp_path / "epoch-01", tmp_path / f"epoch-{epoch:02d}")
        record = (tmp_path / "epoch-01" / "training.json").read_text().replace('"epoch": 1', f'"epoch": {epoch}')
        (tmp_path / f"epoch-{epoch:02d}" / "training.json").write_text(record)
    assert [c.epoch for c in list_checkpoints(tmp_path)] == [1, 2, 11, 100]


def test_an_unknown_target_module_is_refused_naming_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no module 'c_attn'.*q_proj"):
        add_lora(tiny_base(), LoraConfig(target_modules=("c_attn",)), seed=0)


@pytest.mark.parametrize(
    "target, kind", [("embed_tokens", "Embedding"), ("input_layernorm", "LlamaRMSNorm"), ("self_attn", "LlamaAttention")]
)
def test_a_target_that_is_no_linear_map_is_refused_before_training_and_leaves_the_model_alone(target: str, kind: str) -> None:
    base = tiny_base()
    with pytest.raises(ConfigError, match=rf"{target} of lora.target_modules is no linear map but {kind}. It has: .*q_proj"):
        add_lora(base, LoraConfig(target_modules=("q_proj", target)), seed=0)
    assert not [name for name, _ in base.named_parameters() if "lora" in name]


def test_targets_match_as_in_peft() -> None:
    """The ends of names, whole parts only, and peft's word for all linear maps but the head: 7 in each of the 2 layers of a Llama."""
    attention = add_lora(tiny_base(), LoraConfig(target_modules=("self_attn.q_proj", "1.self_attn.v_proj")), seed=0)
    found = {name.removeprefix("model.layers.").removesuffix(".lora_A.weight") for name in lora_parameters(attention) if "lora_A" in name}
    assert found == {"0.self_attn.q_proj", "1.self_attn.q_proj", "1.self_attn.v_proj"}
    everything = lora_parameters(add_lora(tiny_base(), LoraConfig(target_modules=("all-linear",)), seed=0))
    assert len(everything) == 2 * 7 * 2 and not [name for name in everything if "lm_head" in name]
    with pytest.raises(ConfigError, match="no module 'attn.q_proj'"):
        add_lora(tiny_base(), LoraConfig(target_modules=("attn.q_proj",)), seed=0)


def test_mean_nll_is_per_token() -> None:
    batch = collate([Encoded(ids=(5, 6, 7), loss_from=1), Encoded(ids=(5, 6, 7, 8, 9), loss_from=1)], [0, 1], 0, CPU)
    logs = torch.tensor([-4.0, -2.0, -1.0, -2.0, -2.0, -3.0])
    scored = Scored(batch=batch, token_log_probs=logs, owner=torch.tensor([0, 0, 1, 1, 1, 1]), form_logits=lambda: torch.empty(0))
    assert scored.log_prob.tolist() == [-6.0, -8.0] and scored.tokens.tolist() == [2, 4]
    assert mean_nll(scored).tolist() == [3.0, 2.0]


def test_what_is_scored_are_the_loss_tokens_one_after_another() -> None:
    model, encoded = tiny_lora(), sequences(4)
    scored = score(model, collate(encoded, range(4), 0, CPU))
    place = 0
    for row, example in enumerate(encoded):
        log_probs = torch.log_softmax(model(input_ids=torch.tensor([example.ids])).logits[0], -1)
        for token in range(example.loss_from, len(example.ids)):
            assert scored.owner[place] == row
            torch.testing.assert_close(scored.token_log_probs[place], log_probs[token - 1, example.ids[token]])
            torch.testing.assert_close(scored.logits[place].log_softmax(-1), log_probs[token - 1])
            place += 1
    assert place == len(scored.token_log_probs)


def test_terms_over_the_same_list_take_the_same_rows(tmp_path: Path) -> None:
    seen: dict[str, list[int]] = {}
    first, others = sequences(6), sequences(9, seed=3)
    terms = [Term(name=n, examples=e, loss=counting(n, seen)) for n, e in (("forget", first), ("nll", others), ("kl", others))]
    run(tmp_path, replace(CONFIG, epochs=2), terms=terms)
    assert seen["nll"] == seen["kl"] != seen["forget"]


def test_a_row_may_be_a_pair_and_pairs_stay_together(tmp_path: Path) -> None:
    """Ten sequences are five pairs; a pair with a sequence that has nothing to learn is left out."""
    seen: list[list[int]] = []

    def loss(scored: Scored) -> Tensor:
        seen.extend(scored.rows.view(-1, 2).tolist())
        return mean_nll(scored).view(-1, 2).sum(1)

    encoded = [*sequences(10), Encoded(ids=(5,), loss_from=1), *sequences(1)]
    run(tmp_path, replace(CONFIG, epochs=1), terms=[Term(name="pairs", examples=encoded, loss=loss, together=2)])
    assert sorted(seen) == [[n, n + 1] for n in range(0, 10, 2)]
    assert len(read_steps(tmp_path)) == 2  # five rows, four a step


def test_weights_found_at_a_step_take_the_place_of_the_terms_own(tmp_path: Path) -> None:
    """Of the gradients of both terms by every LoRA weight, in model order; a term that is not named keeps its weight."""
    encoded, seen = sequences(8), []
    model = tiny_lora(dtype=torch.float64)
    slow = [gradients_slow(model, example)[1] for example in encoded]

    def weigh(gradients: Gradients) -> dict[str, float]:
        seen.append(gradients)
        return {"a": 0.25}

    config = replace(STEADY, epochs=1, batch_size=8)
    terms = [Term(name=name, examples=encoded, loss=mean_nll, weight=0.75) for name in "ab"]
    found = weights(run(tmp_path / "a", config, terms=terms, model=model, weigh=weigh))
    for name, gradient in zip(slow[0], seen[0]["a"], strict=True):
        torch.testing.assert_close(gradient.flatten(), torch.stack([g[name] for g in slow]).mean(0), rtol=1e-4, atol=1e-8)
    assert_equal(found, weights(run(tmp_path / "b", config, terms=[nll(encoded)], model=tiny_lora(dtype=torch.float64))), 1e-7)
    step = read_steps(tmp_path / "a")[0]
    assert (step["weight:a"], step["weight:b"]) == (0.25, 0.75) and step["a"] == pytest.approx(step["b"])
