"""Toys: games of a few steps that need nothing but NumPy, for tests, tutorials and a first look at a world model."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig

if TYPE_CHECKING:
    from oneiro.spaces import Spaces

GRID = 16  # cells along a side
SIZE = 64  # pixels along a side
THIRD = 1 / 3
Step = tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ToyConfig(EnvConfig):
    """A toy. All show an image of 3 x 64 x 64 and play one frame a step; scores are sums of rewards.

    - `dodge`: survive a rain of balls aimed at the player; action one number (below -1/3 left, above 1/3 right,
      else stand still), reward 1 a step, terminated when hit, truncated after 60 steps. Random about 20.
    - `catch`: catch the falling ball; three actions (left, none, right), reward 1 or -1 at the end of 14 steps.
    - `counter`: emits its step number, the seed of its episode and the last action, in the image and as a
      vector; ends after `counter_length(seed)` steps, terminated if the seed is even, else truncated.
    """

    id: Literal["dodge", "catch", "counter"] = "dodge"  # which toy
    workers: Literal["async", "sync"] = "sync"  # a step is quicker than a message to a worker

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.id not in TOYS:
            raise ValueError(f"id must be one of {', '.join(TOYS)}, got {self.id!r}")

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return TOYS[self.id]()

    def spaces(self) -> "Spaces":
        """See `EnvConfig.spaces`."""
        from oneiro.spaces import Spaces

        return Spaces.of(self.env())

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        return f"toy {self.id}: image 3 x {SIZE} x {SIZE}, one frame a step, score = sum of rewards"


class Pixels(gymnasium.Env):
    """A game on a grid of 16 x 16 cells, drawn with 4 x 4 pixels a cell."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Dict(
            {"image": gymnasium.spaces.Box(0, 255, (3, SIZE, SIZE), np.uint8)}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new game; the same for the same seed."""
        super().reset(seed=seed)
        self.steps = 0
        self.begin()
        return self.show(), {}

    def show(self) -> dict[str, np.ndarray]:
        """The picture."""
        cells = np.zeros((3, GRID, GRID), np.uint8)
        self.paint(cells)
        return {"image": cells.repeat(SIZE // GRID, 1).repeat(SIZE // GRID, 2)}

    @abstractmethod
    def begin(self) -> None:
        """Set up a new game."""

    @abstractmethod
    def paint(self, cells: np.ndarray) -> None:
        """Colour the cells [3, GRID, GRID]."""


class Dodge(Pixels):
    """Balls fall from the ceiling towards where the player was when they started."""

    LIMIT = 60
    EVERY = 4  # steps between balls
    REACH = 1  # a ball hits so many columns to either side of its own

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def begin(self) -> None:
        """See `Pixels.begin`."""
        self.player = int(self.np_random.integers(2, GRID - 2))
        self.balls: list[list[int]] = []  # [row, column]

    def step(self, action: np.ndarray) -> Step:
        """Move, let the balls fall by one row, throw a new one."""
        a = float(np.asarray(action).item())
        self.player = int(np.clip(self.player + (a > THIRD) - (a < -THIRD), 0, GRID - 1))
        for ball in self.balls:
            ball[0] += 1
        is_hit = any(
            row == GRID - 1 and abs(column - self.player) <= self.REACH for row, column in self.balls
        )
        self.balls = [ball for ball in self.balls if ball[0] < GRID - 1]
        if self.steps % self.EVERY == 0:
            aim = self.player + int(self.np_random.integers(-1, 2))
            self.balls.append([GRID - 9, int(np.clip(aim, 0, GRID - 1))])
        self.steps += 1
        return self.show(), 1.0, is_hit, not is_hit and self.steps >= self.LIMIT, {}

    def paint(self, cells: np.ndarray) -> None:
        """See `Pixels.paint`."""
        cells[1, GRID - 1, self.player] = 255
        for row, column in self.balls:
            cells[0, row, max(0, column - self.REACH) : column + self.REACH + 1] = 255


class Catch(Pixels):
    """A ball falls straight down; be below it when it lands."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(3)

    def begin(self) -> None:
        """See `Pixels.begin`."""
        self.player = GRID // 2
        self.ball = int(self.np_random.integers(GRID))

    def step(self, action: int) -> Step:
        """Move by -1, 0 or 1 and let the ball fall by one row."""
        self.player = int(np.clip(self.player + int(action) - 1, 0, GRID - 1))
        self.steps += 1
        has_landed = self.steps == GRID - 2
        caught = abs(self.ball - self.player) <= 1
        return self.show(), (1.0 if caught else -1.0) if has_landed else 0.0, has_landed, False, {}

    def paint(self, cells: np.ndarray) -> None:
        """See `Pixels.paint`."""
        cells[2, GRID - 1, max(0, self.player - 1) : self.player + 2] = 255
        cells[:2, self.steps, self.ball] = 255


def counter_length(seed: int) -> int:
    """Steps of the counter's episode with this seed: 2 to 9."""
    return 2 + seed % 8


class Counter(gymnasium.Env):
    """Emits what a test of collection and replay needs to know about every row.

    vector = (step, seed % 2^16, seed // 2^16, last action); image channels = step, seed, seed // 256 (mod 256).
    Reward = step number.
    """

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": gymnasium.spaces.Box(0, 255, (3, SIZE, SIZE), np.uint8),
                "vector": gymnasium.spaces.Box(-1.0, 2.0**16, (4,), np.float32),
            }
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Step 0 of the episode `seed`."""
        super().reset(seed=seed)
        self.seed, self.count, self.last = seed or 0, 0, 0.0
        return self._show(), {}

    def step(self, action: np.ndarray) -> Step:
        """Count."""
        self.count, self.last = self.count + 1, float(np.asarray(action).item())
        is_over = self.count >= counter_length(self.seed)
        is_even = self.seed % 2 == 0
        return self._show(), float(self.count), is_over and is_even, is_over and not is_even, {}

    def _show(self) -> dict[str, np.ndarray]:
        image = np.empty((3, SIZE, SIZE), np.uint8)
        image[:] = np.array([self.count, self.seed, self.seed // 256])[:, None, None] % 256
        vector = (self.count, self.seed % 2**16, self.seed // 2**16, self.last)
        return {"image": image, "vector": np.array(vector, np.float32)}


TOYS: dict[str, type[gymnasium.Env]] = {"dodge": Dodge, "catch": Catch, "counter": Counter}
