"""Shares of token positions: they and the shared momentum sum to the store's exact cosine, for every map; a loop over positions agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from biasdiff_core.attribution.gradients import full_vectors
from biasdiff_core.attribution.influence import CheckpointStores, exact_cosines
from biasdiff_core.attribution.optimizer_map import affine_parts, gradient_map
from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.attribution.token_influence import MOMENTUM, token_influence, token_table
from biasdiff_core.config import MapConfig
from biasdiff_core.config.gradients import OptimizerMap
from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.errors import ConfigError
from biasdiff_core.model.checkpoint import Checkpoint, load_optimizer_state
from biasdiff_core.model.lora import attach_adapter
from biasdiff_core.model.tokenise import collate, encode, token_spans
from tests.reference.token_influence_slow import position_shares_slow
from tests.test_optimizer_map import KINDS, random_state
from tests.tiny_gradients import PROBES, collect, example, gradient_config, tiny_corpus, tiny_probes, warm_up
from tests.tiny_models import ARCHITECTURES, default_dtype, sequences, tiny_loaded, tiny_lora
from tests.tiny_tokenizer import byte_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")

CPU = torch.device("cpu")


def random_direction(model: object, seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(v.numel(), generator=generator) for name, v in random_state(model).exp_avg.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_map_make_the_map(kind: OptimizerMap) -> None:
    with default_dtype(torch.float64):
        model = tiny_lora("llama", dtype=torch.float64)
        state = random_state(model)
        gradients, _ = full_vectors(model, collate(sequences(4), range(4), 0, CPU), gradient_map("sgd", None))
        for name, g in gradients.items():
            scale, shared = affine_parts(kind, state)(name, g)
            torch.testing.assert_close(scale * g + shared, gradient_map(kind, state)(name, g), rtol=1e-12, atol=1e-14)
            assert bool(shared.any()) == (kind in ("less", "adam"))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("kind", KINDS)
def test_shares_equal_a_loop_over_positions(kind: OptimizerMap, architecture: str) -> None:
    with default_dtype(torch.float64):
        model = tiny_lora(architecture, dtype=torch.float64)
        state, direction, encoded = random_state(model), random_direction(model), sequences(5)
        found = token_influence(model, 0, affine_parts(kind, state), direction, encoded, token_budget=30)
        vectors, _ = full_vectors(model, collate(encoded, range(5), 0, CPU), gradient_map(kind, state))
        norms = torch.stack([v.square().sum(1) for v in vectors.values()]).sum(0).sqrt()
        for row, one in enumerate(encoded):
            shares, losses = position_shares_slow(model, one, kind, state, direction)
            np.testing.assert_allclose(found[row].influence * float(norms[row]), shares, rtol=1e-8, atol=1e-9)
            np.testing.assert_allclose(found[row].loss[1:], losses, rtol=1e-9)
            assert np.isnan(found[row].loss[0])
            whole = sum(float(vectors[name][row] @ direction[name]) for name in vectors) / float(norms[row])
            assert found[row].influence.sum() + found[row].shared == pytest.approx(whole, rel=1e-9)
            assert found[row].influence[-1] == 0.0  # the last position predicts nothing, and nothing looks back at it


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """With a text of several bytes a letter, and one with a prompt."""
    return Corpus([*tiny_corpus("Zoë naïvely 🙂 slept."), example("a warm bed.", prompt="Zoë wants ")])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> list[Checkpoint]:
    return warm_up(tmp_path_factory.mktemp("warmup"), corpus)


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_sums_to_the_exact_cosine_of_its_store(
    kind: OptimizerMap, corpus: Corpus, checkpoints: list[Checkpoint], tmp_path: Path
) -> None:
    config, probes = gradient_config(maps=MapConfig(train=kind, probe="rms")), tiny_probes(twins=False)
    folder = collect(checkpoints[-1:], corpus, probes, tmp_path / "gradients", config) / checkpoints[-1].folder.name
    types = [kind_ for _, _, kind_ in PROBES]
    mean = exact_cosines([CheckpointStores.open(folder, 1.0)], {kind_: types.count(kind_) for kind_ in set(types)})["mean"]
    loaded = tiny_loaded()
    model = attach_adapter(loaded.model, checkpoints[-1].folder).requires_grad_(False)
    state = load_optimizer_state(checkpoints[-1].folder, model)
    ids = [corpus.ids[row] for row in (25, 3, 24, 0)]
    table = token_table(model, loaded.tokenizer, corpus, ids, probes, state, config)
    assert list(dict.fromkeys(table["id"])) == ids
    store = GradientStore.open(folder / "train")
    expected = {id_: (mean[row], store.rows["loss"][row]) for row, id_ in enumerate(store.ids)}
    for id_, rows in table.groupby("id"):
        assert rows["influence"].sum() == pytest.approx(expected[str(id_)][0], abs=2e-6)
        assert rows["loss"].mean() == pytest.approx(expected[str(id_)][1], rel=1e-5)  # of a row: the mean of its tokens
        assert (rows["part"] == MOMENTUM).sum() == 1
    shared = table[table["part"] == MOMENTUM]["influence"]
    assert (shared != 0).all() == (kind in ("less", "adam"))


def test_a_share_takes_no_other_example_into_account(corpus: Corpus) -> None:
    model = tiny_lora()
    parts, direction, encoded = affine_parts("sgd", None), random_direction(model), sequences(6)
    together = token_influence(model, 0, parts, direction, encoded, token_budget=200)
    reported: list[int] = []
    for row, one in enumerate(encoded):
        (alone,) = token_influence(model, 0, parts, direction, [one], token_budget=1, report=reported.append)
        np.testing.assert_allclose(together[row].influence, alone.influence, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(together[row].loss, alone.loss, rtol=1e-4)
    assert reported == [1] * 6


@pytest.mark.parametrize("starts_with_bos", [False, True])
@pytest.mark.parametrize("prompt", [None, "Zoë: "])
def test_spans_stand_where_their_tokens_do(prompt: str | None, starts_with_bos: bool) -> None:
    tokenizer = byte_tokenizer(starts_with_bos=starts_with_bos)
    one, other = example("naïve 🙂", prompt), example("yes", None)
    spans = token_spans(tokenizer, [one, other], prompted=prompt is not None)
    encoded = encode(tokenizer, [one, other])
    assert [len(places) for places in spans] == [len(e.ids) for e in encoded]
    places = [place for place in spans[0] if place[1:] != (0, 0)]
    assert len(encoded[0].ids) - len(places) == starts_with_bos
    # A byte a token: each letter comes as often as it has bytes.
    letters = [(part, (one.prompt or "" if part == "prompt" else one.text)[start:end]) for part, start, end in places]
    expected = [("prompt", c) for c in prompt or "" for _ in c.encode()] + [("text", c) for c in one.text for _ in c.encode()]
    assert letters == expected


def test_examples_that_share_a_vector_have_no_tokens_of_their_own(corpus: Corpus) -> None:
    loaded = tiny_loaded()
    with pytest.raises(ConfigError, match="neighbours share a vector"):
        token_table(tiny_lora(), loaded.tokenizer, corpus, corpus.ids[:2], tiny_probes(), None, gradient_config(shard_size=4, block_size=2))
