"""Norm and SiLU in one function: the same numbers and gradients as the formula."""

import pytest
import torch
from torch import Tensor

from oneiro.nets.norm_silu import LARGE, norm_silu, plain_norm_silu


def inputs(b: int, c: int, side: int, dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
    torch.manual_seed(0)
    x = (2 * torch.randn(b, c, side, side) + 1).to(dtype).contiguous(memory_format=layout)
    return [y.requires_grad_() for y in (x, 1 + 0.3 * torch.randn(b, c), torch.randn(b, c))]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
@pytest.mark.parametrize("side", [32, 8], ids=["large", "small"])
@pytest.mark.parametrize(("b", "c"), [(1, 64), (3, 32)])
def test_values_and_gradients(b: int, c: int, side: int, layout: torch.memory_format) -> None:
    assert (c * side**2 >= LARGE) == (side == 32)
    x, weight, bias = inputs(b, c, side, torch.float32, layout)
    found, expected = (f(x, c // 32, weight, bias) for f in (norm_silu, plain_norm_silu))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)
    with torch.no_grad():
        assert torch.equal(norm_silu(x, c // 32, weight, bias), found)
    grad = torch.randn_like(x)
    for a, e in zip(
        torch.autograd.grad(found, (x, weight, bias), grad),
        torch.autograd.grad(expected, (x, weight, bias), grad),
        strict=True,
    ):
        torch.testing.assert_close(a, e, atol=1e-4, rtol=1e-4)


def test_bfloat16_stays_near_float32() -> None:
    x, weight, bias = inputs(2, 64, 32, torch.bfloat16, torch.channels_last)
    found = norm_silu(x, 2, weight, bias)
    exact = plain_norm_silu(x.float(), 2, weight, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=2e-2, rtol=2e-2)
    grad = torch.randn_like(exact)
    for a, e in zip(
        torch.autograd.grad(found, (x, weight, bias), grad.bfloat16()),
        torch.autograd.grad(exact, (x, weight, bias), grad),
        strict=True,
    ):
        error = (a.float() - e.float()).square().mean().sqrt() / e.float().square().mean().sqrt()
        assert error < 1e-2
