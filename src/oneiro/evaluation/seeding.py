"""Evaluation leaves no trace: networks in eval mode, random numbers of its own, no gradient."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from oneiro.types import State


@contextmanager
def evaluating(module: nn.Module, *, seed: int) -> Iterator[None]:
    """Inside, `module` is in eval mode and torch draws from `seed`; afterwards both are as they were.

    Training therefore goes on the same whether or not it was evaluated in between.
    """
    was_training = [part for part in module.modules() if part.training]
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    module.eval()
    try:
        with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.no_grad():
            torch.manual_seed(seed)
            yield
    finally:
        for part in was_training:
            part.training = True


def renumber(state: State) -> State:
    """The same state in which every row draws random numbers of its own (see `WorldModel`)."""
    if "draw" not in state:
        return state
    draw = state["draw"]
    return {**state, "draw": torch.arange(len(draw), device=draw.device)}
