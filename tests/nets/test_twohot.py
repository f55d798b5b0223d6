"""Two-hot scalars: what the parity vectors do not say."""

import pytest
import torch

from oneiro.nets.twohot import TwoHot, symexp, symlog


def test_symexp_inverts_symlog():
    x = torch.tensor([-1e6, -3.0, -1e-3, 0.0, 0.5, 40.0])
    torch.testing.assert_close(symexp(symlog(x)), x)


@pytest.mark.parametrize("space", ["real", "symlog"])
def test_the_fitted_logits_have_the_target_as_mean(space):
    head, target = TwoHot(63, space=space), torch.tensor([-250.0, -0.4, 0.0, 7.0, 1e4])
    logits = torch.zeros(5, 63, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(logits, target).sum().backward()
        optimizer.step()
    # What mass is left on the outer bins (5e8 in real space) is all that differs.
    torch.testing.assert_close(symlog(head.mean(logits)), symlog(target), atol=0.3, rtol=0.02)


@pytest.mark.parametrize("space", ["real", "symlog"])
def test_symmetric_logits_mean_exactly_zero(space):
    half = torch.randn(7, 31, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([half, torch.zeros(7, 1), half.flip(-1)], -1)
    assert torch.equal(TwoHot(63, space=space).mean(logits), torch.zeros(7))


def test_a_target_that_is_not_a_number_shows_in_the_loss():
    assert TwoHot().loss(torch.zeros(1, 255), torch.tensor([float("nan")])).isnan().all()


def test_bins_must_have_a_middle():
    with pytest.raises(ValueError, match="odd"):
        TwoHot(254)
