"""Convolutions of DreamerV3 against the plain form of the same."""

import pytest
import torch
from torch.nn import functional as F

from oneiro.errors import OneiroError
from oneiro.nets import cnn


def conv(in_dim: int, out_dim: int) -> cnn.Conv:
    layer = cnn.Conv(in_dim, out_dim).double()
    torch.nn.init.normal_(layer.bias)
    return layer


def test_upsampling_and_convolving_at_once_is_the_same() -> None:
    layer, x = conv(4, 3), torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=2)
    found = cnn.unpack(layer.upsampled(x))
    assert torch.allclose(found, plain)
    weight = torch.randn_like(plain)
    inputs = (x, layer.weight, layer.bias)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((plain * weight).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b)
    assert torch.equal(cnn.unpack(cnn.pack(plain)), plain)


def test_the_bias_may_wait_until_after_pooling() -> None:
    layer, x = conv(4, 3), torch.randn(2, 4, 6, 8, dtype=torch.float64)
    plain = F.max_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=2), 2)
    assert torch.allclose(layer.pooled(x).permute(0, 3, 1, 2), plain)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 96, 96), (6, 48, 64)])
def test_sizes_and_dtypes(shape: tuple[int, int, int]) -> None:
    cnn.require_size(shape, "image", "DreamerV3")
    encoder = cnn.ImageEncoder(shape, 2, (2, 3, 4, 4))
    decoder = cnn.ImageDecoder(shape, 16, 12, 8, 2, (2, 3, 4, 4), 8)
    x = torch.rand(2, *shape).bfloat16() - 0.5
    tokens = encoder(x)
    assert tokens.shape == (2, encoder.out_dim) == (2, 8 * (shape[1] // 16) * (shape[2] // 16))
    assert tokens.dtype == torch.bfloat16
    image = decoder.picture(decoder(torch.randn(2, 16), torch.randn(2, 12)))
    assert image.shape == x.shape


@pytest.mark.parametrize("shape", [(3, 84, 84), (3, 32, 32), (3, 64, 32)])
def test_other_sizes_are_refused_by_name(shape: tuple[int, int, int]) -> None:
    with pytest.raises(
        OneiroError, match=f"'view' is {shape[1]} x {shape[2]}.*multiples of 16|multiples of 16"
    ):
        cnn.require_size(shape, "view", "DreamerV3")


def test_weights_begin_with_the_standard_deviation_of_the_fan_in() -> None:
    assert cnn.Conv(16, 200).weight.std().item() == pytest.approx((25 * 16) ** -0.5, rel=0.02)


def test_the_error_of_a_picture_and_its_gradient() -> None:
    decoder = cnn.ImageDecoder((3, 48, 48), 16, 12, 8, 2, (2, 3, 4, 4), 8)
    logits = torch.randn(2, 24, 24, 2, 2, 3, requires_grad=True)
    picture = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    plain = (decoder.picture(logits) - picture / 255).square().sum((1, 2, 3))
    for truth in (picture, picture / 255):
        found = decoder.error(logits, truth)
        assert torch.allclose(found, plain, rtol=1e-5)
        weight = torch.tensor([1.0, -2.0])
        (a,) = torch.autograd.grad((found * weight).sum(), logits)
        (b,) = torch.autograd.grad((plain * weight).sum(), logits, retain_graph=True)
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [3, 6])
def test_kernels_made_once_see_what_the_encoder_sees(channels: int, dtype: torch.dtype) -> None:
    encoder = cnn.ImageEncoder((channels, 64, 48), 4, (2, 3, 4, 4))
    encoder.convs[0].bias.data.normal_()  # type: ignore[union-attr]
    for pictures in (torch.rand(1, channels, 64, 48), torch.rand(17, channels, 64, 48)):
        x = (pictures - 0.5).to(dtype)
        with torch.no_grad():
            expected, found = encoder(x), encoder.prepared(dtype)(x)
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=1e-4)
