"""CrowS-Pairs scores one sentence at a time, written from the definitions."""

from __future__ import annotations

from typing import Any

import torch

from tests.reference.likelihood_slow import token_log_probs_slow


def paper_score_slow(model: Any, tokenizer: Any, sentence: str) -> float:
    """2^(mean log2 p), the first token given the start token, the others given the sentence without it."""
    start = tokenizer.encode("<|endoftext|>")[0]
    ids = tokenizer(sentence)["input_ids"]
    with torch.no_grad():
        first = model(torch.tensor([[start]])).logits[0, 0].float().softmax(-1)[ids[0]].item()
        rest = model(torch.tensor([ids])).logits[0].float().softmax(-1)
    probabilities = [first] + [rest[place - 1, ids[place]].item() for place in range(1, len(ids))]
    return float(2 ** torch.tensor(probabilities, dtype=torch.float64).log2().mean().item())


def sum_score_slow(model: Any, tokenizer: Any, sentence: str) -> float:
    """Sum of ln p of all tokens given the bos, else the eos token."""
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return float(token_log_probs_slow(model, [prefix, *tokenizer(sentence, add_special_tokens=False)["input_ids"]]).sum())
