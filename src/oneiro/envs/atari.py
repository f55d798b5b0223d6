"""Atari games of the Arcade Learning Environment (extra `atari`, package ale-py, which brings the games).

    protocol     skip, pooling, sticky actions, no-ops, ...: `atari_presets`, by name, each field open to change
    AtariConfig  game + protocol, one field each
    Atari        the environment, on the emulator itself: pixels, rewards and flags are those of the official wrapper

Deviations from the official wrappers, all of them:

1. An episode is a function of its seed. No-ops and sticky actions are drawn here, from the seed, with the emulator's
   rule; and the game restarts from the state it had when it was loaded. The emulator's own reset carries something
   over in a few games (Assault, KungFuMaster, Tennis of 31 tried).
2. With `life="end"` an episode that follows a lost life goes on with the same game, so it is no function of a seed.
3. `limit` counts frames after the no-ops. FIRE lasts one decision.
"""

import collections
import dataclasses
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np

from oneiro.envs.atari_presets import OF_200M, PRESETS, Protocol
from oneiro.envs.config import EnvConfig
from oneiro.envs.image import area, bilinear
from oneiro.errors import MissingExtra, OneiroError, nearest

if TYPE_CHECKING:
    from ale_py import ALEInterface

FIRE = 1  # the emulator's number of that action
LUMA = (0.299, 0.587, 1 - (0.299 + 0.587))  # weights of red, green, blue


@dataclass(frozen=True, kw_only=True)
class AtariConfig(EnvConfig):
    """An Atari game under a published protocol, or a variant of it.

    `preset` decides every field that is None; a field with a value goes before the preset. `protocol` is the result,
    and `describe` says it in words. Presets: dreamer (DreamerV3 on Atari 100k), dreamer-200m, dreamer-2023, dreamerv2,
    iris, iris-test, twm, twm-test, diamond, diamond-test, storm.
    """

    game: str = "ms_pacman"  # ms_pacman, MsPacman or ALE/MsPacman-v5, any game that ale-py brings
    preset: str = "dreamer"  # protocol that decides the fields below which are None

    skip: int | None = None  # frames a decision lasts
    pool: int | None = None  # a picture is the maximum of so many last frames
    pool_first: bool | None = None  # maximum and then resize (True), or the other way round
    sticky: float | None = None  # probability that a frame repeats the last frame's action instead
    noops: tuple[int, int] | None = None  # fewest and most frames without action at the start
    fire: Literal["never", "start", "life"] | None = None  # press FIRE at the start; after lost lives too
    actions: Literal["minimal", "full"] | None = None  # those the game uses, or all 18
    colour: Literal["rgb", "luma", "gray"] | None = None  # luma: of the resized RGB; gray: the emulator's own
    size: int | None = None  # side of the picture, pixels
    stack: int | None = None  # pictures shown at once, the newest last
    resize: Literal["bilinear", "area"] | None = None  # Pillow's bilinear, or OpenCV's area
    life: Literal["ignore", "flag", "end"] | None = None  # a lost life: nothing, a terminated row, the end
    after_life: Literal["noop", "same"] | None = (
        None  # life end: the next begins one no-op on, or right there
    )
    limit: int | None = None  # frames after which the game is stopped; 0 = never
    limit_is_terminal: bool | None = None  # the stop counts as the end of the game, not as a truncation
    reward: Literal["raw", "sign", "tanh"] | None = None  # game points as they are, or transformed

    needs: ClassVar = ("ale_py", "atari")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "game", _snake_case(self.game))
        if self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset!r}. {nearest(self.preset, PRESETS)}")
        if self.noops is not None:
            object.__setattr__(self, "noops", tuple(self.noops))  # a saved recipe has a list
        _ = self.protocol  # which validates the fields

    @property
    def changed(self) -> dict[str, Any]:
        """The fields that go before the preset, by name."""
        names = [field.name for field in dataclasses.fields(Protocol)]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def protocol(self) -> Protocol:
        """The preset with the changed fields."""
        return dataclasses.replace(PRESETS[self.preset], **self.changed)

    @property
    def frames_per_step(self) -> int:
        """See `EnvConfig.frames_per_step`."""
        return self.protocol.skip

    @property
    def benchmark(self) -> str:
        """See `EnvConfig.benchmark`; the presets of 200 million frames have a suite of their own."""
        return f"{'atari200m' if self.preset in OF_200M else 'atari100k'}/{self.game}"

    @property
    def longest(self) -> int:
        """See `EnvConfig.longest`."""
        return -(-self.protocol.limit // self.protocol.skip)

    def require(self) -> None:
        """MissingExtra without ale-py; OneiroError for a game it does not have."""
        super().require()
        find_game(self.game)

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return Atari(find_game(self.game), self.protocol)

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        changed = f" with other {', '.join(self.changed)}" if self.changed else ""
        return f"Atari {self.game}, preset {self.preset}{changed}: {self.protocol.describe()}"


def _snake_case(name: str) -> str:
    """MsPacman, ALE/MsPacman-v5, ms-pacman -> ms_pacman."""
    name = name.rpartition("/")[2].partition("-v")[0].replace("-", "_")
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@cache
def find_game(name: str) -> str:
    """ale-py's name of a game, with or without its underscores; OneiroError with the nearest one."""
    try:
        from ale_py import roms
    except ImportError:
        raise MissingExtra("ale_py", "atari") from None
    known = {rom.replace("_", ""): rom for rom in roms.get_all_rom_ids()}
    plain = name.replace("_", "")
    if plain not in known:
        close = nearest(plain, known)
        remedy = next((f"Did you mean {known[rom]!r}?" for rom in known if f"{rom!r}?" in close), "")
        games = remedy or f"Known: {', '.join(sorted(known.values()))}."
        raise OneiroError(f"there is no Atari game {name!r}. {games}")
    return known[plain]


class Atari(gymnasium.Env):
    """One emulator. `info` of a step: "terminal", what its row is marked with; "lives"."""

    def __init__(self, game: str, protocol: Protocol) -> None:
        self.protocol = protocol
        self.screen = Screen(protocol)
        self.observation_space = gymnasium.spaces.Dict(
            {"image": gymnasium.spaces.Box(0, 255, self.screen.shape, np.uint8)}
        )
        self.ale = _load(game)
        minimal = self.ale.getMinimalActionSet()
        chosen = minimal if protocol.actions == "minimal" else self.ale.getLegalActionSet()
        self.codes = [action.value for action in chosen]
        self.action_space = gymnasium.spaces.Discrete(len(self.codes))
        self._presses_fire = protocol.fire != "never" and any(action.value == FIRE for action in minimal)
        self.ale.reset_game()
        self._beginning = self.ale.cloneState()
        self._goes_on = False  # the last episode ended with a life, the game did not
        self._frames = 0
        self._last = 0  # code of the action of the last frame

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new game; or the next life, where a lost one ended the last episode."""
        super().reset(seed=seed)
        info = {"lives": self.ale.lives()}
        if self._goes_on and self.protocol.after_life == "same":
            self._goes_on = False
            return {"image": self.screen.picture}, info
        if self._goes_on:
            self._hold(0)
        if not self._goes_on or self.ale.game_over():
            self._begin()
        self._goes_on = False
        return {"image": self.screen.show()}, info | {"lives": self.ale.lives()}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Hold the action for `skip` frames, fewer where the game ends."""
        lives = self.ale.lives()
        points = self._hold(self.codes[int(action)])
        over, stopped = self.ale.game_over(), self._is_stopped()
        lost = self.ale.lives() < lives and not over
        if lost and not stopped and self.protocol.fire == "life" and self._presses_fire:
            points += self._hold(FIRE)
            over, stopped = self.ale.game_over(), self._is_stopped()
        ends = over or (lost and self.protocol.life == "end") or (stopped and self.protocol.limit_is_terminal)
        self._goes_on = lost and self.protocol.life == "end" and not over and not stopped
        terminal = ends or (lost and self.protocol.life == "flag")
        info = {"terminal": terminal, "lives": self.ale.lives()}
        return {"image": self.screen.show()}, self._reward(points), ends, stopped and not ends, info

    def _begin(self) -> None:
        """A new game, FIRE and no-ops."""
        self._restart()
        if self._presses_fire:
            self._hold(FIRE)
        low, high = self.protocol.noops
        for _ in range(int(self.np_random.integers(low, high + 1))):
            self._act(0)
            if self.ale.game_over():
                self._restart()
        self.screen.begin(self.ale)
        self._frames = 0

    def _restart(self) -> None:
        self.ale.reset_game()
        self.screen.begin(self.ale)  # restoring a state draws nothing until the next frame
        self.ale.restoreState(self._beginning)
        self._frames, self._last = 0, 0

    def _hold(self, code: int) -> float:
        points = 0
        for frame in range(self.protocol.skip):
            points += self._act(code)
            if frame >= self.protocol.skip - self.protocol.pool:
                self.screen.add(self.ale)
            if self.ale.game_over() or self._is_stopped():
                break
        return points

    def _act(self, code: int) -> int:
        sticky = self.protocol.sticky
        if not sticky or self.np_random.random() >= sticky:
            self._last = code
        self._frames += 1
        return self.ale.act(self._last)

    def _is_stopped(self) -> bool:
        return 0 < self.protocol.limit <= self._frames

    def _reward(self, points: float) -> float:
        match self.protocol.reward:
            case "sign":
                return float(np.sign(points))
            case "tanh":
                return math.tanh(points)
        return float(points)


class Screen:
    """From the emulator's last frames to the picture [C, size, size] that is shown."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.channels = 3 if protocol.colour == "rgb" else 1
        self.shape = (self.channels * protocol.stack, protocol.size, protocol.size)
        self._frames: collections.deque[np.ndarray] = collections.deque(maxlen=protocol.pool)
        self._shown: collections.deque[np.ndarray] = collections.deque(maxlen=protocol.stack)

    def begin(self, ale: "ALEInterface") -> None:
        """Forget what was shown; the current frame is all there is."""
        self._frames.clear()
        self._shown.clear()
        self.add(ale)

    def add(self, ale: "ALEInterface") -> None:
        """The emulator has drawn another frame."""
        frame = ale.getScreenGrayscale() if self.protocol.colour == "gray" else ale.getScreenRGB()
        self._frames.append(frame if self.protocol.pool_first else self._resize(frame))

    def show(self) -> np.ndarray:
        """Called once a decision: uint8 [C * stack, size, size]."""
        picture = self._frames[0]
        for frame in list(self._frames)[1:]:
            picture = np.maximum(picture, frame)
        if self.protocol.pool_first:
            picture = self._resize(picture)
        if self.protocol.colour == "luma":
            picture = (picture * np.array(LUMA)).sum(-1).astype(np.uint8)
        picture = picture.reshape(*picture.shape[:2], self.channels).transpose(2, 0, 1)
        missing = max(1, self.protocol.stack - len(self._shown))
        self._shown.extend([picture] * missing)  # the first picture of an episode fills the stack
        return self.picture

    @property
    def picture(self) -> np.ndarray:
        """What `show` has returned last."""
        return np.concatenate(self._shown)

    def _resize(self, frame: np.ndarray) -> np.ndarray:
        size = self.protocol.size
        return bilinear(frame, size) if self.protocol.resize == "bilinear" else area(frame, size)


def _load(game: str) -> "ALEInterface":
    """An emulator with the game in it; its own sticky actions and limits are off."""
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    path = roms.get_rom_path(game)
    assert isinstance(path, Path), game
    ale.loadROM(path)
    return ale
