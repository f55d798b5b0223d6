"""VizDoom's engine in a folder of its own, ended together with the process that plays (extra `doom`)."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESOLUTIONS = ("160x120", "200x150", "256x192", "320x240", "400x300", "512x384", "640x480", "800x600")


class DoomEngine:
    """One scenario. The engine starts with the first episode; its own clock is off, so only the game ends one."""

    def __init__(
        self, scenario: str, resolution: str, prepare: Callable[[Any], None] = lambda game: None
    ) -> None:
        self.scenario, self.resolution, self.prepare = scenario, resolution, prepare
        self.game: Any = None
        self.limit = 0
        """Tics an episode lasts at most by the scenario's own clock, once it has been opened; 0 = no limit."""
        self._folder: tempfile.TemporaryDirectory | None = None
        width, height = map(int, resolution.split("x"))
        self._screen = np.zeros((height, width, 3), np.uint8)

    def begin(self, seed: int) -> None:
        """A new episode."""
        game = self.open()
        game.set_seed(seed % 2**31)
        game.new_episode()

    def act(self, buttons: Sequence[bool], tics: int) -> tuple[float, bool]:
        """Hold the buttons; what the scenario rewards, and whether the game is over."""
        return self.game.make_action(list(buttons), tics), self.game.is_episode_finished()

    def screen(self) -> np.ndarray:
        """uint8 [H, W, 3]; after the end there is none, and the last one is repeated."""
        state = self.game.get_state()
        if state is not None:
            self._screen = np.array(state.screen_buffer)
        return self._screen

    def open(self) -> Any:
        """Start the engine unless it runs; returns VizDoom's game."""
        if self.game is not None:
            return self.game
        import vizdoom

        self._folder = tempfile.TemporaryDirectory(prefix="oneiro-doom-", ignore_cleanup_errors=True)
        game = described(self.scenario)
        self.limit = max(0, game.get_episode_timeout() - game.get_episode_start_time())
        game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{self.resolution.upper()}"))
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        self.prepare(game)
        game.set_episode_timeout(0)
        game.set_doom_config_path(os.path.join(self._folder.name, "settings.ini"))
        launcher = _launcher(Path(self._folder.name), Path(vizdoom.scenarios_path).with_name("vizdoom"))
        if launcher is not None:
            game.set_vizdoom_path(str(launcher))
        game.init()
        self.game = game
        return game

    def close(self) -> None:
        """End the engine."""
        if self.game is not None:
            self.game.close()
            self.game = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def described(scenario: str) -> Any:
    """VizDoom's game with the scenario's configuration, not started."""
    import vizdoom

    game = vizdoom.DoomGame()
    game.load_config(os.path.join(vizdoom.scenarios_path, f"{scenario}.cfg"))
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
