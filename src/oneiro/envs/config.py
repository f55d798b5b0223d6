"""`EnvConfig`: what every environment's config has, and how it becomes a vector environment."""

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal

from oneiro.errors import MissingExtra

if TYPE_CHECKING:
    import gymnasium

    from oneiro.envs.vector import VectorEnv
    from oneiro.spaces import Spaces


@dataclass(frozen=True, kw_only=True)
class EnvConfig(ABC):
    """An environment: which one, how it is shown, and how many are played at once."""

    num: int = 2  # slots: episodes played at the same time
    workers: Literal["async", "sync"] = "async"  # async: in worker processes; sync: in this process
    processes: int = 0  # worker processes among which the slots are divided; 0 = one per core
    timeout: float = 120.0  # seconds after which a worker that does not answer is taken for dead
    max_crashes: int = 5  # crashes of one worker in a row (no episode ended between) that stop the run

    needs: ClassVar[tuple[str, str] | None] = None
    """(package, extra of oneiro) without which there is no such environment."""
    is_playable: ClassVar[bool] = True
    """False for recorded video, of which only observations and actions are known."""

    def __post_init__(self) -> None:
        for name in ("num", "max_crashes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.processes < 0:
            raise ValueError(f"processes must be 0 (one per core) or more, got {self.processes}")
        if self.timeout <= 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {self.timeout}")

    @abstractmethod
    def env(self) -> "gymnasium.Env":
        """One environment with a Dict of named modalities; called in the worker process."""

    @abstractmethod
    def describe(self) -> str:
        """The protocol in one line: name, frame skip, picture, cap, what a score counts."""

    @property
    def frames_per_step(self) -> int:
        """Frames of the game that pass in a step of the agent, for logs that count frames (action repeat)."""
        return 1

    @property
    def steps_per_second(self) -> float:
        """Steps of the agent in a second of the game, the frame rate of films of it; 0 if nobody knows."""
        return 0.0

    @property
    def longest(self) -> int:
        """Steps of the agent after which an episode ends at the latest; 0 if nobody knows."""
        return 0

    @property
    def benchmark(self) -> str:
        """The task as scores are published under it, "suite/task"; "" if there are none."""
        return ""

    def make(self, num: int | None = None) -> "VectorEnv":
        """`num` environments (default: the field) behind one vector interface; close it after use."""
        from oneiro.envs.vector import VectorEnv

        self.require()
        return VectorEnv(self, num)

    def spaces(self) -> "Spaces":
        """What a world is shown and what it can do; opens the environment unless a config knows it."""
        from oneiro.spaces import Spaces

        self.require()
        env = self.env()
        try:
            return Spaces.of(env)
        finally:
            env.close()

    def require(self) -> None:
        """Raise MissingExtra unless the package this environment needs is installed."""
        if self.needs and importlib.util.find_spec(self.needs[0]) is None:
            raise MissingExtra(*self.needs)


HOW_IT_RUNS = tuple(field.name for field in fields(EnvConfig))
"""Fields that every environment has. No episode depends on them."""


def check_image(size: int, rows: tuple[int, int], height: int) -> None:
    """Raise ValueError unless `rows` lie in a picture of `height` and the resized one has a positive `size`."""
    if size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    if len(rows) != 2 or not 0 <= rows[0] < rows[1] <= height:
        raise ValueError(
            f"rows must be (first, last + 1) within 0..{height}, the height of the screen, got {rows}"
        )
