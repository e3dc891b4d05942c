"""What a model says of loss tokens: whole logits and those taken in chunks, on every architecture, and their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig

from biasdiff_core.attribution.gradients import visit_gradients
from biasdiff_core.mitigation.unlearn import Frozen, kl_to
from biasdiff_core.model import score as module
from biasdiff_core.model.cross_entropy import linear_log_probs
from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.score import Scored, score
from biasdiff_core.model.tokenise import Batch, collate
from tests.reference.gradients_slow import loss_slow
from tests.tiny_models import ARCHITECTURES, LLAMA, left_padded, put_lora, sequences, tiny_base, tiny_lora
from tests.tiny_tokenizer import VOCABULARY

CPU = torch.device("cpu")


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(module, "CHUNKED_ON", {"cpu"})


def whole(model: Any, batch: Batch) -> Scored:
    """Scored with whole logits, wherever this runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNKED_ON", set())
        return score(model, batch)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_logits_are_those_of_the_labelled_positions(architecture: str) -> None:
    """Of every architecture, with padding on either side; the head is left as it was."""
    model, encoded = tiny_base(architecture, dtype=torch.float64), sequences(5)
    for batch in (collate(encoded, range(5), 0, torch.device("cpu")), left_padded(encoded)):
        everywhere = model(input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions).logits
        scored = score(model, batch)
        expected = torch.cat([everywhere[row, :-1][batch.loss_mask[row, 1:]] for row in range(5)])
        torch.testing.assert_close(scored.logits, expected)
        assert float(scored.log_prob[2]) == pytest.approx(-float(loss_slow(model, encoded[2])) * encoded[2].loss_tokens)
        assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_log_probabilities_by_chunks_are_those_of_the_whole(chunk: int, bias: bool) -> None:
    """Values and gradients against autograd through whole logits, whatever weights the tokens get afterwards."""
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 11, bias=bias, dtype=torch.float64).requires_grad_(False)
    hidden, targets, weights = torch.randn(7, 6, dtype=torch.float64), torch.randint(0, 11, (7,)), torch.randn(7, dtype=torch.float64)
    gradients, values = [], []
    for way in (lambda h: linear_log_probs(h, head, targets, chunk), lambda h: head(h).log_softmax(-1)[range(7), targets]):
        leaf = hidden.clone().requires_grad_(True)
        values.append(way(leaf))
        (values[-1] * weights).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_no_loss_token_gives_no_log_probability() -> None:
    head = torch.nn.Linear(6, 11).requires_grad_(False)
    assert linear_log_probs(torch.empty(0, 6), head, torch.empty(0, dtype=torch.long)).shape == (0,)


def test_half_precision_states_are_summed_in_single_precision() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 500, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    hidden, targets = torch.randn(20, 16, dtype=torch.bfloat16), torch.randint(0, 500, (20,))
    found = linear_log_probs(hidden, head, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head(hidden).float().log_softmax(-1)[range(20), targets])


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_in_chunks_a_model_says_the_same(architecture: str) -> None:
    """Log-probabilities, logits where they are asked for, per-example gradients, and the head as it was."""
    model, batch = tiny_lora(architecture, dtype=torch.float64), collate(sequences(6), range(6), 0, CPU)
    found, expected = score(model, batch), whole(model, batch)
    assert not torch.equal(found.token_log_probs, torch.zeros_like(found.token_log_probs))
    torch.testing.assert_close(found.token_log_probs, expected.token_log_probs)
    torch.testing.assert_close(found.logits, expected.logits)
    assert torch.equal(found.owner, expected.owner)
    head = model.get_output_embeddings()
    assert not head._forward_pre_hooks and not head._forward_hooks
    gradients: dict[str, torch.Tensor] = {}
    losses = visit_gradients(model, batch, gradients.__setitem__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNKED_ON", set())
        others: dict[str, torch.Tensor] = {}
        torch.testing.assert_close(losses, visit_gradients(model, batch, others.__setitem__))
    assert gradients.keys() == others.keys() and len(gradients) > 0
    for name, values in gradients.items():
        torch.testing.assert_close(values, others[name])


@pytest.mark.usefixtures("chunked")
def test_the_logits_of_a_batch_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2 tokens a chunk the head's product never has more rows than 2."""
    rows: list[int] = []
    product = torch.nn.functional.linear

    def seen(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if weight.shape[0] == VOCABULARY:
            rows.append(states.shape[0])
        return product(states, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", seen)
    monkeypatch.setattr(linear_log_probs, "__defaults__", (2,))
    batch = collate(sequences(4), range(4), 0, CPU)
    score(tiny_lora(), batch)
    assert sum(rows) == int(batch.loss_mask.sum()) and max(rows) == 2


@pytest.mark.usefixtures("chunked")
def test_a_model_that_scales_its_logits_is_scored_by_whole_ones() -> None:
    """Granite divides the logits by a constant after the head: chunks of the head's own logits would be wrong."""
    torch.manual_seed(0)
    config = GraniteConfig(**LLAMA, logits_scaling=7.0)
    model = put_lora(AutoModelForCausalLM.from_config(config).eval().requires_grad_(False), ("q_proj",))
    batch = collate(sequences(3), range(3), 0, CPU)
    torch.testing.assert_close(score(model, batch).token_log_probs, whole(model, batch).token_log_probs)


@pytest.mark.usefixtures("chunked")
def test_a_head_that_is_trained_is_scored_by_whole_logits() -> None:
    model, batch = tiny_base(), collate(sequences(3), range(3), 0, CPU)
    head = model.get_output_embeddings()
    head.weight.requires_grad_(True)
    score(model, batch).log_prob.sum().backward()
    assert head.weight.grad is not None and bool(head.weight.grad.any())


@pytest.mark.usefixtures("chunked")
def test_kl_to_the_origin_is_the_same_in_chunks() -> None:
    model, batch = tiny_lora(dtype=torch.float64), collate(sequences(4), range(4), 0, CPU)
    loss = kl_to(Frozen(model))
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter.add_(0.05)
    found = loss(score(model, batch))
    assert bool((found > 1e-6).all())
    torch.testing.assert_close(found, loss(whole(model, batch)))
