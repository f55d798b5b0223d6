"""The lever `capture`: an update can be traced as a whole, and then does what it does otherwise.

CUDA graphs need a GPU. What they need of the code, one graph without a break in it, is tested here by the same tracer;
and that no operation of an update hands a number back to Python, for which a GPU would have to be waited for.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from oneiro import runtime
from oneiro.agent import Agent
from oneiro.bench.dreamer import random_rows
from oneiro.recipes.dreamerv3 import dreamerv3_minigrid
from oneiro.recipes.dreamerv3_2023 import dreamerv3_2023_gym
from oneiro.runtime import RuntimeConfig
from oneiro.training.fit import Fitter
from oneiro.training.guard import Guard

SCRIPT = Path(__file__).with_name("captured_update.py")
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"}
"""Operations whose result, or its size, Python has to know."""


class Waits(TorchDispatchMode):
    """Notes every such operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in WAITS or any(x is not None and x.dtype == torch.bool for x in masks):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_updates_are_traced_without_a_break():
    names = ["dreamerv3_gym", "dreamerv3_minigrid", "dreamerv3_2023_gym"]
    done = subprocess.run([sys.executable, SCRIPT, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert list(found) == names
    world = "DreamerV3.losses"
    assert [apart["traced"] for apart in found.values()] == [[world, "ActorCritic.losses"]] * 2 + [[world]]
    for apart in found.values():
        assert apart["moved"] > 1e-6
        assert apart["weights"] < 1e-3 * apart["moved"]
        assert apart["metrics"] < 1e-4


def test_without_a_gpu_the_lever_says_why_it_is_off(monkeypatch):
    monkeypatch.setattr(runtime, "_report", None)
    with pytest.warns(RuntimeWarning, match="no CUDA graphs on cpu: updates run as they are"):
        report = runtime.start(RuntimeConfig(device="cpu", capture=True))
    assert report.levers["capture"] == "off: there are no CUDA graphs on cpu"
    assert runtime.captured(len) is len


@pytest.mark.parametrize("recipe", [dreamerv3_minigrid, dreamerv3_2023_gym])
def test_an_update_waits_for_nothing(recipe, tmp_path):
    made = recipe("smoke")
    spaces = made.env.spaces()
    world = made.world.build(spaces)
    agent = Agent(world, made.behaviour.build(spaces, world.feature_dim)).train()
    fit = next(stage.fit for stage in vars(made.schedule).values() if hasattr(stage, "fit"))
    fitter, rows = Fitter(fit, agent, Guard(tmp_path)), random_rows(agent, 2, 3)
    fitter.apply(rows)
    with Waits() as waits:
        fitter.apply(rows)
    assert waits.count > 1000
    assert (
        waits.found == []
    )  # the check for NaN reads its numbers all at once, and is not an operation of this kind


def test_what_waits_is_noticed():
    x = torch.ones(3)
    with Waits() as waits:
        float(x.sum())
        x[x > 0]
    assert waits.found == ["_local_scalar_dense", "index"]
