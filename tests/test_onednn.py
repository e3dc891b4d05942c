"""Linear maps by oneDNN: PyTorch's values and gradients, of the same weights under the same names."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from biasdiff_core.attribution.gradients import visit_gradients
from biasdiff_core.config import ModelConfig
from biasdiff_core.model import onednn
from biasdiff_core.model.load import load_model
from biasdiff_core.model.lora import lora_parameters
from biasdiff_core.model.onednn import OneDnnLinear, use_onednn
from biasdiff_core.model.tokenise import collate
from tests.tiny_models import put_lora, sequences, tiny_base, tiny_loaded

SHAPES = [(3,), (4, 3), (2, 5, 3), (0, 3)]


def pair(*, bias: bool, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, nn.Module]:
    """A frozen linear map, and the same one by oneDNN."""
    torch.manual_seed(0)
    plain = nn.Linear(3, 7, bias=bias, dtype=dtype).requires_grad_(False)
    other = copy.deepcopy(plain)
    use_onednn(other)
    assert type(other) is OneDnnLinear
    return plain, other


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_pytorchs(shape: tuple[int, ...], bias: bool) -> None:
    plain, other = pair(bias=bias)
    given = torch.randn(shape)
    upstream = torch.randn(*shape[:-1], 7)
    inputs = [given.clone().requires_grad_(True) for _ in range(2)]
    outputs = [layer(x) for layer, x in zip((plain, other), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for output in outputs:
        output.backward(upstream)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)


def test_inputs_that_are_not_contiguous() -> None:
    plain, other = pair(bias=True)
    given = torch.randn(5, 3, 4).transpose(1, 2)
    torch.testing.assert_close(other(given), plain(given))
    upstream = torch.randn(5, 7, 4).transpose(1, 2)
    inputs = [given.clone().requires_grad_(True) for _ in range(2)]
    for layer, x in zip((plain, other), inputs, strict=True):
        layer(x).backward(upstream)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_left_to_pytorch(dtype: torch.dtype) -> None:
    plain, other = pair(bias=True, dtype=dtype)
    given = torch.randn(4, 3, dtype=dtype)
    assert torch.equal(other(given), plain(given))


def test_a_trained_weight_keeps_its_gradient() -> None:
    plain, other = pair(bias=False)
    for layer in (plain, other):
        layer.requires_grad_(True)
        layer(torch.ones(2, 3)).sum().backward()
    assert torch.equal(next(other.parameters()).grad, next(plain.parameters()).grad)  # type: ignore[arg-type]


def test_per_example_gradients_are_those_of_the_plain_model() -> None:
    """Through a whole model with a trained LoRA, whose own maps stay PyTorch's; the values of a call repeat to the last bit."""
    plain, other = tiny_base(), tiny_base()
    use_onednn(other)
    models = [put_lora(model, ["q_proj", "up_proj"]) for model in (plain, other)]
    assert all(type(module) is not OneDnnLinear for name, module in models[1].named_modules() if ".lora_" in name)
    assert any(type(module) is OneDnnLinear for module in models[1].modules())
    assert list(lora_parameters(models[1])) == list(lora_parameters(models[0]))
    batch = collate(sequences(6), list(range(6)), 0, torch.device("cpu"))
    found: list[dict[str, torch.Tensor]] = []
    for model in (*models, models[1]):
        gradients: dict[str, torch.Tensor] = {}
        visit_gradients(model, batch, gradients.__setitem__)
        found.append(gradients)
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(found[2][name], found[1][name])


@pytest.mark.parametrize("faster", [False, True])
def test_a_loaded_model_takes_what_is_faster_here(faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "is_faster", lambda: faster)
    tiny = tiny_loaded()
    tiny.model.save_pretrained(tmp_path / "m")
    tiny.tokenizer.save_pretrained(tmp_path / "m")
    model = load_model(ModelConfig(name=str(tmp_path / "m")), tmp_path).model
    assert any(type(module) is OneDnnLinear for module in model.modules()) is (faster and not torch.cuda.is_available())
    assert all(torch.equal(value, tiny.model.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("cpu", "faster"),
    [
        ({"cpu_name": "AMD EPYC 9755", "avx512_f": True}, True),
        ({"cpu_name": "AMD EPYC 7763", "avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R) Platinum 8481C", "avx512_f": True}, False),
        ({"cpu_name": "Neoverse-V2"}, False),
    ],
)
def test_it_is_faster_where_mkl_leaves_vector_units_idle(cpu: dict[str, object], faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    assert onednn.is_faster() is faster
