"""DIAMOND's behaviour: one descent by hand, and where its dreams begin."""

import math
from dataclasses import replace

import pytest
import torch

from oneiro import tree
from oneiro.agent import Agent
from oneiro.behaviours.recurrent_actor_critic import RecurrentActorCritic, RecurrentActorCriticConfig
from oneiro.recipes.diamond import diamond_atari
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import random_rows
from oneiro.training.run import build_agent
from oneiro.types import TimeStep


def test_a_descent_by_hand() -> None:
    """The first action, of probability 3/4, was better than the critic thought; the second, of 1/2, was worse."""
    config = RecurrentActorCriticConfig(channels=(8,), hidden_dim=8, value_scale=0.5, entropy_scale=0.1)
    behaviour = config.build(Spaces({"image": (3, 4, 4)}, ActionCodec(2)), 0)
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]]], requires_grad=True)
    value = torch.tensor([[1.0, 2.0]], requires_grad=True)
    action, alive = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[True, False]])
    losses = behaviour._descend(logits, action, value, torch.tensor([[3.0, 1.0]]), alive)
    policy = -(2 * math.log(0.75) - math.log(0.5)) / 2
    entropy = (-0.75 * math.log(0.75) - 0.25 * math.log(0.25) + math.log(2)) / 2
    metrics = {name: float(x) for name, x in losses.metrics.items()}
    assert metrics == pytest.approx(
        {
            "actor/loss": policy, "critic/loss": 2.5, "actor/entropy": entropy, "dream/return": 2.0,
            "dream/ended": 0.5,
        }
    )  # fmt: skip
    loss = losses.by_part["net"]
    assert float(loss.detach()) == pytest.approx(policy + 0.5 * 2.5 - 0.1 * entropy)
    loss.backward()
    assert value.grad is not None
    assert value.grad.tolist() == [[pytest.approx(-1.0), pytest.approx(0.5)]]  # of the critic's term alone
    assert logits.grad is not None
    # d(-ln pi(a) advantage / 2) = (pi - onehot) advantage / 2; the entropy is flat where both are as likely
    assert logits.grad[0, 1].tolist() == [pytest.approx(-0.25), pytest.approx(0.25)]
    assert logits.grad[0, 0, 0] < 0, "the better action becomes likelier"


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    recipe = diamond_atari("smoke")
    recipe = replace(recipe, behaviour=replace(recipe.behaviour, compute_dtype="float32"))
    return build_agent(recipe, recipe.env.spaces())


def watched(agent: Agent, batch: TimeStep, row: int, times: range) -> tuple[torch.Tensor, torch.Tensor]:
    """h and c after these frames alone, from nothing."""
    h = c = torch.zeros(1, agent.behaviour.memory(1)["h"].shape[1])
    for t in times:
        _, _, h, c = agent.behaviour.net(batch.obs["image"][row : row + 1, t] / 255, h, c)  # type: ignore
    return h, c


@torch.no_grad()
def test_where_dreams_begin(agent: Agent) -> None:
    """Three frames before the last are watched; what lies before an episode's first row, or is padding, is not."""
    behaviour = agent.behaviour
    assert isinstance(behaviour, RecurrentActorCritic)
    assert behaviour.config.burn_in == 3
    batch = random_rows(agent.world.spaces)(5, 6, 0)
    first, mask = batch.is_first.clone(), batch.mask.clone()
    first[1, 3] = True
    mask[2, :4], first[2, 4] = False, True
    first[3, 5] = True
    mask[4, :3], first[4, 2] = False, True  # what is masked says nothing
    batch = replace(batch, is_first=first, mask=mask)
    state, h, c = behaviour._begin(agent.world, batch)
    seen = (range(2, 5), range(3, 5), range(4, 5), range(0), range(3, 5))
    for row, times in enumerate(seen):
        expected = watched(agent, batch, row, times)
        torch.testing.assert_close((h[row : row + 1], c[row : row + 1]), expected)
        known = state["known"][row].tolist()
        assert known == [t in {*times, 5} for t in (2, 3, 4, 5)], row
        frames = batch.obs["image"][row, 2:]
        assert torch.equal(state["frames"][row][state["known"][row]], frames[state["known"][row]])
    assert not tree.leaves({"h": h})[0][3].any()
