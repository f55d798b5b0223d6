"""Maxima by rows and columns, and the convolution by patches, against the plain form."""

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from oneiro.nets import pooling
from oneiro.nets.cnn import Conv, pack


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = F.max_pool2d(F.conv2d(x, weight, bias, padding=2), 2)
    return rearrange(y, "n c h w -> n h w c")


@pytest.mark.parametrize("channels", [1, 6, 8, 12])
def test_the_maximum_and_its_gradient(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "MANY_NUMBERS", 0)
    x = torch.randn(2, 6, 8, channels, requires_grad=True)
    found = pooling.max_pool(x)
    expected = rearrange(F.max_pool2d(rearrange(x, "n h w c -> n c h w"), 2), "n c h w -> n h w c")
    assert torch.equal(found, expected)
    grad = torch.randn_like(found)
    assert torch.equal(*(torch.autograd.grad(y, x, grad)[0] for y in (found, expected)))
    with torch.no_grad():
        assert torch.equal(pooling.max_pool(x), expected)
        low = x.bfloat16()
        assert torch.equal(pooling.max_pool(low), expected.bfloat16())


def test_equal_numbers_give_their_gradient_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "MANY_NUMBERS", 0)
    x = torch.ones(1, 4, 4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(pooling.max_pool(x).sum(), x)
    blocks = rearrange(grad, "n (h p) (w q) c -> n h w c (p q)", p=2, q=2)
    assert torch.equal(blocks.sum(-1), torch.ones(1, 2, 2, 3))


@pytest.mark.parametrize("colours", [1, 3])
def test_the_convolution_of_patches_and_its_gradient(colours: int) -> None:
    conv = Conv(colours, 5).double()
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, colours, 8, 12, dtype=torch.float64)
    found = pooling.patch_conv_max(pack(x), conv.weight, conv.bias)
    expected = plain(x, conv.weight, conv.bias)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(found)
    for a, b in zip(
        *(torch.autograd.grad(y, (conv.weight, conv.bias), grad) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_many_pictures_take_the_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = Conv(3, 8), torch.randn(4, 3, 16, 16)
    whole = conv.pooled(x)
    calls = []
    form = pooling.patch_conv_max
    monkeypatch.setattr(pooling, "MANY_PICTURES", 4)
    monkeypatch.setattr(pooling, "patch_conv_max", lambda *a: calls.append(1) or form(*a))
    torch.testing.assert_close(conv.pooled(x), whole, atol=1e-5, rtol=1e-5)
    assert calls == [1]


def test_without_a_gradient_the_maxima_are_the_same():
    for shape in ((1, 64, 64, 8), (3, 32, 16, 48), (1, 4, 4, 5)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert torch.equal(
                pooling.max_pool(x), F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
            )
