"""Frozen fp32 linear maps by oneDNN, on CPUs where PyTorch's own way uses half of the vector units.

PyTorch hands fp32 products to MKL, which takes its AVX-512 kernels on Intel's CPUs alone. oneDNN, which PyTorch carries for bf16, takes
them wherever there are any. Same dtype, same weights; the sums are in another order (docs/decisions/onednn.md).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def is_faster() -> bool:
    """Whether this CPU has AVX-512 and is not Intel's."""
    cpu = torch.cpu.get_capabilities()
    built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built_in and bool(cpu.get("avx512_f")) and "intel" not in cpu["cpu_name"].lower()


def use_onednn(model: nn.Module) -> None:
    """Have every plain linear map of `model` computed by oneDNN from here on; weights and names stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


class OneDnnLinear(nn.Linear):
    """A linear map whose fp32 products on a CPU are oneDNN's; differentiable in its input. A trained weight is PyTorch's own affair."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        if input.dtype != torch.float32 or input.device.type != "cpu" or self.weight.requires_grad:
            return super().forward(input)
        return cast(Tensor, _Linear.apply(input, self.weight, self.bias))  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(upstream, weight.T, None), None, None


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """input · weightᵀ + bias. The operator is the one that torch.compile calls: the public ones copy input and output."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], ""))
