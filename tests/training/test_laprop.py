"""LaProp: the long vectors do what a plain loop does, in every memory layout and across a checkpoint."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from oneiro.cli.options import parse_with_record
from oneiro.training.files import write_safetensors
from oneiro.training.fit import Fit, Group
from oneiro.training.laprop import LaProp
from oneiro.training.optim import Adam
from oneiro.training.state import flatten, load_optimizer, optimizer_state, unflatten

CONFIG = LaProp(lr=0.1, agc=0.3, warmup=0)


@dataclass(frozen=True)
class Nothing:
    """No options of its own."""


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in ((4, 3, 2, 2), (5,), (2, 3))]
    drawn[0] = drawn[0].to(memory_format=torch.channels_last)
    return [nn.Parameter(w) for w in drawn]


def give_gradients(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 3


def plain_loop(parameters: list[nn.Parameter], steps: int) -> list[torch.Tensor]:
    result = []
    for i in range(len(parameters)):
        w, m, v = parameters[i].detach().double(), 0.0, 0.0
        for t in range(1, steps + 1):
            give_gradients(parameters, t)
            g = parameters[i].grad.double()
            g = g / max(1.0, g.norm() / (0.3 * max(1e-3, w.norm())))
            v = 0.999 * v + 0.001 * g**2
            m = 0.9 * m + 0.1 * g / ((v / (1 - 0.999**t)).sqrt() + 1e-20)
            w = w - 0.1 * m / (1 - 0.9**t)
        result.append(w)
    return result


def take_steps(parameters, optimizer, steps) -> None:
    for step in steps:
        give_gradients(parameters, step)
        optimizer.step()


def test_it_is_the_plain_loop():
    parameters = weights()
    expected = plain_loop(parameters, 4)
    take_steps(parameters, CONFIG.build(parameters), range(1, 5))
    for parameter, w in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.double(), w, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(tmp_path):
    parameters = weights()
    optimizer = CONFIG.build(parameters)
    take_steps(parameters, optimizer, range(1, 4))
    tensors, tree = flatten(optimizer_state(optimizer))
    write_safetensors(tmp_path / "optimizer.safetensors", tensors, {})
    tensors = {name: x.clone() for name, x in tensors.items()}
    others = [nn.Parameter(p.detach().clone()) for p in parameters]
    resumed = CONFIG.build(others)
    load_optimizer(resumed, unflatten(tensors, tree))
    take_steps(parameters, optimizer, range(4, 6))
    take_steps(others, resumed, range(4, 6))
    for ours, theirs in zip(parameters, others, strict=True):
        assert torch.equal(ours, theirs)


def test_no_gradient_is_a_gradient_of_zero_and_late_ones_join():
    parameters = weights()
    optimizer = CONFIG.build(parameters)
    start = [p.detach().clone() for p in parameters]
    give_gradients(parameters, 1)
    parameters[2].grad = None
    optimizer.step()
    assert torch.equal(parameters[2], start[2])
    assert not torch.equal(parameters[1], start[1])
    moved = parameters[1].detach().clone()
    give_gradients(parameters, 2)
    parameters[1].grad = None
    optimizer.step()
    assert not torch.equal(parameters[1], moved)  # its momentum goes on
    assert not torch.equal(parameters[2], start[2])


def test_zeros_stay_finite():
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.zeros(3)
    optimizer = CONFIG.build([parameter])
    optimizer.step()
    assert parameter.tolist() == [0, 0, 0]


def test_warm_up():
    config = LaProp(lr=1.0, warmup=4)
    assert [config.schedule(k) for k in (0, 1, 2, 4, 99)] == [0, 0.25, 0.5, 1, 1]
    assert LaProp(lr=1.0, warmup=0).schedule(0) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, "lr = 0.0"),
        ({"eps": 0.0}, "eps"),
        ({"agc": -1.0}, "agc = -1.0"),
        ({"warmup": -1}, "warmup"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        LaProp(**fields)


def test_the_command_line_shows_the_fields_of_the_optimizer_in_use():
    fit = Fit(groups=(Group(address=("world",), optimizer=LaProp()),))
    words = ["--groups.0.optimizer.agc", "0.1", "--groups.0.optimizer.warmup", "7"]
    _, found = parse_with_record(Nothing, words, fit, "oneiro", "text")
    assert found.groups[0].optimizer == LaProp(agc=0.1, warmup=7)
    fit = Fit(groups=(Group(address=("world",), optimizer=Adam(clip_norm=1.0)),))
    _, found = parse_with_record(Nothing, ["--groups.0.optimizer.lr", "0.5"], fit, "oneiro", "text")
    assert found.groups[0].optimizer == Adam(lr=0.5, clip_norm=1.0)


def test_a_step_counts_up_the_version_of_the_weights():
    parameters = weights()
    before = [p._version for p in parameters]
    take_steps(parameters, CONFIG.build(parameters), range(1, 2))
    assert all(p._version > v for p, v in zip(parameters, before, strict=True))
