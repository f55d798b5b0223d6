"""Gates of the block GRU: the written-out form against the formula."""

import torch

from oneiro.nets.block_rssm import _Gates


def test_gates_and_their_gradient():
    gates = (2 * torch.randn(3, 5, 12, dtype=torch.float64)).requires_grad_()
    old = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    reset, cand, update = gates.chunk(3, -1)
    update = torch.sigmoid(update - 1)
    expected = update * torch.tanh(torch.sigmoid(reset) * cand) + (1 - update) * old
    torch.testing.assert_close(_Gates.apply(gates, old), expected)
    assert torch.autograd.gradcheck(_Gates.apply, (gates, old))
