"""Exact worlds to play in: what they dream is known."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oneiro import noise
from oneiro.agent import Agent
from oneiro.behaviour import Behaviour
from oneiro.envs.toy import ToyConfig
from oneiro.errors import Undecodable
from oneiro.play.limits import Limits
from oneiro.play.played_run import PlayedRun
from oneiro.play.session import Session
from oneiro.play.starts import Wandered
from oneiro.testing import CatchOracle, DodgeOracle
from oneiro.types import Decision, Knob, Obs, Prediction, State
from oneiro.world import Step, WorldModel

STAY, LEFT, RIGHT = (1.0,), (0.0,), (2.0,)


class Chaser(Behaviour):
    """Runs below the ball of `catch`; expects the reward 1; remembers how often it has looked."""

    def memory(self, n: int) -> State:
        return {"looks": torch.zeros(n, dtype=torch.long)}

    def watch(self, world: WorldModel, state: State, memory: State) -> State:
        return {"looks": memory["looks"] + 1}

    def act(self, world: WorldModel, state: State, memory: State, **_: Any) -> Decision:
        way = (state["ball"] - state["player"]).sign() + 1
        action = torch.nn.functional.one_hot(way, 3).float()
        return Decision(action, {"looks": memory["looks"] + 1})

    def value(self, world: WorldModel, state: State, memory: State) -> Tensor:
        return torch.ones(len(state["ball"]))


class Still(Behaviour):
    """Does nothing in `dodge`, and has no critic."""

    def act(self, world: WorldModel, state: State, memory: State, **_: Any) -> Decision:
        return Decision(torch.zeros(len(state["player"]), 1), memory)


class Gambler(Behaviour):
    """Acts by chance alone, from a key as the trained behaviours do."""

    def memory(self, n: int) -> State:
        return {"key": torch.arange(n), "t": torch.zeros(n, dtype=torch.long)}

    def act(self, world: WorldModel, state: State, memory: State, **_: Any) -> Decision:
        action = 2 * noise.uniform(memory["key"], memory["t"], 1) - 1
        return Decision(action, {"key": memory["key"], "t": memory["t"] + 1})


class Blind(CatchOracle):
    """Draws nothing."""

    def decode(self, state: State) -> Obs:
        raise Undecodable("Blind cannot draw")


class Fast(DodgeOracle):
    """With a knob: how often the world moves in a step."""

    def knobs(self) -> tuple[Knob, ...]:
        return (Knob(name="moves", about="moves in a step", value=1, low=1, high=3, is_whole=True),)

    def turned(self, settings: Any) -> Step:
        def step(state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
            for _ in range(int(settings["moves"])):
                prediction = self.step(state, action, temperature)
                state = prediction.state
            return prediction

        return step


class Two(Fast):
    """With a second knob, which does nothing."""

    def knobs(self) -> tuple[Knob, ...]:
        return (*super().knobs(), Knob(name="wind", about="none", value=0, low=0, high=3, is_whole=True))

    def turned(self, settings: Any) -> Step:
        return super().turned({"moves": 1, **settings})


def catch(world: WorldModel | None = None, name: str = "catch") -> PlayedRun:
    world, config = world or CatchOracle(), ToyConfig(id="catch")
    return PlayedRun(
        name, Agent(world, Chaser()), world.spaces, config, Wandered(config, world.spaces.action)
    )


def dodge(
    world: WorldModel | None = None, name: str = "dodge", behaviour: Behaviour | None = None
) -> PlayedRun:
    world, config = world or DodgeOracle(), ToyConfig(id="dodge")
    agent = Agent(world, behaviour or Still())
    return PlayedRun(name, agent, world.spaces, config, Wandered(config, world.spaces.action))


def session(*runs: PlayedRun, **limits: Any) -> Session:
    return Session(runs or (catch(),), Limits(**limits), seed=1)


def player(current: Session, lane: int = 0) -> int:
    """Column in which the player stands."""
    return int(current.frame.lanes[lane].carry.state["player"])


def play(current: Session, actions: Sequence[tuple[float, ...]]) -> list[int]:
    """Columns after each action."""
    columns = []
    for action in actions:
        current.step(action)
        columns.append(player(current))
    return columns
