"""Prepared weights: made once, and again after every way in which parameters are written."""

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from oneiro.nets.prepared import Prepared, without_gradient
from oneiro.training.adamw import AdamW
from oneiro.training.optim import Adam


def test_made_once_until_a_parameter_is_written():
    layer = nn.Linear(2, 2)
    made = []

    def double() -> torch.Tensor:
        made.append(None)
        return layer.weight.detach() * 2

    prepared = Prepared(double, layer.parameters())
    for _ in range(3):
        assert torch.equal(prepared.get(), layer.weight * 2)
    assert len(made) == 1

    def by_optimizer() -> None:
        layer(torch.ones(1, 2)).sum().backward()
        Adam(lr=0.1).build(layer.parameters()).step()

    def by_vector() -> None:
        vector_to_parameters(parameters_to_vector(layer.parameters()).detach() + 1, layer.parameters())

    def by_loading() -> None:
        layer.load_state_dict({name: x + 1 for name, x in layer.state_dict().items()})

    for count, write in enumerate((by_optimizer, by_vector, by_loading, by_vector), 2):
        write()
        assert torch.equal(prepared.get(), layer.weight * 2), write
        assert len(made) == count


def test_a_dream_of_diamond_sees_its_optimizer() -> None:
    layer = nn.Conv2d(1, 1, 3)
    prepared = Prepared(lambda: without_gradient(layer, torch.bfloat16), layer.parameters())
    made = prepared.get()
    assert made.weight.dtype == made.bias.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert made.weight.is_contiguous(memory_format=torch.channels_last)
    assert not made.weight.requires_grad
    assert layer.weight.requires_grad
    assert layer.weight.dtype == torch.float32
    optimizer = AdamW(lr=0.1, warmup=0).build(layer.parameters())
    layer(torch.ones(1, 1, 3, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(prepared.get().weight, layer.weight.bfloat16())
    assert prepared.get() is not made
