"""Fused mixture losses against the formula, and the sampler against the distribution it claims."""

import math

import pytest
import torch
from torch.nn import functional as F

from oneiro.nets import mdn
from oneiro.nets.mdn import (
    SamplingHead,
    mdn_head_nll,
    mdn_head_sample,
    mdn_nll,
    mdn_nll_reference,
    mdn_sample,
    mdn_split,
    restart_loss,
)


@pytest.fixture(autouse=True)
def _seed_and_small_chunks(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(mdn, "_CHUNK", 100)


def test_nll_equals_the_formula():
    params = torch.randn(3, 5, 4 * 6, dtype=torch.float64).mul_(2).requires_grad_()
    target = torch.randn(3, 5, 4, dtype=torch.float64)
    weight = torch.randn(3, 5, 4, dtype=torch.float64)
    fast, slow = mdn_nll(params, target), mdn_nll_reference(params, target)
    torch.testing.assert_close(fast, slow)
    grads = (torch.autograd.grad((nll * weight).sum(), params) for nll in (fast, slow))
    torch.testing.assert_close(*grads)
    assert torch.autograd.gradcheck(lambda p: mdn_nll(p, target), params)


def test_nll_of_one_gaussian():
    params = torch.tensor([[0.3, 1.0, math.log(2.0)]])
    expected = -torch.distributions.Normal(1.0, 2.0).log_prob(torch.tensor([[4.0]]))
    torch.testing.assert_close(mdn_nll(params, torch.tensor([[4.0]])), expected)


def test_nll_does_not_overflow():
    params = torch.tensor([[200.0, -300.0, 0.0, 50.0, -8.0, 6.0]], requires_grad=True)
    nll = mdn_nll(params, torch.tensor([[1.0]]))
    torch.testing.assert_close(nll, mdn_nll_reference(params, torch.tensor([[1.0]])), rtol=1e-5, atol=1e-4)
    assert torch.autograd.grad(nll.sum(), params)[0].isfinite().all()


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("time_major", [False, True])
def test_head_nll_equals_linear_then_nll(front: int, time_major: bool):
    h = torch.randn(3, 5, 7, dtype=torch.float64)
    if time_major:
        h = h.transpose(0, 1).contiguous().transpose(0, 1)
    h.requires_grad_()
    weight = torch.randn(front + 4 * 6, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(front + 4 * 6, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 5, 4, dtype=torch.float64)
    out = F.linear(h, weight, bias)
    fast = mdn_head_nll(h, weight, bias, target, num_mixtures=2)
    slow = mdn_nll_reference(out[..., front:], target), out[..., :front]
    torch.testing.assert_close(fast, slow)
    scale = torch.randn(3, 5, 4), torch.randn(3, 5, front)
    grads = (
        torch.autograd.grad((a * scale[0]).sum() + (b * scale[1]).sum(), (h, weight, bias))
        for a, b in (fast, slow)
    )
    torch.testing.assert_close(*grads)


def test_bfloat16_head_stays_close():
    h, target = torch.randn(64, 32).tanh(), torch.randn(64, 4)
    weight, bias = torch.randn(24, 32) * 0.2, torch.zeros(24)
    exact, _ = mdn_head_nll(h, weight, bias, target, num_mixtures=2)
    rounded, _ = mdn_head_nll(h, weight, bias, target, num_mixtures=2, compute_dtype=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).mean().abs() < 0.01


def test_samples_have_the_mixture_as_distribution():
    params = torch.tensor([0.5, -0.5, 1.0, -2.0, 3.0, 0.2, math.log(0.5), math.log(0.3), math.log(0.1)])
    uniform, normal = torch.rand(200_000, 1), torch.randn(200_000, 1)
    tau = 0.7
    z = mdn_sample(params.expand(200_000, 9), tau, uniform, normal)
    weight = (params[:3] / tau).softmax(0)
    mean = (weight * params[3:6]).sum()
    second = (weight * (params[3:6].square() + params[6:].exp().square() * tau)).sum()
    assert z.mean().item() == pytest.approx(mean.item(), abs=0.02)
    assert z.square().mean().item() == pytest.approx(second.item(), rel=0.01)


def test_temperature_zero_is_the_mode():
    params = torch.randn(6, 4 * 15)
    nothing = torch.zeros(6, 4)
    logmix, mean, _ = mdn_split(params, 4)
    expected = mean.gather(-1, logmix.argmax(-1, keepdim=True)).squeeze(-1)
    assert torch.equal(mdn_sample(params, 0.0, nothing, nothing), expected)


@pytest.mark.parametrize("front", [0, 1])
def test_head_sample_equals_linear_then_sample(front: int):
    h, weight, bias = torch.randn(6, 7), torch.randn(front + 4 * 15, 7), torch.randn(front + 4 * 15)
    uniform, normal = torch.rand(6, 4), torch.randn(6, 4)
    out = F.linear(h, weight, bias)
    for tau in (0.0, 0.4, 1.15):
        head = SamplingHead.of(weight, bias, 4, 5, torch.float32)
        z, shared = mdn_head_sample(h, head, tau, uniform, normal)
        torch.testing.assert_close(shared, out[:, :front])
        torch.testing.assert_close(z, mdn_sample(out[:, front:], tau, uniform, normal))


@pytest.mark.parametrize("u", [0.0, 1.0])
def test_extreme_uniforms_pick_a_component(u: float):
    params = torch.randn(8, 4 * 15)
    z = mdn_sample(params, 1.0, torch.full((8, 4), u), torch.zeros(8, 4))
    mean = mdn_split(params, 4)[1]
    assert (z[..., None] == mean).any(-1).all()


def test_restart_loss_weights_positives():
    logit, restart = torch.tensor([0.3, 0.3]), torch.tensor([True, False])
    p = torch.sigmoid(torch.tensor(0.3))
    expected = torch.stack([-10 * p.log(), -(1 - p).log()])
    torch.testing.assert_close(restart_loss(logit, restart), expected)
