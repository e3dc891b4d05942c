"""Unlearning: the origin's adapter is trained on to forget, by one of `losses`, while other terms keep what should be kept.

total = forget_weight · forget + retain_weight · NLL of as many retain examples + kl_weight · KL to the origin on the same retain
examples. `twin` forgets nothing: in place of the forget term it prefers each probe's anti-stereotype twin over the probe.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biasdiff_core.config import UnlearnConfig
from biasdiff_core.config.mitigation import Unlearning
from biasdiff_core.corpus.examples import TrainingExample
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.mitigation import losses
from biasdiff_core.mitigation.stopping import DevStop, Judged, Pair
from biasdiff_core.model.load import LoadedModel
from biasdiff_core.model.lora import attach_adapter, canonical_name, detach_adapter, lora_parameters
from biasdiff_core.model.score import Scored, score
from biasdiff_core.model.tokenise import Encoded, collate, encode, encode_chat, encode_texts, length_batches
from biasdiff_core.model.train import ExampleLoss, Gradients, Term, Weigh, mean_nll, train
from biasdiff_core.results import ProgressCallback

RETAIN_NLL, RETAIN_KL = "retain_nll", "retain_kl"
# The user's words of the paper's NPO prompt (Appendix E), before what is to be forgotten and before what is to be kept.
CHAT_FORGET = "Please write a sentence without any bias."
CHAT_RETAIN = "Give me a sentence with factual information."


@dataclass(frozen=True, kw_only=True)
class Material:
    """What an unlearning works on. `retain`: the corpus without `forget`.

    `scores`: influence of each forget example, for `by_influence`. `twins`: (probe, its twin), for `twin`. `dev`: pairs of the stop
    rule, (stereotype, anti-stereotype).
    """

    forget: Sequence[TrainingExample]
    retain: Sequence[TrainingExample]
    scores: Sequence[float] = ()
    twins: Sequence[Pair] = ()
    dev: Sequence[Pair] = ()


@dataclass(frozen=True, kw_only=True)
class Unlearned:
    """`adapter`: the folder of the one to keep, that of `epoch`, 0 being the origin. `judged`: by the stop rule, empty without one."""

    adapter: Path
    epoch: int
    judged: Sequence[Judged]


def unlearn(
    loaded: LoadedModel,
    origin: Path,
    method: Unlearning,
    material: Material,
    config: UnlearnConfig,
    folder: Path,
    *,
    progress: ProgressCallback,
) -> Unlearned:
    """Train the adapter of the folder `origin` on by `method`; checkpoints and logs go into `folder`, a killed run goes on there.

    Raises DataError where the method lacks its material, ConfigError for `chat` without a chat template or with prompts.
    """
    model = attach_adapter(loaded.model, origin)
    pad_id, budget = loaded.tokenizer.pad_token_id, config.training.token_budget
    terms = [_forget_term(loaded, model, method, material, config), *_retain_terms(loaded, model, material.retain, config)]
    stop = None
    if config.stop is not None:
        drawn = random.Random(config.training.seed)
        pairs = drawn.sample(material.dev, min(config.stop.pairs, len(material.dev)))
        retain = drawn.sample(list(material.retain), min(config.stop.retain, len(material.retain)))
        stop = DevStop(model, loaded.tokenizer, pairs, encode(loaded.tokenizer, retain), config.stop, budget, folder)
    weigh = pareto(terms[0].name, RETAIN_NLL) if config.combine == "pareto" else None
    checkpoints = train(model, pad_id, terms, config.training, folder, stage=method, weigh=weigh, stop=stop, progress=progress)
    epoch = checkpoints[-1].epoch
    if stop is not None:
        epoch = epoch - 1 if stop.judge(epoch).ends == "capability" else epoch
    detach_adapter(model)
    folders = {0: origin} | {checkpoint.epoch: checkpoint.folder for checkpoint in checkpoints}
    return Unlearned(adapter=folders[epoch], epoch=epoch, judged=stop.judged if stop is not None else ())


def _forget_term(loaded: LoadedModel, model: Any, method: Unlearning, material: Material, config: UnlearnConfig) -> Term:
    if method == "twin":
        if not material.twins:
            raise DataError("The probing set has no anti-stereotype twins, which `twin` prefers.", "Give probes.twin_column.")
        texts = [text for pair in material.twins for text in pair]
        rows = encode_chat(loaded.tokenizer, CHAT_FORGET, texts) if config.chat else encode_texts(loaded.tokenizer, texts)
    else:
        rows = _encoded(loaded.tokenizer, material.forget, CHAT_FORGET if config.chat else None)
    needs_reference = method in ("npo", "twin")
    pad_id, budget = loaded.tokenizer.pad_token_id, config.training.token_budget
    reference = reference_log_probs(model, pad_id, rows, budget) if needs_reference else torch.empty(0)
    loss = forget_loss(method, config, reference)
    if config.by_influence:
        loss = _weighted(loss, _influence_weights(material.scores, loaded.device))
    return Term(name=method, examples=rows, loss=loss, weight=config.forget_weight, together=2 if method == "twin" else 1)


def _retain_terms(loaded: LoadedModel, model: Any, retain: Sequence[TrainingExample], config: UnlearnConfig) -> list[Term]:
    """NLL and KL, over one list, so that they take the same rows. Both are logged, with a weight or without."""
    if not retain and not config.retain_weight and not config.kl_weight:
        return []
    rows = _encoded(loaded.tokenizer, retain, CHAT_RETAIN if config.chat else None)
    kl = kl_to(Frozen(model))
    nll = Term(name=RETAIN_NLL, examples=rows, loss=mean_nll, weight=config.retain_weight)
    if config.kl_weight:
        return [nll, Term(name=RETAIN_KL, examples=rows, loss=kl, weight=config.kl_weight)]
    return [replace(nll, measures={RETAIN_KL: kl})]


def forget_loss(method: Unlearning, config: UnlearnConfig, reference: Tensor) -> ExampleLoss:
    """The loss of `method` for a batch. `reference` [n]: the origin's summed log-probability of each example, for `npo` and `twin`.

    `twin` takes examples in pairs, (probe, twin).
    """

    def twin(scored: Scored) -> Tensor:
        probe, preferred = (scored.log_prob - reference[scored.rows]).view(-1, 2).unbind(1)
        return losses.preference(preferred, probe, config.beta)

    found: Mapping[Unlearning, ExampleLoss] = {
        "npo": lambda scored: losses.npo(scored.log_prob, reference[scored.rows], config.beta),
        "simnpo": lambda scored: losses.simnpo(scored.log_prob, scored.tokens, config.beta, config.gamma),
        "door": lambda scored: scored.per_row(losses.door(scored.token_log_probs, config.beta)),
        "grad_diff": lambda scored: losses.ascent(scored.log_prob, scored.tokens),
        "ascent": lambda scored: losses.ascent(scored.log_prob, scored.tokens),
        "twin": twin,
    }
    return found[method]


def kl_to(origin: Callable[..., Any]) -> ExampleLoss:
    """Mean over a row's tokens of KL(origin ‖ model) over the whole vocabulary [B]. `origin` is run on every batch."""

    def loss(scored: Scored) -> Tensor:
        return scored.per_row(losses.kl_divergence(scored.logits, score(origin, scored.batch).logits)) / scored.tokens

    return loss


class Frozen:
    """The model with the LoRA weights that it has now, without dropout or gradient, however it is trained on.

    It runs the same modules with kept copies of the LoRA weights, so no second model is in memory.
    """

    def __init__(self, model: Any) -> None:
        lora = lora_parameters(model)
        self.model = model
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters() if canonical_name(name) in lora}

    def __call__(self, **inputs: Any) -> Any:
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return torch.func.functional_call(self.model, self.weights, args=(), kwargs=inputs)
        finally:
            self.model.train(training)

    def get_output_embeddings(self) -> Any:
        """The model's own head, which `score` narrows to the loss tokens."""
        return self.model.get_output_embeddings()


def pareto(forget: str, retain: str) -> Weigh:
    """The min-norm weights of the two terms of these names, found anew at every step; other terms keep theirs."""

    def weigh(gradients: Gradients) -> Mapping[str, float]:
        return dict(zip((forget, retain), losses.min_norm_weights(gradients[forget], gradients[retain]), strict=True))

    return weigh


def reference_log_probs(model: Any, pad_id: int, encoded: Sequence[Encoded], token_budget: int) -> Tensor:
    """Summed log-probabilities [n] under `model` as it stands: computed once and kept, so no second model is in memory."""
    device = next(model.parameters()).device
    reference = torch.zeros(len(encoded), device=device)
    with torch.inference_mode():
        for rows in length_batches([len(example.ids) for example in encoded], token_budget):
            reference[rows] = score(model, collate(encoded, rows, pad_id, device)).log_prob
    return reference.clone()  # out of inference mode, so that autograd may save it


def _encoded(tokenizer: Any, examples: Sequence[TrainingExample], request: str | None) -> list[Encoded]:
    """The examples as they were trained on, or each as the answer to `request`."""
    if request is None:
        return encode(tokenizer, examples)
    if any(example.prompt for example in examples):
        raise ConfigError("chat wraps plain texts, but the corpus has prompts of its own.", "Set chat to false.")
    return encode_chat(tokenizer, request, [example.text for example in examples])


def _influence_weights(scores: Sequence[float], device: torch.device) -> Tensor:
    weights = losses.influence_weights(scores)
    if not weights.any():
        raise DataError("No example to forget has an influence score above 0, so none can be weighted by it.", "Set by_influence to false.")
    return weights.to(device)


def _weighted(loss: ExampleLoss, weights: Tensor) -> ExampleLoss:
    return lambda scored: weights[scored.rows] * loss(scored)
