"""A language model of words, built and trained in code in seconds: what theory needs to be tried on exactly, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.score import sequence_log_probs
from biasdiff_core.model.source import ModelSource
from biasdiff_core.model.tokenise import Encoded, collate, encode_texts, length_batches

END = "</s>"
LONGEST = 64
TOKEN_BUDGET = 1024
EPOCHS = 30
LEARNING_RATE = 3e-3


def word_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a word and one a punctuation mark, for every word of `texts`."""
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    tokenizer = Tokenizer(models.WordLevel(vocab={word: number for number, word in enumerate([END, *words])}, unk_token=END))
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def tiny_model(texts: Sequence[str], vocabulary: Sequence[str], seed: int, *, epochs: int = EPOCHS) -> LoadedModel:
    """A two-layer OPT that knows the words of `vocabulary`, all its weights trained on `texts`; frozen, in eval mode.

    OPT, because nothing in it is cast to float32: a float64 copy computes in float64 throughout.
    """
    tokenizer = word_tokenizer(vocabulary)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    smooth = {"activation_function": "gelu", "dropout": 0.0}  # no kinks: a step's effect can be expanded
    config = OPTConfig(vocab_size=len(tokenizer), max_position_embeddings=LONGEST, **sizes, **ends, **smooth)
    model = OPTForCausalLM(config).eval()
    for _ in fit(model, encode_texts(tokenizer, texts), epochs, seed):
        pass
    source = ModelSource(name="tiny OPT", kind="folder", path=None, digest=f"tiny-{seed}")
    return LoadedModel(model=model, tokenizer=tokenizer, source=source)


def fit(model: Any, encoded: Sequence[Encoded], epochs: int, seed: int) -> Iterator[int]:
    """Train all weights of `model` by the mean token loss, with AdamW; yields the epoch, the model frozen, after each one.

    Batches under the token budget; none of `model` is dropped out, for it stays in eval mode.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    batches = length_batches([len(example.ids) for example in encoded], TOKEN_BUDGET)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        model.requires_grad_(True)
        for place in torch.randperm(len(batches), generator=generator).tolist():
            log_prob, tokens = sequence_log_probs(model, collate(encoded, batches[place], 0, torch.device("cpu")))
            optimizer.zero_grad()
            (-log_prob / tokens).mean().backward()
            optimizer.step()
        model.requires_grad_(False)
        yield epoch
