"""`DreamEnv`: any world as a `gymnasium.vector.VectorEnv`, so that every agent of Gymnasium can live in the dream.

    reset    draws a start for every row
    step     action --codec--> world.step --> reward, cont, state --> image or feature
             terminated is drawn from 1 - cont, truncated says that the horizon is reached; only rows that are over
             begin again

Chance. Row i has a key made of (seed + i); its starts and its ends are numbers of that key (`oneiro.noise`). The
noise of `world.step` comes from a generator of the environment's own: torch's global one is neither read nor moved.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from oneiro import noise, tree
from oneiro.envs.dice import Dice
from oneiro.envs.dream_actions import action_space, to_world
from oneiro.errors import OneiroError, Undecodable
from oneiro.spaces import to_uint8
from oneiro.types import Carry, State
from oneiro.world import WorldModel

Sees = Literal["image", "feature"]
Channels = Literal["first", "last"]
StartPool = Carry | Callable[[int, np.random.Generator], Carry]
"""Where dreams begin: rows of which each episode takes one at random, or a function that makes n of them."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Everything a `DreamEnv` needs to go on from a point in time; made by `moment`, taken by `rewind`."""

    carry: Carry
    steps: np.ndarray
    """[B] imagined steps since the start of the episode."""
    over: np.ndarray
    """[B] bool: the row has ended and begins again at the next step."""
    key: Tensor
    clock: Tensor
    dice: Dice


class DreamEnv(gymnasium.vector.VectorEnv):
    """`num_envs` dreams of one world, stepped as one batch without gradient and in eval mode.

    Observations: `sees="image"` is what the world draws, uint8 [C, H, W] (`channels="last"`: [H, W, C]);
    `sees="feature"` is what it knows, float32 [feature_dim]. Infos: "cont", the predicted probability that
    the row goes on; in SAME_STEP also "final_obs" and "final_info". `temperature` may be changed at any time.
    """

    def __init__(
        self,
        world: WorldModel,
        starts: StartPool,
        num_envs: int,
        horizon: int,
        *,
        sees: Sees = "image",
        temperature: float = 1.0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        channels: Channels = "first",
        render_mode: str | None = None,
    ) -> None:
        """ValueError for a number out of range, OneiroError where there is no start or nothing to see."""
        _check(num_envs, horizon, temperature)
        _one_of("sees", sees, ("image", "feature"))
        _one_of("channels", channels, ("first", "last"))
        _one_of("render_mode", render_mode, (None, "rgb_array"))
        self.world, self.horizon, self.temperature = world, horizon, temperature
        self.num_envs, self.sees = num_envs, sees
        self.channels: Channels = channels
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": 30,
            "autoreset_mode": self.autoreset_mode,
        }
        self._imagined = world.stepper()
        self._starts = starts if callable(starts) else tree.to(starts, world.device)
        self._state: State | None = None
        self._steps = np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, np.bool_)
        self._key = self._clock = torch.zeros(num_envs, dtype=torch.int64)
        self._dice = Dice(world.device)
        self.single_action_space = action_space(world.spaces.action)
        self.single_observation_space = self._observation_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes in all rows, or with `options={"reset_mask": bool [B]}` in these.

        With a seed everything that follows is a function of it, of the actions and of the resets; row i is
        seeded with seed + i (or with the i-th of a list). The noise of `step` is shared by the batch, so it
        is seeded by a reset of all rows only.
        """
        self._require_open()
        rows = self._rows_to_reset(options or {})
        self._sow(seed, rows)
        self._begin(rows)
        assert self._state is not None
        with self._dreaming():
            return self._look(self._state), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One imagined step of every row: observation [B, ..], reward float64 [B], terminated, truncated, infos.

        NEXT_STEP: a row that was over begins again, whatever its action, with reward 0. SAME_STEP: a row
        that ends begins again at once. DISABLED: a row that ends has to be reset with a `reset_mask`.
        """
        self._require_open()
        if self._state is None:
            raise gymnasium.error.ResetNeeded("reset() must be called before step()")
        waiting = self._over
        if self.autoreset_mode is AutoresetMode.DISABLED and waiting.any():
            raise gymnasium.error.ResetNeeded(
                f"rows {waiting.nonzero()[0].tolist()} are over; reset them with options={{'reset_mask': ...}}"
            )
        reward, cont, obs = self._imagine(actions)
        self._steps += 1
        self._clock = self._clock + 1
        lives_on = noise.uniform(self._key, self._clock, 1)[:, 0].numpy() < cont
        terminated = ~lives_on & ~waiting
        truncated = (self._steps >= self.horizon) & ~terminated & ~waiting
        over = terminated | truncated
        infos = _known("cont", cont, ~waiting)
        self._over = over.copy()
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and waiting.any():
            reward[waiting] = 0.0
            obs[waiting] = self._begin(waiting.nonzero()[0])
        if self.autoreset_mode is AutoresetMode.SAME_STEP and over.any():
            infos = _known("cont", cont, ~over) | self._final(obs, cont, over)
            obs[over] = self._begin(over.nonzero()[0])
        return obs, reward, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """What every row dreams, uint8 [H, W, C], with `render_mode="rgb_array"`; also for the feature view."""
        if self.render_mode is None or self._state is None:
            return None
        with self._dreaming():
            return tuple(_picture(self.world, self._state, "last"))

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the dream; the world stays as it is."""
        self._state = None

    @property
    def steps(self) -> np.ndarray:
        """[B] imagined steps of the present episodes."""
        return self._steps.copy()

    def carry(self) -> Carry:
        """A copy of where every row is; what is done to it does not reach the dream."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("reset() must be called before there is a carry")
        return Carry(state=tree.clone(self._state))

    def moment(self) -> Moment:
        """A copy of everything: `rewind` to it as often as you like. The same actions then give the same dream."""
        return Moment(
            carry=self.carry(),
            steps=self._steps.copy(),
            over=self._over.copy(),
            key=self._key.clone(),
            clock=self._clock.clone(),
            dice=self._dice.copy(),
        )

    def rewind(self, moment: Moment) -> np.ndarray:
        """Go on from `moment`, of this environment or of another with as many rows; returns the observation."""
        self._require_open()
        if len(moment.steps) != self.num_envs:
            raise ValueError(f"the moment has {len(moment.steps)} rows, this environment {self.num_envs}")
        self._state = tree.clone(tree.to(moment.carry.state, self.world.device))
        self._steps, self._over = moment.steps.copy(), moment.over.copy()
        self._key, self._clock = moment.key.clone(), moment.clock.clone()
        self._dice = moment.dice.copy()
        with self._dreaming():
            return self._look(self._state)

    def _imagine(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step all rows: reward float64 [B], cont float64 [B], observation."""
        action = to_world(self.world.spaces.action, self.action_space, actions).to(self.world.device)
        with self._dreaming():
            prediction = self._imagined(self._state, action, self.temperature)  # type: ignore[arg-type]
            self._state = prediction.state
            obs = self._look(prediction.state)
        one = np.ones(self.num_envs)
        reward = 0 * one if prediction.reward is None else prediction.reward.double().cpu().numpy()
        cont = one if prediction.cont is None else prediction.cont.double().cpu().numpy()
        return np.array(reward), np.array(cont), obs

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        """Put `rows` [n] at starts of their own; returns what they see."""
        self._clock = self._clock.clone()
        self._clock[rows] += 1
        self._steps[rows], self._over[rows] = 0, False
        with self._dreaming():
            state = self._draw_starts(rows)
            if len(rows) == self.num_envs:
                self._state = state
            else:
                assert self._state is not None
                self._state = tree.put(self._state, torch.from_numpy(rows).to(self.world.device), state)
            return self._look(state)

    def _draw_starts(self, rows: np.ndarray) -> State:
        if callable(self._starts):
            state = tree.clone(self._starts(len(rows), self._luck(rows)).state)
            if tree.size(state) != len(rows):
                raise OneiroError(
                    f"the function that makes starts was asked for {len(rows)} and made {tree.size(state)}"
                )
        else:
            pool = self._starts.state
            number = noise.uniform(self._key[rows], self._clock[rows], 1)[:, 0]
            state = tree.take(pool, (number.double() * tree.size(pool)).long().to(self.world.device))
        if "draw" in state:  # every row its own noise, whatever the start was drawn with
            state = {**state, "draw": torch.from_numpy(rows).to(state["draw"])}
        return state

    def _luck(self, rows: np.ndarray) -> np.random.Generator:
        """For a function that makes starts; like everything else a function of the keys of the rows."""
        numbers = torch.stack([self._key[rows], self._clock[rows]]).flatten().tolist()
        return np.random.default_rng([number % 2**64 for number in numbers])

    def _look(self, state: State) -> np.ndarray:
        """What is seen of `state`: a new array."""
        if self.sees == "image":
            return _picture(self.world, state, self.channels)
        return np.array(self.world.feature(state).float().cpu().numpy())

    def _final(self, obs: np.ndarray, cont: np.ndarray, over: np.ndarray) -> dict[str, Any]:
        """What Gymnasium's own vector environments say about rows that ended and have begun again."""
        final = np.full(self.num_envs, None, dtype=object)
        for i in over.nonzero()[0]:
            final[i] = obs[i].copy()
        return {
            "final_obs": final,
            "_final_obs": over.copy(),
            "final_info": _known("cont", cont, over),
            "_final_info": over.copy(),
        }

    def _observation_space(self) -> gymnasium.Space:
        """Looks at one start, so that a world that cannot be shown says so before anything begins."""
        with self._dreaming():
            pool = self._starts(1, np.random.default_rng(0)) if callable(self._starts) else self._starts
        if not tree.leaves(pool.state) or not tree.size(pool.state):
            raise OneiroError(
                "there is nowhere to begin: the starts have no rows; collect episodes first, or settle the agent "
                "on real rows (Agent.settle)"
            )
        if self.sees == "feature":
            return gymnasium.spaces.Box(-np.inf, np.inf, (self.world.feature_dim,), np.float32)
        with self._dreaming():
            shape = self._look(tree.take(tree.clone(pool.state), slice(0, 1))).shape[1:]
        return gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def _rows_to_reset(self, options: dict[str, Any]) -> np.ndarray:
        mask = options.get("reset_mask")
        if mask is None:
            return np.arange(self.num_envs)
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"options['reset_mask'] must be bool [{self.num_envs}] with at least one True, got {mask!r}"
            )
        if self._state is None and not mask.all():
            raise gymnasium.error.ResetNeeded(
                "the first reset() must be one of all rows, without a reset_mask"
            )
        return mask.nonzero()[0]

    def _sow(self, seed: int | list[int] | None, rows: np.ndarray) -> None:
        """Keys of `rows`, and the dice if these are all rows; without a seed, what is not there yet."""
        if seed is None and self._state is not None:
            return
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        else:
            super().reset(seed=int(seed) if isinstance(seed, int | np.integer) else seed[0])
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"a list of seeds needs {self.num_envs} of them, got {len(seeds)}")
        keys = [np.random.SeedSequence(s).generate_state(1, np.uint64).astype(np.int64) for s in seeds]
        self._key, self._clock = self._key.clone(), self._clock.clone()
        self._key[rows] = torch.from_numpy(np.concatenate(keys))[rows]
        self._clock[rows] = 0
        if len(rows) == self.num_envs:
            self._dice = Dice(self.world.device, int(np.random.SeedSequence(seeds).generate_state(1)[0]))

    @contextmanager
    def _dreaming(self) -> Iterator[None]:
        """No gradient, eval mode, dice of its own; the world's mode is put back."""
        fitting = (
            [module for module in self.world.modules() if module.training] if self.world.training else []
        )
        for module in fitting:
            module.training = False
        try:
            with torch.no_grad(), self._dice.thrown():
                yield
        finally:
            for module in fitting:
                module.training = True

    def _require_open(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment was closed; make another one")


def _picture(world: WorldModel, state: State, channels: Channels) -> np.ndarray:
    """uint8 [B, C, H, W] or [B, H, W, C]."""
    try:
        image = world.decode(state).get("image")
    except Undecodable:
        image = None
    if image is None:
        raise Undecodable(
            f'{type(world).__name__} draws no pictures; use the feature view instead: sees="feature"'
        )
    array = to_uint8(image).cpu().numpy()
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1) if channels == "last" else array)


def _known(name: str, value: np.ndarray, where: np.ndarray) -> dict[str, Any]:
    """A number of some rows in the infos of a vector environment: zeros elsewhere, and the mask."""
    return {name: np.where(where, value, 0.0), f"_{name}": where.copy()}


def _check(num_envs: int, horizon: int, temperature: float) -> None:
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 imagined step, got {horizon}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 (the mode) or more, got {temperature}")


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
