"""lm-evaluation-harness on a model in memory, with task files and data of one's own (no network), against likelihoods by hand."""

from __future__ import annotations

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from biasdiff_core.config.evaluation import LmEvalConfig
from biasdiff_core.errors import ConfigError, DataError, MissingDependency
from biasdiff_core.evaluation.lm_harness import run_tasks
from biasdiff_core.results import MetricResult, Progress
from tests.reference.likelihood_slow import token_log_probs_slow
from tests.tiny_models import tiny_base, tiny_lora
from tests.tiny_tokenizer import byte_tokenizer

ITEMS = [
    {"question": "The sky is", "choices": [" blue", " green"], "answer": 0},
    {"question": "Grass is", "choices": [" red", " green"], "answer": 1},
    {"question": "Snow is", "choices": [" white", " black"], "answer": 0},
    {"question": "Coal is", "choices": [" white", " black"], "answer": 1},
]
CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
ROLLING = """
task: own_bits
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
"""


def config(folder: Path, *tasks: str, limit: int | None = None) -> LmEvalConfig:
    data = folder / "items.json"
    data.write_text("\n".join(map(json.dumps, ITEMS)), encoding="utf8")
    for name, text in (("choice", CHOICE), ("bits", ROLLING)):
        (folder / f"{name}.yaml").write_text(text.format(data=data, cache=folder / "cache"), encoding="utf8")
    return LmEvalConfig(tasks=tasks, limit=limit, include_path=str(folder))


def is_right(item: dict[str, object], instruction: str = "") -> bool:
    """Whether the likelier choice (summed, given the question) of the tiny model is the answer."""
    tokenizer, model = byte_tokenizer(), tiny_base()
    prompt = tokenizer(f"{instruction}{item['question']}")["input_ids"]
    sums = [token_log_probs_slow(model, [*prompt, *tokenizer(c)["input_ids"]])[len(prompt) - 1 :].sum() for c in item["choices"]]  # type: ignore[attr-defined]
    return sums.index(max(sums)) == item["answer"]


def by_name(found: list[MetricResult]) -> dict[str, MetricResult]:
    return {metric.name: metric for metric in found}


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as Python sees a package that is not there
    with pytest.raises(MissingDependency, match=r"biasdiff\[lm-eval\]"):
        run_tasks(tiny_base(), byte_tokenizer(), LmEvalConfig(tasks=("arc_easy",)))


def test_accuracy_with_its_interval_by_hand(tmp_path: Path) -> None:
    steps: list[Progress] = []
    (found,) = run_tasks(tiny_base(), byte_tokenizer(), config(tmp_path, "own_choice"), progress=steps.append)
    right = sum(map(is_right, ITEMS))
    share = right / 4
    # Standard error of a mean of 0 and 1 over n = 4, as the harness has it: sqrt(p (1 − p) / (n − 1)).
    reach = 196 * math.sqrt(share * (1 - share) / 3)
    assert (found.name, found.unit, found.n) == ("lm_eval.own_choice.acc", "%", 4)
    expected = (100 * share, max(0.0, 100 * share - reach), min(100.0, 100 * share + reach))
    assert (found.value, found.low, found.high) == pytest.approx(expected)
    assert f"lm-evaluation-harness {version('lm-eval')}, task own_choice, 0-shot" in found.convention and "± 1.96" in found.convention
    assert (steps[-1].done, steps[-1].total) == (1, 1)


def test_other_metrics_keep_their_unit_and_an_absent_error_is_said(tmp_path: Path) -> None:
    found = by_name(run_tasks(tiny_lora(), byte_tokenizer(), config(tmp_path, "own_choice", "own_bits", limit=2)))
    bits = found["lm_eval.own_bits.bits_per_byte"]
    assert bits.value is not None and bits.value > 1 and (bits.low, bits.high, bits.unit) == (None, None, "")
    assert "no standard error" in bits.convention and "first 2 items" in bits.convention
    assert bits.n == found["lm_eval.own_choice.acc"].n == 2


def test_the_instruction_stands_in_front(tmp_path: Path) -> None:
    told = "Choose with care: "
    found = run_tasks(tiny_base(), byte_tokenizer(), config(tmp_path, "own_choice"), instruction=told)
    assert found[0].value == pytest.approx(25.0 * sum(is_right(item, told) for item in ITEMS))


def test_unknown_tasks_and_absent_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task 'nothing_such'"):
        run_tasks(tiny_base(), byte_tokenizer(), LmEvalConfig(tasks=("nothing_such",)))
    chosen = config(tmp_path, "own_choice")
    (tmp_path / "items.json").unlink()
    with pytest.raises(DataError, match="own_choice cannot be loaded"):
        run_tasks(tiny_base(), byte_tokenizer(), chosen)
