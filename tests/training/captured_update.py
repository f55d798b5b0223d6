"""Run by test_capture.py in a process of its own: the tests' checks of shapes cannot be traced.

Prints, for each recipe, the largest difference of weights and of metrics between two updates as they are and traced.
"""

import copy
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch

from oneiro import runtime
from oneiro.agent import Agent
from oneiro.bench.dreamer import random_rows
from oneiro.recipes.dreamerv3 import dreamerv3_gym, dreamerv3_minigrid
from oneiro.recipes.dreamerv3_2023 import dreamerv3_2023_gym
from oneiro.training.fit import Fit, Fitter
from oneiro.training.guard import Guard

RECIPES = {f.__name__: f for f in (dreamerv3_gym, dreamerv3_minigrid, dreamerv3_2023_gym)}


def updated(agent: Agent, fit: Fit) -> tuple[list[torch.Tensor], dict[str, float]]:
    """Weights and metrics after two updates."""
    fitter = Fitter(fit, agent, Guard(Path(tempfile.gettempdir())))
    metrics = {}
    for seed in range(2):
        torch.manual_seed(seed)
        losses = fitter.apply(random_rows(agent, 2, 3))
        metrics = {name: float(x) for name, x in losses.metrics.items()}
    parts = agent.world, agent.behaviour
    return [x.detach() for part in parts for x in (*part.parameters(), *part.buffers())], metrics


def apart(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """The largest difference."""
    return max(float((a - b).abs().max()) for a, b in zip(before, after, strict=False) if a.numel())


def compared(name: str) -> dict:
    """How far apart the two are, and which functions were traced."""
    recipe = RECIPES[name]("smoke")
    spaces = recipe.env.spaces()
    torch.manual_seed(0)  # the same weights in every run: the last bit of some is where the two may part
    world = recipe.world.build(spaces)
    agent = Agent(world, recipe.behaviour.build(spaces, world.feature_dim)).train()
    before = [x.detach().clone() for x in agent.world.parameters()]
    fit = next(stage.fit for stage in vars(recipe.schedule).values() if hasattr(stage, "fit"))
    twin = copy.deepcopy(agent)
    weights, metrics = updated(agent, fit)
    traced: list[str] = []

    def captured(function):
        traced.append(function.__qualname__)
        return torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=False)

    assert not runtime.captures()  # the update above was a plain one
    with (
        mock.patch.object(runtime, "captures", return_value=True),
        mock.patch.object(runtime, "captured", captured),
    ):
        again, others = updated(twin, fit)
    return {
        "traced": traced,
        "moved": apart(before, weights),
        "weights": apart(weights, again),
        "metrics": max(abs(metrics[k] - others[k]) / max(1, abs(metrics[k])) for k in metrics),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: compared(name) for name in sys.argv[1:]}))
