"""Oracle worlds keep the contract and the rules of their games, pixel by pixel."""

from typing import Any

import gymnasium
import pytest
import torch
from torch import Tensor

from oneiro import Agent, Behaviour, Carry, Decision, TimeStep, WorldModel, tree
from oneiro.behaviours.linear import LinearConfig
from oneiro.dreaming import dream_score
from oneiro.envs.toy import Catch, Dodge, ToyConfig
from oneiro.spaces import to_uint8
from oneiro.testing import (
    CatchOracle,
    CounterEnv,
    DodgeOracle,
    check_behaviour,
    check_world,
    counter_length,
    played_rows,
    require,
)
from oneiro.types import State

ORACLES = [(CatchOracle, "catch"), (DodgeOracle, "dodge")]


@pytest.mark.parametrize(("cls", "toy"), ORACLES)
def test_oracles_conform(cls: type, toy: str) -> None:
    checks = check_world(cls(), played_rows(ToyConfig(id=toy).env))  # type: ignore[arg-type]
    require(checks)
    assert {c.outcome for c in checks if c.name == "an is_first row erases history"} == {"passed"}


def row(obs: dict[str, Any], is_first: bool) -> TimeStep:
    flag = torch.tensor([is_first])
    image = torch.from_numpy(obs["image"])[None]
    return TimeStep(
        obs={"image": image},
        action=None,
        reward=None,
        is_first=flag,
        terminated=~flag & False,
        mask=flag | True,
    )


def play(env: gymnasium.Env, world: WorldModel, seed: int) -> Any:
    """(oracle's prediction, picture after it, what the game did) step by step, under random actions."""
    obs, _ = env.reset(seed=seed)
    state = world.observe(world.start(1), row(obs, True))
    env.action_space.seed(seed)
    while True:
        native = env.action_space.sample()
        action = world.spaces.action.from_env(native[None] if hasattr(native, "shape") else [native]).reshape(
            1, -1
        )
        prediction = world.step(tree.clone(state), action, 0.0)
        obs, reward, terminated, truncated, _ = env.step(native)
        drawn = to_uint8(world.decode(prediction.state)["image"])[0]
        yield prediction, drawn, torch.tensor(obs["image"]), float(reward), terminated
        if terminated or truncated:
            return
        state = world.observe(prediction.state, row(obs, False))


@pytest.mark.parametrize("seed", range(5))
def test_catch_is_predicted_exactly(seed: int) -> None:
    rows = list(play(Catch(), CatchOracle(), seed))
    assert len(rows) == 14
    for prediction, drawn, seen, reward, terminated in rows:
        assert torch.equal(drawn, seen)
        assert prediction.reward.item() == reward
        assert prediction.cont.item() == float(not terminated)


@pytest.mark.parametrize("seed", range(5))
def test_dodge_is_predicted_but_for_the_aim(seed: int) -> None:
    thrown = 0
    for steps, (prediction, drawn, seen, reward, terminated) in enumerate(play(Dodge(), DodgeOracle(), seed)):
        assert prediction.reward.item() == reward
        assert prediction.cont.item() == float(not terminated)
        if steps % Dodge.EVERY == 0:  # the new ball may be one column off
            thrown += 1
            top = slice(7 * 4, 8 * 4)
            assert drawn[0, top].any()
            assert seen[0, top].any()
            drawn[0, top] = seen[0, top] = 0
        assert torch.equal(drawn, seen)
    assert thrown > 0


class Shy(Behaviour):
    """Steps aside from the lowest ball that could hit, else towards the middle."""

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        feature = world.feature(state)
        offset, has_ball = feature[:, 1:17] * 16, feature[:, 17:]
        danger = has_ball * (offset.abs() <= 3) * torch.arange(1, 17)
        worst = offset.gather(1, danger.argmax(1, keepdim=True))[:, 0]
        home = torch.sign(0.5 - feature[:, 0])
        aside = torch.where(worst == 0, home, -torch.sign(worst))
        return Decision(torch.where(danger.any(1), aside, 0.0)[:, None])


def catcher(world: CatchOracle) -> Behaviour:
    behaviour = LinearConfig().build(world.spaces, world.feature_dim)
    weight = torch.zeros(4, 3)
    weight[3] = torch.tensor([-1.0, 0.0, 1.0])  # towards the ball
    with torch.no_grad():
        behaviour.layers[0].weight.copy_(weight)  # type: ignore[union-attr]
    return behaviour


def real_score(env: gymnasium.Env, world: WorldModel, behaviour: Behaviour, seed: int) -> float:
    agent = Agent(world, behaviour).eval()
    obs, _ = env.reset(seed=seed)
    carry, score, is_first = agent.start(1), 0.0, True
    while True:
        action, carry = agent.act(agent.observe(carry, row(obs, is_first)))
        obs, reward, terminated, truncated, _ = env.step(world.spaces.action.to_env(action)[0])
        score, is_first = score + float(reward), False
        if terminated or truncated:
            return score


def dreamed_score(
    env: gymnasium.Env, world: WorldModel, behaviour: Behaviour, seed: int, horizon: int
) -> float:
    obs, _ = env.reset(seed=seed)
    state = world.observe(world.start(1), row(obs, True))
    score, _ = dream_score(world, behaviour, Carry(state=state), horizon)
    return score.item()


def test_catch_scores_the_same_in_the_dream_and_in_the_game() -> None:
    world = CatchOracle()
    good, idle = catcher(world), LinearConfig().build(world.spaces, world.feature_dim)
    for seed in range(10):
        assert real_score(Catch(), world, good, seed) == dreamed_score(Catch(), world, good, seed, 20) == 1
        assert real_score(Catch(), world, idle, seed) == dreamed_score(Catch(), world, idle, seed, 20)


def test_dodging_pays_in_the_dream_and_in_the_game() -> None:
    world, shy = DodgeOracle(), Shy()
    idle = LinearConfig().build(world.spaces, world.feature_dim)
    real = [real_score(Dodge(), world, shy, seed) for seed in range(20)]
    lazy = [real_score(Dodge(), world, idle, seed) for seed in range(20)]
    dreamed = [dreamed_score(Dodge(), world, shy, seed, 60) for seed in range(20)]
    assert sum(lazy) / 20 < 12
    assert sum(real) / 20 > 2 * sum(lazy) / 20
    assert sum(dreamed) / 20 == pytest.approx(sum(real) / 20, rel=0.2)


def test_behaviours_are_checked_in_an_oracle() -> None:
    rows = played_rows(ToyConfig(id="catch").env)
    require(check_behaviour(catcher(CatchOracle()), CatchOracle(), rows))


def test_the_counter_counts() -> None:
    env = CounterEnv()
    obs, _ = env.reset(seed=3)
    assert obs["vector"].tolist() == [0, 3, 0, 0]
    steps = 0
    while True:
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        steps += 1
        assert (obs["vector"][0], reward) == (steps, steps)
        if terminated or truncated:
            break
    assert (steps, truncated) == (counter_length(3), True)


def test_played_rows_are_arrival_rows() -> None:
    batch = played_rows(CounterEnv)(3, 12, 1)
    assert batch.is_first[:, 0].all()
    assert batch.is_first[:, 1:].any()
    steps = batch.obs["vector"][..., 0]
    assert torch.equal(steps == 0, batch.is_first)
    assert torch.equal(batch.reward, steps)  # type: ignore[arg-type]
    assert torch.equal(batch.obs["vector"][..., 3:], batch.action)  # type: ignore[arg-type]
    assert batch.terminated.any()
