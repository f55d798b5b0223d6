"""A batch in pieces gives the update of the whole batch."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import random_rows
from oneiro.training.fit import Fit, Fitter, Group
from oneiro.training.guard import Guard
from oneiro.training.optim import Adam
from oneiro.types import Losses

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from small_world import SmallConfig, SmallWorld

SPACES = Spaces({"image": (3, 8, 8)}, ActionCodec(3))


class Still(SmallWorld):
    """The auto-encoder without noise, so that its loss is a function of the batch."""

    def losses(self, batch, parts, before=None) -> Losses:
        image = batch.obs["image"].float() / 255
        drawn = self.vision["up"](self.encode(batch.obs["image"])).sigmoid()
        loss = (drawn - image.flatten(-3)).square().mean()
        return Losses({"vision": loss}, {"vision/loss": loss.detach()})


def test_the_update_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    world = Still(SmallConfig(), SPACES)
    fit = Fit(groups=(Group(address=("world.vision",), optimizer=Adam(lr=1e-2)),))
    batch = random_rows(SPACES)(6, 4, 0)
    found = []
    for pieces in (1, 3):
        agent = Agent(copy.deepcopy(world), HeldRandom().build(SPACES)).train()
        fitter = Fitter(replace(fit, pieces=pieces), agent, Guard(tmp_path))
        losses = [float(fitter.apply(batch).metrics["vision/loss"]) for _ in range(3)]
        found.append((losses, torch.cat([p.detach().flatten() for p in agent.world.vision.parameters()])))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    assert found[0][0][-1] < found[0][0][0]
    with pytest.raises(OneiroError, match="6 cannot be cut into 4"):
        Fitter(replace(fit, pieces=4), agent, Guard(tmp_path)).apply(batch)
    with pytest.raises(ValueError, match="pieces must be at least 1"):
        replace(fit, pieces=0)
