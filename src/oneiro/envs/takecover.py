"""VizDoom TakeCover: monsters throw fireballs, the player can only step aside; survive as long as possible.

Scenario of the `vizdoom` package (extra `doom`), task of World Models (Ha & Schmidhuber 2018).
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig, check_image
from oneiro.envs.image import shrink

if TYPE_CHECKING:
    from oneiro.spaces import Spaces

THIRD = 1 / 3
RESOLUTIONS = ("160x120", "200x150", "256x192", "320x240", "400x300", "512x384", "640x480", "800x600")


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
        self._game: Any = None
        self._folder: tempfile.TemporaryDirectory | None = None
        self._tics = 0
        self._image = np.zeros(shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new episode; without a seed, from a random one."""
        super().reset(seed=seed)
        game = self._game or self._start()
        game.set_seed(int(self.np_random.integers(2**31)) if seed is None else seed % 2**31)
        game.new_episode()
        self._tics = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold the buttons for `action_repeat` tics; reward = tics survived in it, the last one included."""
        tics = min(self.config.action_repeat, self.config.max_tics - self._tics)
        reward = self._game.make_action(buttons(float(np.asarray(action).item())), tics)
        self._tics += tics
        # The engine's own clock is off: only death ends its episodes, even on the very last tic.
        is_dead = self._game.is_episode_finished()
        return self._observe(), reward, is_dead, not is_dead and self._tics >= self.config.max_tics, {}

    def close(self) -> None:
        """End the engine."""
        if self._game is not None:
            self._game.close()
            self._game = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _observe(self) -> dict[str, np.ndarray]:
        """The screen; after the end there is none, and the last one is repeated."""
        state = self._game.get_state()
        if state is not None:
            self._image = shrink(state.screen_buffer, self.config.size, self.config.rows)
        return {"image": self._image}

    def _start(self) -> Any:
        import vizdoom

        self._folder = tempfile.TemporaryDirectory(prefix="oneiro-doom-", ignore_cleanup_errors=True)
        game = vizdoom.DoomGame()
        game.load_config(os.path.join(vizdoom.scenarios_path, "take_cover.cfg"))
        game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{self.config.resolution.upper()}"))
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_doom_skill(self.config.skill)
        game.set_living_reward(1)
        game.set_episode_start_time(1)
        game.set_episode_timeout(0)
        game.set_doom_config_path(os.path.join(self._folder.name, "settings.ini"))
        launcher = _launcher(Path(self._folder.name), Path(vizdoom.scenarios_path).with_name("vizdoom"))
        if launcher is not None:
            game.set_vizdoom_path(str(launcher))
        game.init()
        self._game = game
        return game


def _launcher(folder: Path, engine: Path) -> Path | None:
    """A script that starts the engine inside `folder` (it leaves a directory where it starts) and, where
    `setpriv` is installed, has it killed with the process that plays (it would wait for ever otherwise).
    None where such a script cannot be run.
    """
    if os.name != "posix" or not engine.exists():
        return None
    setpriv = shutil.which("setpriv")
    guard = f"'{setpriv}' --pdeathsig KILL " if setpriv else ""
    script = folder / "engine"
    script.write_text(f"#!/bin/sh\ncd '{folder}' && exec {guard}'{engine}' \"$@\"\n")
    script.chmod(0o700)
    return script if os.access(script, os.X_OK) else None
