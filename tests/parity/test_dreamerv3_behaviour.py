"""DreamerV3's two-hot scalars, returns, losses, heads and optimizer against vectors of the official code."""

import json
from pathlib import Path

import torch
from torch import Tensor

from oneiro.nets.twohot import TwoHot, symexp, symlog

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
