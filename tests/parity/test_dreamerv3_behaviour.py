"""DreamerV3's two-hot scalars, returns, losses, heads and optimizer against vectors of the official code."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from oneiro.nets.twohot import TwoHot, symexp, symlog
from oneiro.returns import PercentileScale, lambda_return
from oneiro.training.laprop import LaProp

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dreamerv3_behaviour.json").read_text())
TOLERANCE = 2e-6  # relative: the vectors hold 7 digits of float32


def close(a: Tensor, b: object, rtol: float = TOLERANCE, atol: float = 2e-6) -> None:
    torch.testing.assert_close(a.detach(), torch.as_tensor(b, dtype=a.dtype), rtol=rtol, atol=atol)


def test_symlog():
    vector = VECTORS["symlog"]
    x = torch.tensor(vector["x"])
    close(symlog(x), vector["symlog"])
    close(symexp(x / 100), vector["symexp_of_x_div_100"])


def test_twohot():
    vector, head = VECTORS["twohot_symexp"], TwoHot(255)
    i = torch.arange(255.0)
    logits = torch.stack([2 * torch.sin(0.1 * i), 0 * i, -2e-4 * (i - 127) ** 2])
    for name, part in (("first3", slice(3)), ("124_130", slice(124, 131)), ("last3", slice(-3, None))):
        close(head.bins[part], vector[f"bins_{name}"])
    close(head.mean(logits[:2]), vector["pred"][:2], 1e-5)
    assert head.mean(logits)[2] == 0  # symmetric
    target = torch.tensor(vector["targets"])
    close(head.loss(logits[:, None].expand(3, 11, 255), target.expand(3, 11)), vector["loss"])


def wave(n: int, step: float, shift: float, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    return (scale * torch.sin(step * torch.arange(1.0, n + 1) + shift)).reshape(shape)


def test_lambda_return():
    vector = VECTORS["lambda_return"]
    found = lambda_return(
        torch.tensor(vector["rew"]),
        1 - torch.tensor(vector["term"]).float(),
        torch.tensor(vector["boot"]),
        discount=1 - 1 / 333,
        lam=0.95,
        is_last=torch.tensor(vector["last"]),
    )
    close(found, vector["out"])


def test_percentile_scale():
    scale = PercentileScale()
    for k, (low, high, _, size) in enumerate(VECTORS["perc_normalize"]["rows"]):
        scale.update(wave(20, 0.9, 0.1 * k, (20,), 100.0 * (k + 1)))
        close(torch.stack([scale.low, scale.high, scale()]), [low, high, size])


def test_laprop_with_clipping_and_warm_up():
    a, b = nn.Parameter(wave(6, 1, 0, (2, 3), 0.5)), nn.Parameter(torch.zeros(3))
    config = LaProp(lr=0.1, warmup=2)
    optimizer = config.build([a, b])
    for k, expected in enumerate(VECTORS["laprop_agc"]["params"]):
        a.grad, b.grad = wave(6, 0.7, 0.3 * k, (2, 3), 2 / (k + 1)), wave(3, 1.1, 0.2 * k, (3,), 0.01)
        config.set_rate(optimizer, k)
        optimizer.step()
        # The code corrects its bias with 1 - 0.999^t in float32, which is off by up to 6e-5.
        close(a, expected["a"], atol=3e-6)
        close(b, expected["b"], atol=3e-6)
