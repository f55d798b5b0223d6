"""`PlayedRun`: what all who play in one run share: its agent, where dreams begin, its keys."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import batch_space

from oneiro import tree
from oneiro.agent import Agent
from oneiro.data.collect import seat
from oneiro.envs.config import EnvConfig
from oneiro.envs.dream_actions import action_space, to_world
from oneiro.envs.recorded import RecordedConfig
from oneiro.errors import OneiroError, Undecodable
from oneiro.play.keys import KeyMap, key_map
from oneiro.play.pictures import View, draw, feature_field, observed, picture_name
from oneiro.play.starts import CONTEXT, Place, Replayed, Wandered
from oneiro.spaces import Spaces
from oneiro.training.run import Trained
from oneiro.types import Carry, State, TimeStep
from oneiro.world import Step

logger = logging.getLogger("oneiro")
STEPPERS = 8
"""Prepared steps kept at the same time: one for each setting of the knobs that somebody plays with."""


class PlayedRun:
    """One world with its agent. Methods are called from one thread at a time."""

    def __init__(
        self, name: str, agent: Agent, spaces: Spaces, config: EnvConfig, starts: Replayed | Wandered
    ) -> None:
        self.name, self.agent, self.spaces, self.config = name, agent.eval(), spaces, config
        self.starts = starts
        self.knobs = agent.world.knobs()
        self.keys: KeyMap = key_map(config, spaces.action)
        self.space = batch_space(action_space(spaces.action), 1)
        self._steppers: OrderedDict[tuple, Step] = OrderedDict()
        self.draws = self._can_draw()

    @classmethod
    def of(cls, run: Trained, name: str = "") -> "PlayedRun":
        """Dreams begin in its replay; where there is none, in its game."""
        config, starts = run.recipe.env, None
        try:
            starts = Replayed(run.store)
        except (OneiroError, OSError) as error:
            logger.info("%s has no replay to begin in: %s", run.folder.path, error)
        if not starts and not config.is_playable:
            raise OneiroError(
                f"{run.folder.path} has no replay, and recorded video cannot be played, so no dream can begin; train "
                "it until its videos are read"
            )
        if not starts:
            config.require()
            starts = Wandered(config, run.spaces.action)
        return cls(name or run.folder.path.name, run.agent, run.spaces, config, starts)

    def require_alike(self, other: "PlayedRun") -> None:
        """OneiroError unless both can be led by the same actions."""
        if self.spaces.action != other.spaces.action:
            raise OneiroError(
                f"{self.name} and {other.name} take different actions ({_actions(self.spaces)} and "
                f"{_actions(other.spaces)}), so one player cannot lead both"
            )

    def view(self, wanted: View) -> View:
        """The view that can be shown."""
        return wanted if self.draws else "feature"

    @torch.no_grad()
    def picture(self, state: State, view: View) -> np.ndarray:
        """uint8 [H, W, 3] of the first row."""
        world = self.agent.world
        return draw(world, state) if self.view(view) == "image" else feature_field(world.feature(state)[0])

    def rows(self, place: Place, origin: "PlayedRun | None" = None) -> TimeStep:
        """Real rows that end at `place`, of the run `origin` if there is one, as many as this world looks at."""
        return (origin or self).starts.rows(place, self.agent.world.context or CONTEXT)

    @torch.no_grad()
    def begin(self, rows: TimeStep) -> tuple[Carry, np.ndarray | None]:
        """The carry [1] after real rows, and the last one's picture."""
        shown = observed({k: x[0, -1].numpy() for k, x in rows.obs.items()}, self.spaces)
        rows = tree.to(rows, self.agent.world.device)
        carry = self.agent.settle(rows, rows.is_first.shape[1])  # the world looks, even if the agent is blind
        return carry, shown

    def sees_like(self, other: "PlayedRun") -> bool:
        """True if it can look at the real rows of the other run."""
        return self.spaces.obs == other.spaces.obs and self.spaces.classes == other.spaces.classes

    def step(self, settings: Mapping[str, float]) -> Step:
        """The world's step with the knobs it has at these values."""
        known = {knob.name for knob in self.knobs}
        own = tuple(sorted((name, value) for name, value in settings.items() if name in known))
        if own not in self._steppers:
            world = self.agent.world
            self._steppers[own] = world.turned(dict(own)) if own else world.stepper()
            if len(self._steppers) > STEPPERS:
                self._steppers.popitem(last=False)
        self._steppers.move_to_end(own)
        return self._steppers[own]

    def action(self, numbers: tuple[float, ...]) -> torch.Tensor:
        """What a player chose -> float32 [1, A]; ValueError if it is no action."""
        codec = self.spaces.action
        given: Any = np.array(numbers, np.float64)
        if codec.is_discrete and not (given == given.round()).all():
            raise ValueError("choices are whole numbers")
        is_switch = isinstance(self.config, RecordedConfig) and self.config.kind == "switches"
        if is_switch and not np.isin(given, (0, 1)).all():
            raise ValueError("switches are 0 or 1")
        array = given[0] if codec.is_discrete and len(codec.groups) == 1 and len(given) == 1 else given
        dtype = np.int64 if codec.is_discrete else np.float32
        return to_world(codec, self.space, np.asarray(array, dtype)[None]).to(self.agent.world.device)

    def told(self, action: torch.Tensor) -> tuple[float, ...]:
        """The inverse: float32 [1, A] -> numbers as the environment takes them."""
        return tuple(float(x) for x in np.ravel(self.spaces.action.to_env(action)[0]))

    def _can_draw(self) -> bool:
        if picture_name(self.spaces) is None:
            return False
        try:
            with torch.no_grad():
                draw(self.agent.world, self.agent.world.start(1))
        except Undecodable:
            return False
        return True


def with_luck(carry: Carry, seed: int) -> Carry:
    """The carry [1] in which the behaviour's random numbers are those of this seed, where it keeps a key for them."""
    return seat(carry, [0], carry.memory, [seed]) if carry.memory else carry


def _actions(spaces: Spaces) -> str:
    codec = spaces.action
    if codec.is_discrete:
        return " x ".join(map(str, codec.groups)) + " choices"
    return f"{codec.dim} numbers within {list(codec.low)} to {list(codec.high)}"
