"""Trees, modules, optimizers and random numbers survive the way through tensors and JSON."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from oneiro.errors import OneiroError
from oneiro.training.optim import Adam
from oneiro.training.state import (
    flatten,
    load_module,
    load_optimizer,
    module_tensors,
    optimizer_state,
    random_state,
    set_random_state,
    unflatten,
)


def through_json(tree):
    tensors, rest = flatten(tree)
    return unflatten(tensors, json.loads(json.dumps(rest, allow_nan=False)))


def test_trees():
    tree = {"a": [1, (2.5, None)], "world/kl": torch.ones(2), 3: {"$x": "y"}, "n": np.float32(0.5), "e": {}}
    got = through_json(tree)
    assert got["a"] == [1, (2.5, None)]
    assert torch.equal(got["world/kl"], torch.ones(2))
    assert got[3] == {"$x": "y"}
    assert got["n"] == 0.5
    assert got["e"] == {}


def test_what_has_no_form_is_refused():
    with pytest.raises(TypeError, match="no JSON form"):
        flatten({"f": print})
    with pytest.raises(ValueError, match=r"two tensors would be called 'a\.b'"):
        flatten({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}})


def model(width=8):
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(width * 36, 2))


def fit(net, optimizer, steps, first=0):
    for step in range(first, first + steps):
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        lambda p: Adam(lr=1e-2).build(p),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
        lambda p: torch.optim.RMSprop(p, lr=1e-2),
    ],
)
def test_a_resumed_optimizer_goes_on_exactly(build, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    straight = model().to(memory_format=layout)
    optimizer = build(straight.parameters())
    fit(straight, optimizer, 6)

    first = model().to(memory_format=layout)
    before = build(first.parameters())
    fit(first, before, 3)
    saved = through_json({"weights": module_tensors(first), "optimizer": optimizer_state(before)})
    saved = {k: {n: t.contiguous() for n, t in v.items()} if k == "weights" else v for k, v in saved.items()}

    resumed = model(8).to(memory_format=layout)
    after = build(resumed.parameters())
    load_module(resumed, saved["weights"])
    load_optimizer(after, saved["optimizer"])
    fit(resumed, after, 3, first=3)
    for (name, a), b in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_mismatched_weights_are_listed():
    tensors = module_tensors(model(8))
    tensors["extra.weight"] = torch.zeros(2, 5)
    del tensors["2.bias"]
    with pytest.raises(OneiroError) as error:
        load_module(model(16), tensors, "runs/x")
    text = str(error.value)
    assert "runs/x" in text
    assert "missing: 2.bias 2" in text
    assert "unexpected: extra.weight 2x5" in text
    assert "different: 0.weight is 8x3x3x3, expected 16x3x3x3" in text
    assert "recipe.json" in text


def test_mismatched_optimizers_are_refused():
    small, large = model(8), model(16)
    optimizer = Adam().build(small.parameters())
    fit(small, optimizer, 1)
    with pytest.raises(OneiroError, match="exp_avg of tensor 0 is 8x3x3x3, its parameter 16x3x3x3"):
        load_optimizer(Adam().build(large.parameters()), optimizer_state(optimizer))
    with pytest.raises(OneiroError, match="moves 4 tensors in 1 groups, this one 1 in 1"):
        load_optimizer(Adam().build([nn.Parameter(torch.ones(1))]), optimizer_state(optimizer))


def test_random_numbers_go_on():
    def draw():
        return [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()]

    draw()
    saved = through_json(random_state())
    expected = draw()
    assert draw() != expected
    set_random_state(saved)
    assert draw() == expected
