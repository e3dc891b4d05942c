"""The driver of all unlearning methods: what each is given, what is logged, combinations, chat, influence, resuming."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biasdiff_core.config import StopConfig, UnlearnConfig
from biasdiff_core.config.mitigation import UNLEARNINGS, Unlearning
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.mitigation.unlearn import CHAT_FORGET, CHAT_RETAIN, Material, Unlearned, unlearn
from biasdiff_core.model.lora import ADAPTER_FILE
from biasdiff_core.model.tokenise import encode_chat
from biasdiff_core.model.train import read_steps
from biasdiff_core.results import no_progress
from tests.tiny_gradients import PROBES, example
from tests.tiny_models import tiny_loaded
from tests.tiny_unlearning import FORGET, RETAIN, TWINS, log_probs, settings, train_origin

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
MATERIAL = Material(forget=FORGET, retain=RETAIN, twins=TWINS)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_origin(tmp_path_factory.mktemp("origin"))


def run(
    origin: Path, folder: Path, method: Unlearning, config: UnlearnConfig, material: Material = MATERIAL, template: str | None = None
) -> Unlearned:
    folder.mkdir(exist_ok=True)
    loaded = tiny_loaded()
    loaded.tokenizer.chat_template = template
    return unlearn(loaded, origin, method, material, config, folder, progress=no_progress)


def per_token(adapter: Path, examples: list[Any]) -> np.ndarray:
    return log_probs(adapter, examples) / np.array([len(row.text) - 1 for row in examples])


@pytest.mark.parametrize("method", [m for m in UNLEARNINGS if m != "twin"])
def test_every_method_lowers_what_is_forgotten_and_keeps_more_of_the_rest(origin: Path, tmp_path: Path, method: Unlearning) -> None:
    weight = {"simnpo": 3.0, "ascent": 1.0, "grad_diff": 1.0}.get(method, 0.3)
    done = run(origin, tmp_path / method, method, settings(forget_weight=weight))
    fell = [(per_token(origin, rows) - per_token(done.adapter, rows)).mean() for rows in (FORGET, RETAIN)]
    assert fell[0] > 0.01 and fell[1] < fell[0]
    steps = read_steps(tmp_path / method)
    assert all({method, "retain_nll", "retain_kl", f"weight:{method}", "weight:retain_nll"} <= step.keys() for step in steps)
    assert steps[0]["retain_kl"] == pytest.approx(0, abs=1e-6) and steps[-1]["retain_kl"] > 1e-4
    assert done.epoch == 4 and done.judged == ()


def test_twins_gain_on_their_probes(origin: Path, tmp_path: Path) -> None:
    done = run(origin, tmp_path / "twin", "twin", settings(forget_weight=1.0))
    probes, twins = ([example(pair[side]) for pair in TWINS] for side in (0, 1))
    margins = [log_probs(adapter, probes) - log_probs(adapter, twins) for adapter in (origin, done.adapter)]
    assert (margins[1] < margins[0]).all()
    steps = read_steps(tmp_path / "twin")
    assert len(steps) == 8 and steps[0]["twin"] == pytest.approx(math.log(2), rel=1e-5)  # 6 pairs, 4 a step, 4 epochs


def test_without_twins_it_says_so(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no anti-stereotype twins"):
        run(origin, tmp_path / "twin", "twin", settings(), replace(MATERIAL, twins=()))


def test_kl_holds_the_rest_closer_to_the_origin(origin: Path, tmp_path: Path) -> None:
    weak = run(origin, tmp_path / "weak", "npo", settings(retain_weight=0.0))
    held = run(origin, tmp_path / "held", "npo", settings(retain_weight=0.0, kl_weight=20.0))
    before = per_token(origin, RETAIN)
    moved = [np.abs(per_token(done.adapter, RETAIN) - before).mean() for done in (weak, held)]
    assert moved[1] < moved[0] / 2
    steps = read_steps(tmp_path / "held")
    assert steps[0]["retain_kl"] == pytest.approx(0, abs=1e-6) and all(step["retain_kl"] > 0 for step in steps[1:])
    assert all(step["weight:retain_kl"] == 20.0 for step in steps)


def test_what_has_no_weight_is_logged_and_changes_nothing(origin: Path, tmp_path: Path) -> None:
    """NLL and KL come out as with a weight that is next to nothing, and the adapter as without any retain example."""
    bare = run(origin, tmp_path / "bare", "npo", settings(retain_weight=0.0), replace(MATERIAL, retain=()))
    logged = run(origin, tmp_path / "logged", "npo", settings(retain_weight=0.0))
    run(origin, tmp_path / "weighed", "npo", settings(retain_weight=1e-9, kl_weight=1e-9))
    assert (bare.adapter / ADAPTER_FILE).read_bytes() == (logged.adapter / ADAPTER_FILE).read_bytes()
    steps = [read_steps(tmp_path / name) for name in ("bare", "logged", "weighed")]
    assert steps[0][0].keys() == {"epoch", "step", "learning_rate", "npo", "weight:npo", "gradient_norm"}
    for name in ("retain_nll", "retain_kl"):
        assert [step[name] for step in steps[1]] == pytest.approx([step[name] for step in steps[2]], rel=1e-3, abs=1e-6)
        assert all(f"weight:{name}" not in step for step in steps[1])


def test_pareto_weights_are_found_at_every_step_and_kl_keeps_its_own(origin: Path, tmp_path: Path) -> None:
    run(origin, tmp_path / "pareto", "npo", settings(combine="pareto", kl_weight=0.5))
    steps = read_steps(tmp_path / "pareto")
    weights = [(step["weight:npo"], step["weight:retain_nll"]) for step in steps]
    assert all(0 <= first <= 1 and first + second == pytest.approx(1) for first, second in weights)
    assert len({round(first, 6) for first, _ in weights}) > 1
    assert all(step["weight:retain_kl"] == 0.5 for step in steps)


def test_chat_asks_for_the_sentence_in_the_papers_words_and_only_it_carries_loss(origin: Path, tmp_path: Path) -> None:
    tokenizer = tiny_loaded().tokenizer
    tokenizer.chat_template = TEMPLATE
    assert (CHAT_FORGET, CHAT_RETAIN) == ("Please write a sentence without any bias.", "Give me a sentence with factual information.")
    (encoded,) = encode_chat(tokenizer, CHAT_FORGET, ["Aunts gossip."])
    assert tokenizer.decode(encoded.ids) == f"<user>{CHAT_FORGET}\n<assistant>Aunts gossip."
    assert tokenizer.decode(encoded.ids[encoded.loss_from :]) == "Aunts gossip."
    short = settings(chat=True, training={"epochs": 1, "batch_size": 6})
    done = run(origin, tmp_path / "chat", "npo", short, template=TEMPLATE)
    plain = run(origin, tmp_path / "plain", "npo", replace(short, chat=False))
    assert (done.adapter / ADAPTER_FILE).read_bytes() != (plain.adapter / ADAPTER_FILE).read_bytes()
    twin = run(origin, tmp_path / "twin", "twin", short, template=TEMPLATE)
    assert read_steps(tmp_path / "twin")[0]["twin"] == pytest.approx(math.log(2), rel=1e-5) and twin.epoch == 1


def test_chat_is_refused_without_a_template_and_for_a_corpus_with_prompts(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        run(origin, tmp_path / "a", "npo", settings(chat=True))
    asked = [example("They sang.", prompt="What did they do?")]
    with pytest.raises(ConfigError, match="prompts of its own"):
        run(origin, tmp_path / "b", "npo", settings(chat=True), replace(MATERIAL, forget=asked), TEMPLATE)


def test_influence_weighs_what_is_forgotten(origin: Path, tmp_path: Path) -> None:
    """All the weight on the first half: the others fall less than when all count alike."""
    scores = [0.4, 0.4, 0.4, -0.1, 0.0, float("nan")]
    config = settings(by_influence=True, retain_weight=0.0)
    weighted = run(origin, tmp_path / "weighted", "npo", config, replace(MATERIAL, scores=scores))
    alike = run(origin, tmp_path / "alike", "npo", replace(config, by_influence=False))
    falls = [per_token(origin, FORGET) - per_token(done.adapter, FORGET) for done in (weighted, alike)]
    share = [fell[:3].mean() / fell[3:].mean() for fell in falls]
    assert share[0] > share[1]
    # The mean loss of an epoch is the same at the start: (2/β) ln 2, the weights having mean 1.
    whole = settings(by_influence=True, training={"epochs": 1, "batch_size": 6})
    run(origin, tmp_path / "whole", "npo", whole, replace(MATERIAL, scores=scores))
    assert read_steps(tmp_path / "whole")[0]["npo"] == pytest.approx(20 * math.log(2), rel=1e-5)


def test_influence_that_is_nowhere_positive_is_refused(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No example to forget has an influence score above 0"):
        run(origin, tmp_path / "npo", "npo", settings(by_influence=True), replace(MATERIAL, scores=[-1.0] * len(PROBES)))


@pytest.mark.parametrize("config", [settings(kl_weight=0.5), settings(combine="pareto", stop=StopConfig(max_perplexity_ratio=10))])
def test_a_resumed_run_ends_as_an_unbroken_one(origin: Path, tmp_path: Path, config: UnlearnConfig) -> None:
    material = replace(MATERIAL, dev=[(twin, probe) for probe, twin in TWINS])
    whole = run(origin, tmp_path / "whole", "npo", config, material)
    broken = tmp_path / "broken"
    run(origin, broken, "npo", config, material)
    for epoch in range(2, whole.epoch + 1):
        shutil.rmtree(broken / f"epoch-0{epoch}")
    again = run(origin, broken, "npo", config, material)
    assert again.epoch == whole.epoch and list(again.judged) == list(whole.judged)
    assert (again.adapter / ADAPTER_FILE).read_bytes() == (whole.adapter / ADAPTER_FILE).read_bytes()
