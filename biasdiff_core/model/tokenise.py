"""Texts to token ids, and token batches: length-bucketed under a budget of padded tokens, padding masked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from biasdiff_core.corpus.examples import TrainingExample
from biasdiff_core.errors import ConfigError
from biasdiff_core.workspace.artefacts import digest_json

Span = tuple[Literal["prompt", "text"], int, int]  # the part of an example, and characters of it: from, to
CALL_COST = 16  # what one more call of the model costs, in padded tokens (135 M parameters on a CPU)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids, special tokens as the tokenizer puts them; those from position `loss_from` on carry loss."""

    ids: tuple[int, ...]
    loss_from: int

    @property
    def loss_tokens(self) -> int:
        """How many tokens carry loss."""
        return max(0, len(self.ids) - self.loss_from)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`rows` [B]: indices into the encoded list; `ids`, `attention`, `positions`, `loss_mask` [B, T]: loss at the token itself."""

    rows: Tensor
    ids: Tensor
    attention: Tensor
    positions: Tensor
    loss_mask: Tensor


def prefix_token(tokenizer: Any) -> int | None:
    """The token that CrowS-Pairs' `sum` conditions a sentence on: bos, else eos, else none (as lm-evaluation-harness)."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return None


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of what turns texts into ids: the rules of a fast tokenizer, the vocabulary of one written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest_json(tokenizer.get_vocab())
    # Padding and truncation are settings of the last call.
    return digest_json(json.loads(backend.to_str()) | {"padding": None, "truncation": None})


def encode(tokenizer: Any, examples: Sequence[TrainingExample]) -> list[Encoded]:
    """Encode training examples as their tokenizer does, loss on the text's tokens only.

    A text without a prompt and without a special token in front has no loss at its first token: nothing predicts it.
    Prompt and text are tokenised apart, so that the loss begins exactly where the completion does.
    """
    prompts = [example.prompt or "" for example in examples]
    return _encode(tokenizer, [example.text for example in examples], prompts)


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[Encoded]:
    """Encode plain texts, loss on every token that has one before it."""
    return _encode(tokenizer, texts, [""] * len(texts))


def _encode(tokenizer: Any, texts: Sequence[str], prompts: Sequence[str]) -> list[Encoded]:
    if not texts:
        return []
    if not any(prompts):
        return [Encoded(ids=tuple(ids), loss_from=1) for ids in tokenizer(list(texts))["input_ids"]]
    # What comes first carries the tokenizer's own special tokens.
    context = tokenizer(list(prompts))["input_ids"]
    plain = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [Encoded(ids=(*before, *ids), loss_from=max(1, len(before))) for before, ids in zip(context, plain, strict=True)]


def token_spans(tokenizer: Any, examples: Sequence[TrainingExample], *, prompted: bool) -> list[list[Span]]:
    """Where each token of `encode` stands in its example; a special token nowhere, from 0 to 0.

    `prompted`: whether any example of the corpus that they are encoded with has a prompt.
    """
    texts = [example.text for example in examples]
    if not prompted:
        return [[("text", *span) for span in spans] for spans in _offsets(tokenizer, texts)]
    before = _offsets(tokenizer, [example.prompt or "" for example in examples])
    after = _offsets(tokenizer, texts, add_special_tokens=False)
    return [
        [*(("prompt", *span) for span in first), *(("text", *span) for span in second)] for first, second in zip(before, after, strict=True)
    ]


def _offsets(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[tuple[int, int]]]:
    return tokenizer(list(texts), return_offsets_mapping=True, **options)["offset_mapping"]


def encode_chat(tokenizer: Any, request: str, answers: Sequence[str]) -> list[Encoded]:
    """Encode `answers` as what the assistant says to the user's `request`, loss on the answer's own tokens only.

    Raises ConfigError for a tokenizer without a chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError("The model's tokenizer has no chat template.", "Set chat to false, or choose a model tuned for chat.")
    messages = [{"role": "user", "content": request}]
    opening = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    context = tuple(tokenizer(opening, add_special_tokens=False)["input_ids"])  # the template writes its own special tokens
    plain = tokenizer(list(answers), add_special_tokens=False)["input_ids"] if answers else []
    return [Encoded(ids=(*context, *ids), loss_from=max(1, len(context))) for ids in plain]


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, without special tokens."""
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def truncate_text(tokenizer: Any, text: str, max_tokens: int) -> str:
    """The longest prefix of `text` with at most `max_tokens` tokens, cut at a token's end in the original characters."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= max_tokens else text[: offsets[max_tokens - 1][1]]


def length_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices by ascending length (ties by index), cut into batches of at most `token_budget` padded tokens at the least cost.

    The cost of a batch is its padded tokens, rows × longest, and a constant for calling the model once more; the cut is
    found exactly, by dynamic programming over the sorted lengths. A row longer than the budget stands alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    best: list[tuple[int, int]] = [(0, 0)]  # after the first k rows: least cost, and where its last batch begins
    for end in range(1, len(order) + 1):
        longest, begins = lengths[order[end - 1]], end - 1
        choices = []
        while begins >= 0 and ((end - begins) * longest <= token_budget or begins == end - 1):
            choices.append((best[begins][0] + (end - begins) * longest + CALL_COST, begins))
            begins -= 1
        best.append(min(choices))
    batches, end = [], len(order)
    while end:
        batches.append(order[best[end][1] : end])
        end = best[end][1]
    return batches[::-1]


def collate(encoded: Sequence[Encoded], rows: Iterable[int], pad_id: int, device: torch.device) -> Batch:
    """Right-padded batch of `encoded[rows]` on `device`; padding carries neither attention nor loss."""
    chosen = list(rows)
    width = max(len(encoded[row].ids) for row in chosen)
    ids = torch.full((len(chosen), width), pad_id, dtype=torch.long)
    attention = torch.zeros((len(chosen), width), dtype=torch.long)
    loss_mask = torch.zeros((len(chosen), width), dtype=torch.bool)
    for i, row in enumerate(chosen):
        length = len(encoded[row].ids)
        ids[i, :length] = torch.tensor(encoded[row].ids)
        attention[i, :length] = 1
        loss_mask[i, encoded[row].loss_from : length] = True
    positions = torch.arange(width).expand(len(chosen), width)
    tensors = (ids, attention, positions, loss_mask)
    ids, attention, positions, loss_mask = (tensor.to(device) for tensor in tensors)
    return Batch(rows=torch.tensor(chosen), ids=ids, attention=attention, positions=positions, loss_mask=loss_mask)
