"""Fast forms of the VAE's layers against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from oneiro.nets.conv_vae import (
    ConvVAE,
    _Deconv,
    _deconv_of_pixel,
    _SquaredError,
    kl_divergence,
    vae_loss,
)

SMALL = (4, 6, 8, 10)


def agree(fast, slow, *inputs: torch.Tensor) -> None:
    """Same values and same gradients, in float64."""
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    a, b = fast(*inputs), slow(*inputs)
    torch.testing.assert_close(a, b)
    weight = torch.randn_like(a)
    torch.testing.assert_close(torch.autograd.grad(a, inputs, weight), torch.autograd.grad(b, inputs, weight))


@pytest.mark.parametrize(("channels", "kernel"), [(3, 6), (8, 6), (3, 5)])
def test_deconvolution(channels: int, kernel: int):
    agree(
        _Deconv.apply,
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
        torch.randn(2, 5, 7, 7),
        torch.randn(5, channels, kernel, kernel),
        torch.randn(channels),
    )


def test_deconvolution_of_one_pixel():
    agree(
        _deconv_of_pixel,
        lambda x, w, b: F.conv_transpose2d(x[:, :, None, None], w, b, stride=2),
        torch.randn(2, 6),
        torch.randn(6, 4, 5, 5),
        torch.randn(4),
    )


def test_squared_error():
    image = torch.rand(2, 3, 8, 8).double()
    logit = torch.randn(2, 3, 8, 8).double().requires_grad_()
    error = _SquaredError.apply(logit, image)
    expected = (logit.sigmoid() - image).square().sum((1, 2, 3))
    torch.testing.assert_close(error, expected.float(), check_dtype=False)
    (grad,) = torch.autograd.grad(error.sum(), logit)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), logit)[0], atol=1e-6, rtol=1e-5)


def test_loss_is_reconstruction_and_floored_kl():
    torch.manual_seed(0)
    vae, image, noise = ConvVAE(5, SMALL), torch.rand(3, 3, 64, 64), torch.randn(3, 5)
    error, kl = vae_loss(vae, image, 0.1, noise)
    mu, logvar = vae.encode(image)
    expected = (vae.decode(mu + (logvar / 2).exp() * noise) - image).square().sum((1, 2, 3))
    torch.testing.assert_close(error, expected)
    posterior = torch.distributions.Normal(mu, (logvar / 2).exp())
    exact = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_divergence(mu, logvar), exact)
    torch.testing.assert_close(kl, exact.clamp_min(0.1))
    _, floored = vae_loss(vae, image, 1e3, noise)
    assert torch.equal(floored, torch.full((3,), 1e3))
    assert not any(g.any() for g in torch.autograd.grad(floored.sum(), [*vae.encoder.parameters()]))


def test_bfloat16_stays_close():
    torch.manual_seed(0)
    vae, image, noise = ConvVAE(5, SMALL), torch.rand(3, 3, 64, 64), torch.randn(3, 5)
    exact = vae_loss(vae, image, 0.0, noise)[0]
    parameters = list(vae.parameters())
    exact_grad = torch.autograd.grad(exact.sum(), parameters)
    vae.compute_dtype = torch.bfloat16
    rounded = vae_loss(vae, image, 0.0, noise)[0]
    torch.testing.assert_close(rounded, exact, rtol=2e-3, atol=0)
    for a, b in zip(torch.autograd.grad(rounded.sum(), parameters), exact_grad, strict=True):
        assert a.dtype == torch.float32
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.97


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_and_range(dtype: torch.dtype):
    vae = ConvVAE(7, (16, 32, 64, 128), compute_dtype=dtype)
    image = torch.rand(2, 3, 64, 64)
    mu, logvar = vae.encode(image)
    assert mu.shape == logvar.shape == (2, 7)
    frame = vae.decode(mu)
    assert frame.shape == image.shape
    assert frame.dtype == torch.float32
    assert 0 <= frame.min() <= frame.max() <= 1
