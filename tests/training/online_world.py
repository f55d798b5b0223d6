"""A tiny recurrent world for the counter, and a recipe that trains it online. Its state tells what it has seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.behaviour import Behaviour
from oneiro.data.replayed import Replayed
from oneiro.envs.toy import ToyConfig
from oneiro.noise import uniform
from oneiro.spaces import Spaces
from oneiro.training.fit import Fit, Group
from oneiro.training.log import LogConfig
from oneiro.training.online import Online
from oneiro.training.optim import Adam
from oneiro.training.recipe import CheckpointConfig, DataConfig, Recipe
from oneiro.types import Decision, Losses, Prediction, State, TimeStep
from oneiro.world import WorldModel


@dataclass(frozen=True, kw_only=True)
class TallyConfig:
    """See `Tally`."""

    width: int = 3

    def build(self, spaces: Spaces) -> "Tally":
        return Tally(spaces, self.width)


class Tally(WorldModel):
    """deter = (rows since the episode began, sum of their actions, how many updates the network has seen)."""

    def __init__(self, spaces: Spaces, width: int) -> None:
        super().__init__()
        self.spaces, self.feature_dim, self.width = spaces, width, width
        self.net = nn.Linear(2, 1)
        self.register_buffer("updates", torch.zeros(()))

    def start(self, n: int) -> State:
        return {"deter": torch.zeros(n, self.width, device=self.device)}

    def observe(self, state: State, row: TimeStep) -> State:
        old = torch.where(row.is_first[:, None], 0.0, state["deter"])
        assert row.action is not None
        count, total = old[:, 0] + 1, old[:, 1] + row.action[:, 0]
        new = torch.stack([count, total, self.updates.expand_as(count)], 1)
        return {"deter": torch.nn.functional.pad(new, (0, self.width - 3))}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        return Prediction(state)

    def feature(self, state: State) -> Tensor:
        return state["deter"]

    def memo(self, state: State) -> dict[str, Tensor]:
        return dict(state)

    def recall(self, memo: dict[str, Tensor], n: int) -> State:
        return dict(memo)

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        assert batch.reward is not None
        state, states = before or self.start(len(batch.reward)), []
        for t in range(batch.is_first.shape[1]):
            state = self.observe(state, batch.at(t))
            states.append(state)
        trace = tree.stack(states, 1)
        # exactly the rows of its episode, whatever the item began with: context, resets and alignment are right
        if before is not None:
            assert torch.equal(trace["deter"][..., 0] - 1, batch.obs["vector"][..., 0])
        loss = (self.net(trace["deter"][..., :2] / 10)[..., 0] - batch.reward / 10).square().mean()
        return Losses({"all": loss}, {"world/loss": loss.detach()}, trace=trace)

    def after_update(self) -> None:
        self.updates += 1


@dataclass(frozen=True, kw_only=True)
class NoisyConfig:
    """See `Noisy`."""

    def build(self, spaces: Spaces, feature_dim: int = 0) -> "Noisy":
        return Noisy(spaces)


class Noisy(Behaviour):
    """Uniform actions from a key; the weight shows in them, so that acting depends on what was learnt."""

    def __init__(self, spaces: Spaces) -> None:
        super().__init__()
        self.dim = spaces.action.dim

    def memory(self, n: int) -> State:
        return {"key": torch.zeros(n, dtype=torch.int64), "t": torch.zeros(n, dtype=torch.int64)}

    def act(
        self, world: WorldModel, state: State, memory: State, *, goal: Any = None, explore: bool = False
    ) -> Decision:
        noise = uniform(memory["key"], memory["t"], self.dim) - 0.5
        bias: Any = world.net.bias
        return Decision((noise + bias).clamp(-1, 1).detach(), {**memory, "t": memory["t"] + 1})


class PositiveConfig(NoisyConfig):
    """See `Positive`."""

    def build(self, spaces: Spaces, feature_dim: int = 0) -> "Noisy":
        return Positive(spaces)


class Positive(Noisy):
    """Uniform in 0 .. 1, whatever was learnt."""

    def act(self, world: Any, state: State, memory: State, **_: Any) -> Decision:
        return Decision(uniform(memory["key"], memory["t"], self.dim), {**memory, "t": memory["t"] + 1})


@dataclass(frozen=True, kw_only=True)
class OnlineSchedule:
    """One stage."""

    online: Online = field(
        default_factory=lambda: Online(
            steps=240,
            fit=Fit(groups=(Group(address=("world",), optimizer=Adam(lr=1e-2)),)),
            batch=Replayed(size=4, length=8),
            train_ratio=8.0,
            log_every=60,
        )
    )


def tally() -> Recipe:
    """Three counters, a quarter of an update a step."""
    return Recipe(
        env=ToyConfig(id="counter", num=3),
        world=TallyConfig(),
        behaviour=NoisyConfig(),
        schedule=OnlineSchedule(),
        data=DataConfig(ram=0.05, capacity=100_000),
        checkpoint=CheckpointConfig(minutes=1e6),
        log=LogConfig(tensorboard=False),
    )
