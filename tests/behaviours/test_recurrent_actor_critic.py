"""DIAMOND's behaviour: one descent by hand, where its dreams begin, and what it learns in an exact world."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.agent import Agent
from oneiro.behaviours.recurrent_actor_critic import RecurrentActorCritic, RecurrentActorCriticConfig
from oneiro.dreaming import dream_score
from oneiro.recipes.diamond import diamond_atari
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import random_rows
from oneiro.training.fit import Fit, Fitter, Group
from oneiro.training.guard import Guard
from oneiro.training.optim import Adam
from oneiro.training.run import build_agent
from oneiro.types import Carry, Losses, Obs, Prediction, State, TimeStep
from oneiro.world import WorldModel


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


class Corridor(WorldModel):
    """Five cells, the player in the middle. At one end is 1, at the other -1, and both end the episode.

    A picture shows the player; which end is good is shown before the first step only. Everything is exact.
    """

    parts = ()

    def __init__(self) -> None:
        super().__init__()
        self.spaces, self.feature_dim = Spaces({"image": (2, 2, 5)}, ActionCodec(2)), 1
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # where the world is

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        return Losses({})

    def start(self, n: int) -> State:
        return {"player": torch.full((n,), 2), "good": torch.zeros(n, dtype=torch.long), "t": torch.zeros(n)}

    def observe(self, state: State, row: TimeStep) -> State:
        image = row.obs["image"]
        return {"player": image[:, 0, 0].argmax(-1), "good": image[:, 1, 0].argmax(-1), "t": 0 * state["t"]}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        player = (state["player"] + 2 * action.argmax(-1) - 1).clamp(0, 4)
        ends = (player == 0) | (player == 4)
        reward = torch.where(player == state["good"], 1.0, -1.0) * ends
        return Prediction({**state, "player": player, "t": state["t"] + 1}, reward, (~ends).float())

    def feature(self, state: State) -> Tensor:
        return state["player"][..., None] / 4

    def decode(self, state: State) -> Obs:
        cells = nn.functional.one_hot(torch.stack([state["player"], state["good"]], -1), 5).float()
        cells[..., 1, :] *= (state["t"] == 0)[..., None]
        return {"image": cells[..., None, :].repeat_interleave(2, -2)}


def corridors(n: int) -> TimeStep:
    """First rows [n, 1]: the good end is left in one half, right in the other."""
    good = torch.arange(n) % 2 * 4
    image = nn.functional.one_hot(torch.stack([torch.full((n,), 2), good], -1), 5)
    yes = torch.ones(n, 1, dtype=torch.bool)
    return TimeStep(
        obs={"image": (255 * image[:, None, :, None]).repeat_interleave(2, -2).to(torch.uint8)},
        action=torch.zeros(n, 1, 2),
        reward=torch.zeros(n, 1),
        is_first=yes,
        terminated=~yes,
        mask=yes,
    )


def test_it_learns_to_walk_to_the_good_end(tmp_path: Path) -> None:
    """It must remember what the first picture showed, and credit a first step that has no reward of its own.

    A random policy scores 0, a perfect one 1, which is worth its discount where two steps are left.
    """
    torch.manual_seed(0)
    world, rows = Corridor(), corridors(64)
    config = RecurrentActorCriticConfig(
        channels=(8,), hidden_dim=16, burn_in=0, horizon=6, discount=0.8, compute_dtype="float32"
    )
    behaviour = config.build(world.spaces, world.feature_dim)
    group = Group(address=("behaviour",), optimizer=Adam(lr=1e-2, clip_norm=100.0))
    fit = Fitter(Fit(groups=(group,)), Agent(world, behaviour), Guard(tmp_path))
    begun = world.observe(world.start(64), rows.at(0))

    def score() -> float:
        carry = Carry(state=tree.clone(begun), memory=behaviour.memory(64))
        return float(dream_score(world, behaviour, carry, 30)[0].mean())

    assert abs(score()) < 0.5
    for _ in range(80):
        fit.apply(rows)
    assert score() > 0.9
    with torch.no_grad():
        worth = behaviour.value(world, begun, behaviour.memory(64))
    assert worth.mean() == pytest.approx(0.8, abs=0.1)
