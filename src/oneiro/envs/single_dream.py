"""`SingleDream`: one dream as a `gymnasium.Env`, for everything that does not take vector environments.

`gymnasium.make("oneiro/Dream-v0", run=...)` makes it from a run folder (`oneiro.recipes.dreams`).
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from oneiro.envs.dream import Channels, DreamEnv, Moment, Sees, StartPool
from oneiro.types import Carry
from oneiro.world import WorldModel


class SingleDream(gymnasium.Env):
    """A `DreamEnv` of one row without autoreset; arguments as there. `vector` is that environment."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        world: WorldModel,
        starts: StartPool,
        horizon: int,
        *,
        sees: Sees = "image",
        temperature: float = 1.0,
        channels: Channels = "first",
        render_mode: str | None = None,
    ) -> None:
        self.vector = DreamEnv(
            world,
            starts,
            1,
            horizon,
            sees=sees,
            temperature=temperature,
            autoreset_mode=AutoresetMode.DISABLED,
            channels=channels,
            render_mode=render_mode,
        )
        self.render_mode = render_mode
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new dream; with a seed, the same one whenever the actions are the same."""
        super().reset(seed=seed)
        obs, _ = self.vector.reset(seed=seed)
        return obs[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One imagined step. `info["cont"]` is the predicted probability that the dream goes on."""
        obs, reward, terminated, truncated, infos = self.vector.step(np.asarray(action)[None])
        info = {"cont": float(infos["cont"][0])}
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        """What is dreamed, uint8 [H, W, C], with `render_mode="rgb_array"`."""
        frames = self.vector.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Let go of the dream; the world stays as it is."""
        self.vector.close()

    @property
    def temperature(self) -> float:
        """Of the dream; it may be changed at any time."""
        return self.vector.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.vector.temperature = value

    def carry(self) -> Carry:
        """See `DreamEnv.carry`."""
        return self.vector.carry()

    def moment(self) -> Moment:
        """See `DreamEnv.moment`."""
        return self.vector.moment()

    def rewind(self, moment: Moment) -> np.ndarray:
        """See `DreamEnv.rewind`."""
        return self.vector.rewind(moment)[0]
