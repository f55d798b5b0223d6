"""Gates of the block GRU: the written-out form against the formula."""

import torch

from oneiro.nets.block_rssm import BlockRSSM, _Gates, _mixed


def test_gates_and_their_gradient():
    gates = (2 * torch.randn(3, 5, 12, dtype=torch.float64)).requires_grad_()
    old = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    reset, update, cand = gates.chunk(3, -1)
    update = torch.sigmoid(update)
    expected = update * torch.tanh(torch.sigmoid(reset) * cand / 2) + (1 - update) * old
    torch.testing.assert_close(_mixed(gates, old), expected)
    assert torch.autograd.gradcheck(_Gates.apply, (gates, old))
    with torch.no_grad():
        torch.testing.assert_close(_mixed(gates.clone(), old), expected)


def test_a_cell_has_the_layers_gates_in_their_published_order():
    torch.manual_seed(0)
    sizes = {"deter_dim": 8, "stoch": 2, "classes": 3, "units": 4, "blocks": 2, "action_dim": 2}
    model = BlockRSSM(**sizes, token_dim=3, unimix=0.01)
    torch.nn.init.normal_(model.gates.bias)
    y, old = torch.randn(5, 8), torch.randn(5, 8)
    reset, cand, update = model.gates(y).view(5, 2, 3, 4).unbind(2)  # r, c, u inside each block
    update = torch.sigmoid(update - 1)
    expected = update * torch.tanh(torch.sigmoid(reset) * cand) + (1 - update) * old.view(5, 2, 4)
    weight, bias = model.cell(torch.float32).gates
    found = _mixed(torch.bmm(model._split(y), weight) + bias, model._split(old))
    torch.testing.assert_close(model._join(found), expected.flatten(1))
