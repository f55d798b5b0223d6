"""Schedules are the published formulas, clipping is exact, the fused kernel is right in every memory layout."""

import math

import pytest
import torch
from torch import nn

from oneiro.training.optim import Adam, clip_


def test_world_models_decay():
    config = Adam(lr=1e-3, lr_end=1e-5, decay="exponential", decay_rate=0.99999)
    for step in (0, 1, 1000, 24_400):
        assert config.schedule(step) == pytest.approx((1e-3 - 1e-5) * 0.99999**step + 1e-5, rel=1e-12)


def test_other_decays():
    linear = Adam(lr=1.0, lr_end=0.2, decay="linear", decay_steps=10)
    assert [linear.schedule(k) for k in (0, 5, 10, 99)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    cosine = Adam(lr=1.0, decay="cosine", decay_steps=4)
    assert [cosine.schedule(k) for k in (0, 1, 2, 4, 9)] == pytest.approx(
        [1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0.0, 0.0], abs=1e-12
    )
    assert Adam(lr=0.5).schedule(10**9) == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, "lr = 0.0"),
        ({"lr": math.nan}, "lr = nan"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"lr_end": 1.0, "decay": "exponential"}, "lr_end = 1.0"),
        ({"decay": "step"}, "'step'"),
        ({"decay": "exponential", "decay_rate": 1.5}, "decay_rate = 1.5"),
        ({"decay": "cosine"}, "needs decay_steps"),
        ({"lr_end": 1e-5}, "lr_end has no effect"),
        ({"decay_rate": 0.9}, "decay_rate has no effect"),
        ({"decay_steps": 5}, "decay_steps has no effect"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"clip_value": -1.0}, "clip_value = -1.0"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Adam(**fields)


def test_clipping():
    gradients = [torch.tensor([3.0, -0.5]), torch.tensor([[-4.0]])]
    norm = clip_(gradients, value=1.0)
    assert norm.item() == pytest.approx(math.sqrt(9 + 0.25 + 16))
    assert [g.tolist() for g in gradients] == [[1.0, -0.5], [[-1.0]]]
    clip_(gradients, norm=10.0)
    assert [g.tolist() for g in gradients] == [[1.0, -0.5], [[-1.0]]]
    clip_(gradients, norm=0.75)
    assert torch.cat([g.flatten() for g in gradients]).norm().item() == pytest.approx(0.75, rel=1e-5)
    assert clip_([]).item() == 0.0
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    before = Adam(clip_value=2.0, clip_norm=1.0).clip_([parameter, nn.Parameter(torch.zeros(1))])
    assert before.item() == 5.0
    assert parameter.grad.tolist() == pytest.approx([0.5**0.5, 0.5**0.5], rel=1e-5)


def test_set_rate_moves_all_groups():
    optimizer = Adam(lr=1.0, decay="linear", decay_steps=2).build([nn.Parameter(torch.zeros(1))])
    assert Adam(lr=1.0, decay="linear", decay_steps=2).set_rate(optimizer, 1) == 0.5
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]


def plain_adam(weight, gradients, lr=0.1, b1=0.9, b2=0.999, eps=1e-8):
    weight, m, v = weight.double(), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g.double(), b2 * v + (1 - b2) * g.double() ** 2
        weight = weight - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
    return weight


LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("of_weight", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_every_memory_layout_gives_adam(of_weight, of_gradient):
    """Without alignment torch's fused kernel on the CPU pairs gradients with the wrong weights, silently."""
    torch.manual_seed(0)
    start, gradients = torch.randn(8, 3, 4, 4), [torch.randn(8, 3, 4, 4) for _ in range(4)]
    parameter = nn.Parameter(start.clone().to(memory_format=of_weight))
    optimizer = Adam(lr=0.1).build([parameter])
    assert optimizer.param_groups[0]["fused"]
    for k, gradient in enumerate(gradients):
        if k == 2:  # a state of another layout, as torch's own load_state_dict leaves it
            optimizer.state[parameter]["exp_avg"] = optimizer.state[parameter]["exp_avg"].contiguous()
        parameter.grad = gradient.to(memory_format=of_gradient)
        optimizer.step()
    torch.testing.assert_close(
        parameter.detach().double(), plain_adam(start, gradients), rtol=1e-5, atol=1e-6
    )


def test_eps_of_tensorflow_is_another():
    """TF: lr_t * m / (sqrt(v) + eps); the docstring's conversion makes torch's form equal to it."""
    g, lr, b1, b2, eps = 1e-7, 0.1, 0.9, 0.999, 1e-8
    m, v = (1 - b1) * g, (1 - b2) * g * g
    tf = lr * math.sqrt(1 - b2) / (1 - b1) * m / (math.sqrt(v) + eps)
    ours = Adam(lr=lr, eps=eps / math.sqrt(1 - b2))
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.full((1,), g, dtype=torch.float64)
    ours.build([parameter]).step()
    assert -parameter.item() == pytest.approx(tf, rel=1e-9)
