"""SEAT: a case by hand, an independent slow twin, laws of the effect size, calibration of p, and the test files."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasdiff_core.config.evaluation import SeatConfig
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.seat import GROUPS, SeatTest, association, associations, effect_size, figures, load_tests, permutation_p
from biasdiff_core.results import MetricResult, Progress
from tests.reference.seat_slow import association_slow, effect_size_slow, permutation_p_slow, sentence_vector_slow
from tests.tiny_models import tiny_base
from tests.tiny_tokenizer import byte_tokenizer

DATA = Path(os.environ.get("BIASDIFF_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
SETS = {
    "targ1": ["This is Tom.", "Tom is here.", "Here is Ben."],
    "targ2": ["This is Ann.", "Ann is here, I think.", "Here is Eve."],
    "attr1": ["Work.", "This is an office."],
    "attr2": ["Home.", "This is a kitchen.", "A family."],
}


def write(folder: Path, name: str, sets: dict[str, list[str]] = SETS) -> None:
    content = {part: {"category": f"the {part}", "examples": examples} for part, examples in sets.items()}
    (folder / f"{name}.jsonl").write_text(json.dumps(content), encoding="utf8")


def by_name(results: Sequence[MetricResult]) -> dict[str, MetricResult]:
    return {result.name: result for result in results}


def seat_test(name: str = "weat6") -> SeatTest:
    x, y, a, b = (tuple(part) for part in SETS.values())
    return SeatTest(name=name, x=x, y=y, a=a, b=b, categories=("X", "Y", "A", "B"))


# --- the statistic


def test_a_case_by_hand() -> None:
    a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    s_x, s_y = associations(np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([[0.0, 1.0], [0.8, 0.6]]), a, b)
    # cosine with A less cosine with B: 1 − 0, 0.6 − 0.8; 0 − 1, 0.8 − 0.6
    assert (list(s_x), list(s_y)) == ([1.0, pytest.approx(-0.2)], [-1.0, pytest.approx(0.2)])
    # (0.4 − (−0.4)) / √((1 + 0.04 + 1 + 0.04)/3)
    assert float(effect_size(s_x, s_y)) == pytest.approx(0.8 / math.sqrt(2.08 / 3))
    # Sums of X' over the 6 partitions: 0.8, 0, 1.2, −1.2, 0, −0.8; two reach 0.8.
    p_value, how = permutation_p(s_x, s_y, permutations=10, seed=0)
    assert p_value == pytest.approx(2 / 6) and how == "exact over 6 partitions"


def test_ties_count_against_the_effect() -> None:
    # Sums of two of {1, 0, 1, 0}: 1, 2, 1, 1, 0, 1; five reach the observed 1.
    assert permutation_p(np.array([1.0, 0.0]), np.array([1.0, 0.0]), permutations=10, seed=0)[0] == pytest.approx(5 / 6)
    # 0.1 + 0.2 + 0.3 in another order is another float, and still a tie.
    values = np.array([0.1, 0.2, 0.3])
    assert permutation_p(values, values[::-1] - 0.0, permutations=10, seed=0)[0] == permutation_p_slow([0.1, 0.2, 0.3], [0.3, 0.2, 0.1])


def other_program() -> ModuleType:
    """The WEAT and SEAT statistics of fairllms, loaded from its file: its package imports what is not installed."""
    found = importlib.util.find_spec("fairllms")
    assert found is not None and found.submodule_search_locations, "fairllms comes with requirements-bundled.txt"
    path = Path(found.submodule_search_locations[0]) / "utils" / "association.py"
    spec = importlib.util.spec_from_file_location("fairllms_association", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", [2, 4, 6])
def test_statistics_equal_those_of_another_program(size: int) -> None:
    """fairllms: s of every sentence, d, and the exact one-sided p."""
    other, generator = other_program(), np.random.default_rng(size)
    x, y, a, b = (generator.normal(size=(n, 9)) + 0.2 for n in (size, size, 5, 3))
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, y, a, b)]
    s_x, s_y = associations(*units)
    np.testing.assert_allclose(s_x, [other.association(w, a, b) for w in x])
    np.testing.assert_allclose(s_y, [other.association(w, a, b) for w in y])
    assert float(effect_size(s_x, s_y)) == pytest.approx(other.cohens_d(s_x, s_y))
    assert permutation_p(s_x, s_y, permutations=10, seed=0)[0] == pytest.approx(other.permutation_pval(s_x, s_y))


@pytest.mark.parametrize("sizes", [(3, 3), (4, 2), (2, 5)])
def test_statistics_equal_the_plain_loops(sizes: tuple[int, int]) -> None:
    generator = np.random.default_rng(sum(sizes))
    x, y, a, b = (generator.normal(size=(n, 7)) for n in (*sizes, 4, 3))
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, y, a, b)]
    s_x, s_y = associations(*units)
    slow = [[association_slow(list(w), a.tolist(), b.tolist()) for w in part] for part in (x, y)]
    assert (list(s_x), list(s_y)) == (pytest.approx(slow[0]), pytest.approx(slow[1]))
    assert float(effect_size(s_x, s_y)) == pytest.approx(effect_size_slow(*slow))
    assert permutation_p(s_x, s_y, permutations=10, seed=0)[0] == pytest.approx(permutation_p_slow(*slow))


def test_drawn_partitions_agree_with_all_of_them() -> None:
    generator = np.random.default_rng(0)
    s_x, s_y = generator.normal(0.5, 1, size=10), generator.normal(size=10)
    # C(20, 10) = 184,756 partitions are too many to enumerate here, not for the twin.
    drawn, how = permutation_p(s_x, s_y, permutations=99_999, seed=0)
    exact = permutation_p_slow(list(s_x), list(s_y))
    assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / 99_999) and "99,999 drawn partitions" in how
    assert drawn == permutation_p(s_x, s_y, permutations=99_999, seed=0)[0] != permutation_p(s_x, s_y, permutations=99_999, seed=1)[0]
    # The observed partition counts too, so p is never 0: (0 + 1)/(999 + 1).
    assert permutation_p(np.arange(20.0) + 100, np.arange(20.0), permutations=999, seed=0)[0] == 1 / 1000


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=12), st.integers(2, 10), st.floats(0.01, 100))
def test_effect_size_laws(values: list[float], cut: int, scale: float) -> None:
    s_x, s_y = np.array(values[: min(cut, len(values) - 2)]), np.array(values[min(cut, len(values) - 2) :])
    found = float(effect_size(s_x, s_y))
    if math.isnan(found):
        assert np.ptp(values) < 1e-9
        return
    # Groups of 2 and more: |d| stays below √((n−1)(1/n_x + 1/n_y)), the value where each group is constant.
    n = len(values)
    assert abs(found) <= math.sqrt((n - 1) * (1 / len(s_x) + 1 / len(s_y))) + 1e-9
    assert float(effect_size(s_y, s_x)) == pytest.approx(-found, abs=1e-9)  # swapped targets
    assert float(effect_size(-s_x, -s_y)) == pytest.approx(-found, abs=1e-9)  # swapped attributes
    if np.ptp(values) > 1e-6:
        assert float(effect_size(scale * s_x, scale * s_y)) == pytest.approx(found, abs=1e-6)


def test_p_is_uniform_when_the_groups_are_alike() -> None:
    generator = np.random.default_rng(1)
    p_values = [permutation_p(*generator.normal(size=(2, 5)), permutations=10, seed=0)[0] for _ in range(400)]
    # C(10, 5) = 252 partitions; 400 draws: standard error 0.011 at 0.05, 0.025 at 0.5.
    assert np.mean(np.array(p_values) <= 0.05) < 0.085 and abs(np.mean(np.array(p_values) <= 0.5) - 0.5) < 0.08


def test_a_planted_difference_is_found() -> None:
    generator = np.random.default_rng(2)
    found = association(seat_test(), generator.normal(1, 1, 60), generator.normal(0, 1, 60), bootstrap=500, permutations=2_000, seed=0)
    assert found.effect is not None and found.p_value < 0.01
    assert np.quantile(found.resampled, 0.025) < found.effect < np.quantile(found.resampled, 0.975)
    # Difference of 1 over a pooled deviation of √(1 + 1/4)
    assert found.effect == pytest.approx(1 / math.sqrt(1.25), abs=0.3)


def test_intervals_cover_the_effect() -> None:
    generator = np.random.default_rng(3)
    truth, hits = 0.5 / math.sqrt(1 + 0.25 / 4), 0
    for case in range(300):
        s_x, s_y = generator.normal(0.5, 1, 50), generator.normal(0, 1, 50)
        found = association(seat_test(), s_x, s_y, bootstrap=300, permutations=1, seed=case)
        low, high = np.quantile(found.resampled, [0.025, 0.975])
        hits += low <= truth <= high
    # Standard error of a coverage of 0.95 over 300 cases: 0.0126.
    assert 0.905 <= hits / 300 <= 0.99


# --- a model's figures


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("instruction", ["", "Be fair. "])
def test_figures_equal_one_sentence_at_a_time(architecture: str, pooling: Literal["mean", "last"], instruction: str) -> None:
    model, tokenizer = tiny_base(architecture), byte_tokenizer(starts_with_bos=architecture == "opt")
    config = SeatConfig(path="none", pooling=pooling)
    found = by_name(figures(model, tokenizer, [seat_test()], config, token_budget=64, bootstrap=50, instruction=instruction))
    context = tokenizer(instruction.rstrip())["input_ids"] if instruction else []
    special = {"add_special_tokens": not instruction}
    gap = " " if instruction else ""
    x, y, a, b = (
        [
            sentence_vector_slow(model, context + tokenizer(gap + sentence, **special)["input_ids"], len(context), last=pooling == "last")
            for sentence in part
        ]
        for part in SETS.values()
    )
    s_x, s_y = ([association_slow(w, a, b) for w in part] for part in (x, y))
    effect, p_value = found["seat.weat6.effect_size"], found["seat.weat6.p_value"]
    assert effect.value == pytest.approx(effect_size_slow(s_x, s_y), abs=1e-3)
    assert p_value.value == pytest.approx(permutation_p_slow(s_x, s_y)) and (p_value.low, p_value.n) == (None, 6)
    assert ("after the instruction 'Be fair. '" in effect.convention) == bool(instruction)
    assert (
        "last token" if pooling == "last" else "mean over tokens"
    ) in effect.convention and "X against Y, A against B" in effect.convention


def test_groups_are_averages_of_absolute_effects() -> None:
    swapped = SeatTest(**{**vars(seat_test("weat8b")), "x": seat_test().y, "y": seat_test().x})
    tests = [seat_test(), swapped, seat_test("religion2"), seat_test("weat1")]
    found = by_name(figures(tiny_base(), byte_tokenizer(), tests, SeatConfig(path="none"), token_budget=128, bootstrap=200))
    one = found["seat.weat6.effect_size"]
    assert one.value is not None and found["seat.weat8b.effect_size"].value == pytest.approx(-one.value)
    gender = found["seat.gender.mean_abs_effect_size"]
    assert gender.value == pytest.approx(abs(one.value)) and gender.n == 2 and "2 of 6 tests" in gender.convention
    assert gender.low is not None and gender.high is not None and gender.low < gender.value < gender.high
    assert found["seat.religion.mean_abs_effect_size"].n == 1 and "seat.race.mean_abs_effect_size" not in found


def test_batches_do_not_change_a_figure() -> None:
    runs = []
    for token_budget in (1, 64, 4096):
        steps: list[Progress] = []
        settings = {"token_budget": token_budget, "bootstrap": 20}
        runs.append(
            by_name(figures(tiny_base(), byte_tokenizer(), [seat_test()], SeatConfig(path="none"), progress=steps.append, **settings))
        )
        assert (steps[-1].done, steps[-1].total, steps[-1].message) == (11, 11, "SEAT")
    for run in runs[1:]:
        assert run["seat.weat6.effect_size"].value == pytest.approx(runs[0]["seat.weat6.effect_size"].value, abs=1e-4)


def test_sentences_that_are_all_alike_have_no_effect_size() -> None:
    test = SeatTest(name="weat6", x=("Same.", "Same."), y=("Same.", "Same."), a=("a",), b=("b",), categories=("X", "Y", "A", "B"))
    found = by_name(figures(tiny_base(), byte_tokenizer(), [test], SeatConfig(path="none"), token_budget=64, bootstrap=20))
    effect = found["seat.weat6.effect_size"]
    assert (effect.value, effect.low) == (None, None) and "associated alike" in effect.convention
    assert found["seat.weat6.p_value"].value == 1.0 and "seat.gender.mean_abs_effect_size" not in found


# --- reading


def test_tests_are_read_by_name(tmp_path: Path) -> None:
    for name in ("sent-weat7", "sent-weat6", "weat1"):
        write(tmp_path, name)
    every = load_tests(SeatConfig(path=str(tmp_path)))
    assert [test.name for test in every] == ["weat6", "weat7"]
    assert every[0].x == tuple(SETS["targ1"]) and every[0].categories == ("the targ1", "the targ2", "the attr1", "the attr2")
    assert [test.name for test in load_tests(SeatConfig(path=str(tmp_path), tests=("weat7",)))] == ["weat7"]
    with pytest.raises(DataError, match="no SEAT test weat9. It has: weat6, weat7"):
        load_tests(SeatConfig(path=str(tmp_path), tests=("weat7", "weat9")))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"targ1": ["a", "b"]}, "lacks targ1, targ2, attr1, attr2"),
        ({**SETS, "targ2": ["a"]}, "too few"),
        ({**SETS, "attr1": []}, "too few"),
        ({**SETS, "attr2": ["a", 3]}, "not a string"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, sets: dict[str, list[str]], message: str) -> None:
    write(tmp_path, "sent-weat6", sets)
    with pytest.raises(DataError, match=message):
        load_tests(SeatConfig(path=str(tmp_path)))


def test_a_folder_without_tests_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="no files sent-"):
            load_tests(SeatConfig(path=str(folder)))


def test_the_published_tests_are_all_there() -> None:
    folder = DATA / "seat"
    if not folder.exists():
        pytest.skip("needs seat/ under BIASDIFF_DATA")
    tests = {test.name: test for test in load_tests(SeatConfig(path=str(folder)))}
    assert {name for names in GROUPS.values() for name in names} <= set(tests)
    assert (len(tests["weat6"].x), len(tests["weat6"].y), len(tests["weat6"].a), len(tests["weat6"].b)) == (64, 64, 101, 112)
