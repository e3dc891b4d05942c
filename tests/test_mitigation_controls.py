"""Retraining without what was removed, and what else the controls would have removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from biasdiff_core.corpus.examples import Corpus
from biasdiff_core.errors import DataError
from biasdiff_core.mitigation.controls import oracle_removal, random_removal, swap_removal
from biasdiff_core.mitigation.retrain import retrain_without
from biasdiff_core.model.lora import ADAPTER_FILE
from biasdiff_core.results import no_progress
from tests.tiny_gradients import LORA, PROBES, TRAINING, example, tiny_corpus
from tests.tiny_models import tiny_loaded


def labelled(*labels: int | None) -> Corpus:
    texts = ("Nurses cry at work.", "The ferry was late again on Monday.", "Aunts gossip.", "It rained.")
    return Corpus(replace(example(text), label=label) for text, label in zip(texts, labels, strict=True))


def texts_of(corpus: Corpus, ids: list[str]) -> set[str]:
    return {row.text for row in corpus if row.id in ids}


def test_retraining_starts_from_the_base_and_never_sees_what_was_removed(tmp_path: Path) -> None:
    """The corpus without the removed rows and a corpus that never held them give the same weights."""
    corpus = tiny_corpus()
    removed = list(corpus.ids[:4])
    rest = type(corpus)(corpus[4:])
    for name, data, ids in (("a", corpus, removed), ("b", rest, [])):
        (tmp_path / name).mkdir()
        retrain_without(tiny_loaded(), data, ids, LORA, TRAINING, tmp_path / name, stage="retrain", progress=no_progress)
    one, other = ((tmp_path / name / "epoch-02" / ADAPTER_FILE).read_bytes() for name in "ab")
    assert one == other


def test_random_removal_is_seeded_and_does_not_depend_on_the_order() -> None:
    ids = [f"id{n}" for n in range(40)]
    chosen = random_removal(ids, 10, seed=1)
    assert chosen == random_removal(ids[::-1], 10, seed=1) == sorted(set(chosen)) and len(chosen) == 10
    assert chosen != random_removal(ids, 10, seed=2)
    # Each id is drawn in a quarter of the draws: 250 ± 13.7 of 1,000.
    counts = [sum(i in random_removal(ids, 10, seed=s) for s in range(1000)) for i in ids[:3]]
    assert all(abs(count - 250) < 4.5 * 13.7 for count in counts)


def test_the_oracle_removes_all_that_is_labelled_biased() -> None:
    corpus = labelled(1, 0, 1, 0)
    assert texts_of(corpus, oracle_removal(corpus)) == {"Nurses cry at work.", "Aunts gossip."}
    assert oracle_removal(corpus) == sorted(oracle_removal(corpus))


def test_the_oracle_needs_every_label_and_something_to_remove() -> None:
    with pytest.raises(DataError, match="not every example has one"):
        oracle_removal(labelled(1, 0, None, 0))
    with pytest.raises(DataError, match="no example has the label 1"):
        oracle_removal(labelled(0, 0, 0, 0))


def test_scorer_swaps_remove_what_their_ranking_puts_first() -> None:
    corpus = labelled(1, 0, 1, 0)
    probes = [probe for probe, _, _ in PROBES]  # "Nurses cry.", "Aunts gossip." among them
    assert texts_of(corpus, swap_removal(corpus, probes, "length", 2)) == {"Aunts gossip.", "It rained."}
    assert texts_of(corpus, swap_removal(corpus, probes, "unigram", 2)) == {"Nurses cry at work.", "Aunts gossip."}
    for count in (1, 3):
        chosen = swap_removal(corpus, probes, "unigram", count)
        assert len(chosen) == count and chosen == sorted(chosen)
        assert chosen == swap_removal(Corpus(corpus[::-1]), probes, "unigram", count)


@pytest.mark.slow
def test_minilm_puts_the_stereotypes_first() -> None:
    corpus = labelled(1, 0, 1, 0)
    found = swap_removal(corpus, ["Nurses always weep.", "Women love to gossip."], "minilm", 2)
    assert texts_of(corpus, found) == {"Nurses cry at work.", "Aunts gossip."}
