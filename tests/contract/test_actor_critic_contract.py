"""The actor-critic conforms, and in one group with a world only its recorded rows teach that world."""

from dataclasses import replace

import pytest
import torch
from small_world import BOX, DISCRETE, SmallConfig

from oneiro import Agent
from oneiro.behaviours.actor_critic import ActorCriticConfig
from oneiro.spaces import Spaces
from oneiro.testing import check_behaviour, require
from oneiro.testing.rows import random_rows
from oneiro.training.fit import Fit, Fitter, Group
from oneiro.training.guard import Guard
from oneiro.training.optim import Adam

TINY = ActorCriticConfig(units=16, layers=1, horizon=3, bins=31, compute_dtype="float32")


@pytest.mark.parametrize("spaces", [BOX, DISCRETE], ids=["box", "discrete"])
def test_it_conforms(spaces: Spaces) -> None:
    world = SmallConfig().build(spaces)
    checks = check_behaviour(TINY.build(spaces, world.feature_dim), world)
    require(checks)
    assert not [check for check in checks if check.outcome == "skipped"]


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
@pytest.mark.parametrize("replay_weight", [0.0, 0.3])
def test_in_one_group_only_the_replay_value_loss_reaches_the_world(tmp_path, gradient, replay_weight) -> None:
    optimizer, weights = Adam(lr=1e-2), []
    joint = (Group(address=("world.memory", "behaviour"), optimizer=optimizer),)
    apart = tuple(
        Group(address=(a,), optimizer=optimizer)
        for a in ("world.memory", "behaviour.actor", "behaviour.critic")
    )
    for groups in (joint, apart):
        torch.manual_seed(0)
        world = SmallConfig().build(BOX)
        config = replace(TINY, replay_weight=replay_weight, gradient=gradient, critic_scale=1.0)
        agent = Agent(world, config.build(BOX, world.feature_dim)).train()
        batch = replace(random_rows(BOX)(4, 6, 0), memo={"mu": torch.randn(4, 6, 4)})
        fitter = Fitter(Fit(groups=groups), agent, Guard(tmp_path))
        before = {name: p.detach().clone() for name, p in agent.named_parameters()}
        for _ in range(2):
            losses = fitter.apply(batch)
        moved = {name for name, p in agent.named_parameters() if not torch.equal(p, before[name])}
        assert {n for n, _ in agent.named_parameters() if "vision" not in n} == moved  # the slow critic too
        assert set(losses.by_part) == {"world.memory", "behaviour.actor", "behaviour.critic"}
        weights.append(torch.cat([p.detach().flatten() for p in world.memory.parameters()]))
    assert torch.equal(*weights) == (replay_weight == 0)
