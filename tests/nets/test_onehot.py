"""Categorical latents: sampling by the inverse distribution, KL with free nats, shared noise."""

import torch
from torch.distributions import Categorical, kl_divergence

from oneiro.nets import onehot


def probs(*shape: int, mix: float = 0.01, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return onehot.unimix(2 * torch.randn(*shape, generator=g), mix)


def test_samples_have_the_frequencies_of_the_distribution() -> None:
    torch.manual_seed(0)
    p = probs(1, 3, 5).expand(20_000, 3, 5)
    sample = onehot.pick(p, torch.rand(20_000, 3))
    assert torch.equal(sample.sum(-1), torch.ones(20_000, 3))
    assert torch.allclose(sample.mean(0), p[0], atol=0.015)


def test_the_ends_of_the_uniform_stay_inside_the_classes() -> None:
    p = probs(1, 2, 4)
    assert torch.equal(onehot.pick(p, torch.zeros(1, 2)).argmax(-1), torch.zeros(1, 2).long())
    almost_one = torch.full((1, 2), 1 - 2**-24)
    assert torch.equal(onehot.pick(p, almost_one).argmax(-1), torch.full((1, 2), 3))


def test_temperature_sharpens_and_zero_is_the_mode() -> None:
    torch.manual_seed(0)
    p = probs(1, 1, 4).expand(20_000, 1, 4)
    sharp = torch.softmax(p[0].log() / 0.5, -1)
    found = onehot.pick(p, torch.rand(20_000, 1), temperature=0.5).mean(0)
    assert torch.allclose(found, sharp, atol=0.015)
    mode = onehot.pick(p[:1], torch.rand(1, 1), temperature=0.0)
    assert torch.equal(mode.argmax(-1), p[:1].argmax(-1))


def test_the_sample_carries_the_gradient_of_the_probabilities() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    p = onehot.unimix(logits, 0.01)
    sample = onehot.straight_through(onehot.pick(p, torch.rand(2, 3)), p)
    weight = torch.randn(2, 3, 4)
    (found,) = torch.autograd.grad((sample * weight).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((p * weight).sum(), logits)
    assert torch.allclose(found, expected)
    assert torch.equal(sample.detach().round().sum(-1), torch.ones(2, 3))


def test_kl_and_entropy_agree_with_torch_distributions() -> None:
    p, q = probs(6, 3, 5), probs(6, 3, 5, seed=1)
    assert torch.allclose(onehot.kl(p, q), kl_divergence(Categorical(p), Categorical(q)).sum(-1), atol=1e-5)
    assert torch.allclose(onehot.entropy(p), Categorical(p).entropy().sum(-1), atol=1e-5)


def test_kl_has_no_gradient_below_the_free_nats() -> None:
    logits = torch.randn(4, 2, 3, requires_grad=True)
    p = onehot.unimix(logits, 0.01)
    dyn, rep = onehot.kl_balanced(p, probs(4, 2, 3, seed=1), free=100.0)
    assert torch.equal(dyn, torch.full((4,), 100.0))
    assert torch.autograd.grad((dyn + rep).sum(), logits)[0].abs().max() == 0


def test_rows_with_one_draw_share_their_noise() -> None:
    torch.manual_seed(0)
    u = onehot.uniform_of_draw(torch.tensor([3, 1, 3]), 5)
    assert torch.equal(u[0], u[2])
    assert not torch.equal(u[0], u[1])
    assert not torch.equal(u, onehot.uniform_of_draw(torch.tensor([3, 1, 3]), 5))


def test_an_index_is_a_one_hot_in_one_byte() -> None:
    sample = onehot.pick(probs(5, 3, 4), torch.rand(5, 3))
    sample[0, 1] = 0
    index = onehot.to_index(sample)
    assert index.dtype == torch.uint8
    assert torch.equal(onehot.from_index(index, 4), sample)


def test_few_classes_have_the_same_softmax_and_gradient():
    logits = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    found, expected = onehot.unimix(logits, 0.01), 0.99 * logits.softmax(-1) + 0.01 / 4
    weight = torch.randn_like(found)
    torch.testing.assert_close(found, expected)
    for_found, for_expected = (torch.autograd.grad((x * weight).sum(), logits)[0] for x in (found, expected))
    torch.testing.assert_close(for_found, for_expected)
