"""VizDoom TakeCover: monsters throw fireballs, the player can only step aside; survive as long as possible.

Scenario of the `vizdoom` package (extra `doom`), task of World Models (Ha & Schmidhuber 2018).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig, check_image
from oneiro.envs.doom_engine import RESOLUTIONS, DoomEngine
from oneiro.envs.image import shrink

if TYPE_CHECKING:
    from oneiro.spaces import Spaces

THIRD = 1 / 3


@dataclass(frozen=True, kw_only=True)
class TakeCoverConfig(EnvConfig):
    """TakeCover as in World Models.

    Protocol of the paper: skill 4, one decision a tic (35 tics a second), at most 2,100 tics, action one number
    (below -1/3 left, above 1/3 right, else stand still), score = tics survived, "solved" = 750 over 100
    episodes. Its picture: 640x480, rows 0-399 (without the status bar), resized to 64x64 RGB. The default here
    renders 160x120 and keeps rows 0-99, the same field of view at a tenth of the time.

    The episode is a function of its seed and the actions. It is terminated by death, truncated at `max_tics`.
    """

    skill: int = 4  # difficulty, 1 to 5; published scores are at 4
    max_tics: int = 2100  # an episode is truncated after so many tics
    action_repeat: int = 1  # tics a decision lasts
    resolution: str = "160x120"  # of the rendered screen, width x height
    rows: tuple[int, int] = (0, 100)  # (first, last + 1) row of the screen that is kept
    size: int = 64  # side of the resized picture, pixels

    needs: ClassVar = ("vizdoom", "doom")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.skill <= 5:
            raise ValueError(f"skill must be 1 to 5, got {self.skill}; published scores are at 4")
        if self.max_tics < 1 or self.action_repeat < 1:
            raise ValueError(
                f"max_tics and action_repeat must be at least 1, got {self.max_tics} and {self.action_repeat}"
            )
        if self.resolution not in RESOLUTIONS:
            raise ValueError(f"resolution {self.resolution!r} is none of {', '.join(RESOLUTIONS)}")
        check_image(self.size, self.rows, int(self.resolution.split("x")[1]))

    @property
    def frames_per_step(self) -> int:
        """See `EnvConfig.frames_per_step`; a frame is a tic."""
        return self.action_repeat

    @property
    def longest(self) -> int:
        """See `EnvConfig.longest`."""
        return -(-self.max_tics // self.action_repeat)

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return TakeCover(self)

    def spaces(self) -> "Spaces":
        """Known without starting the engine, so that plans can be made where it is not installed."""
        from oneiro.spaces import ActionCodec, Spaces

        return Spaces({"image": (3, self.size, self.size)}, ActionCodec(1, (-1.0,), (1.0,)))

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        every = "every tic" if self.action_repeat == 1 else f"every {self.action_repeat} tics"
        return (
            f"VizDoom TakeCover, skill {self.skill}, a decision {every}, {self.resolution} rows "
            f"{self.rows[0]}-{self.rows[1] - 1} to {self.size}x{self.size}, at most {self.max_tics:,} tics, "
            "score = tics survived"
        )


def buttons(action: float) -> list[bool]:
    """The scalar action -> [left, right] pressed."""
    return [action < -THIRD, action > THIRD]


class TakeCover(gymnasium.Env):
    """One engine, started at the first reset; `close` ends it."""

    def __init__(self, config: TakeCoverConfig) -> None:
        self.config = config
        shape = (3, config.size, config.size)
        self.observation_space = gymnasium.spaces.Dict(
            {"image": gymnasium.spaces.Box(0, 255, shape, np.uint8)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.engine = DoomEngine("take_cover", config.resolution, self._prepare)
        self._tics = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new episode; without a seed, from a random one."""
        super().reset(seed=seed)
        self.engine.begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._tics = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold the buttons for `action_repeat` tics; reward = tics survived in it, the last one included."""
        tics = min(self.config.action_repeat, self.config.max_tics - self._tics)
        reward, is_dead = self.engine.act(buttons(float(np.asarray(action).item())), tics)
        self._tics += tics
        return self._observe(), reward, is_dead, not is_dead and self._tics >= self.config.max_tics, {}

    def close(self) -> None:
        """End the engine."""
        self.engine.close()

    def _observe(self) -> dict[str, np.ndarray]:
        return {"image": shrink(self.engine.screen(), self.config.size, self.config.rows)}

    def _prepare(self, game: Any) -> None:
        game.set_doom_skill(self.config.skill)
        game.set_living_reward(1)
        game.set_episode_start_time(1)
