"""Per-example gradients, optimizer maps and the sketch as plainly as they can be written: one example at a time, dense, by loops."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.tokenise import Encoded


def loss_slow(model: Any, example: Encoded) -> Tensor:
    """The mean of −log p over the example's loss tokens, from a batch of one without padding."""
    logits = model(input_ids=torch.tensor([example.ids])).logits[0]
    log_probs = torch.log_softmax(logits, dim=-1)
    places = range(example.loss_from, len(example.ids))
    return torch.stack([-log_probs[place - 1, example.ids[place]] for place in places]).mean()


def gradients_slow(model: Any, example: Encoded) -> tuple[float, dict[str, Tensor]]:
    """The loss and its gradient by every LoRA parameter [n], by autograd on the parameters; the model is left as it was."""
    parameters = lora_parameters(model)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    loss = loss_slow(model, example)
    loss.backward()
    gradients = {}
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        gradients[name] = parameter.grad.detach().flatten().clone()
        parameter.grad = None
        parameter.requires_grad_(False)
    return float(loss.detach()), gradients


def map_slow(kind: str, g: Tensor, m: Tensor, v: Tensor, t: int, beta1: float, beta2: float, epsilon: float) -> Tensor:
    """One parameter's mapped gradient, a coordinate at a time in Python floats."""
    found = []
    for gi, mi, vi in zip(g.flatten().tolist(), m.flatten().tolist(), v.flatten().tolist(), strict=True):
        m1, v1 = beta1 * mi + (1 - beta1) * gi, beta2 * vi + (1 - beta2) * gi * gi
        root = math.sqrt(v1 / (1 - beta2 ** (t + 1))) + epsilon
        found.append(
            {
                "sgd": gi,
                "rms": gi / (math.sqrt(vi / (1 - beta2**t)) + epsilon),
                "less": m1 / math.sqrt(v1 + epsilon),
                "adam": m1 / (1 - beta1 ** (t + 1)) / root,
                "adam_own": (1 - beta1) * gi / (1 - beta1 ** (t + 1)) / root,
            }[kind]
        )
    return torch.tensor(found, dtype=torch.float64)


def hash_slow(stream: str, place: int) -> int:
    """SplitMix64's output number `place` of the stream of that name, in unbounded integers."""
    word = (1 << 64) - 1
    start = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    z = (start + (place + 1) * 0x9E3779B97F4A7C15) & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    return z ^ (z >> 31)


def sketch_matrix(seed: int, name: str, size: int, dim: int) -> Tensor:
    """CountSketch of one parameter as a dense matrix [dim, size]."""
    matrix = torch.zeros((dim, size), dtype=torch.float64)
    for coordinate in range(size):
        z = hash_slow(f"1:{seed}:{name}", coordinate)
        matrix[(z >> 1) % dim, coordinate] = 1.0 if z & 1 else -1.0
    return matrix


def rademacher_matrix(seed: int, name: str, size: int, dim: int) -> Tensor:
    """The dense signs over √dim [dim, size] of one parameter: of each coordinate 64 signs a word, lowest bit first."""
    words = math.ceil(dim / 64)
    matrix = torch.zeros((dim, size), dtype=torch.float64)
    for coordinate in range(size):
        for number in range(dim):
            z = hash_slow(f"rademacher:1:{seed}:{name}", coordinate * words + number // 64)
            matrix[number, coordinate] = (1 if z >> number % 64 & 1 else -1) / math.sqrt(dim)
    return matrix


def whole(parts: Mapping[str, Tensor]) -> Tensor:
    """All parameters behind one another, sorted by name, [D]."""
    return torch.cat([parts[name].double() for name in sorted(parts)])


def sketch_slow(parts: Mapping[str, Tensor], seed: int, dim: int) -> Tensor:
    """The unit vector [dim] that the store keeps."""
    projected = sum((sketch_matrix(seed, n, len(p), dim) @ p.double() for n, p in parts.items()), start=torch.zeros(dim).double())
    return projected / projected.norm()


def mean_direction(vectors: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The mean of the unit vectors [D]."""
    return torch.stack([whole(parts) / whole(parts).norm() for parts in vectors]).mean(0)
