"""MiniGrid and BabyAI: small rooms with keys, doors and balls (extra `minigrid`)."""

import os
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np

from oneiro.envs.config import EnvConfig
from oneiro.envs.gym import find
from oneiro.errors import MissingExtra, OneiroError
from oneiro.onehot import OneHot

CELLS = 7  # along a side of what the agent sees
KINDS, COLOURS, STATES = 11, 6, 3  # objects, colours and states (of doors) a cell may show


@dataclass(frozen=True, kw_only=True)
class MiniGridConfig(EnvConfig):
    """A room by its id.

    Protocol: 7 actions (left, right, forward, pick up, drop, toggle, done); reward 1 - 0.9 t/T at the goal, else 0,
    T = the limit of the id; terminated at the goal (or in lava), truncated after T steps; score = sum of rewards.

    `partial`: a picture of the 7 x 7 cells before the agent. `full`: a picture of the whole grid. Cells are as large
    as fits, around them is black (64 pixels: 9 a cell, 63 of 64). `symbolic`: the 7 x 7 cells as numbers, one-hot
    kind, colour and state of each in "vector" [980], and "direction", the compass as a category.

    The text of a mission is not shown. Where it varies, as in BabyAI, the agent cannot know what is wanted.
    """

    id: str = "MiniGrid-Empty-5x5-v0"  # as MiniGrid registers it
    shows: Literal["partial", "full", "symbolic"] = "partial"  # what the agent sees
    size: int = 64  # side of the picture, pixels
    max_steps: int = 0  # truncate after so many steps; 0 = the limit of the id

    needs: ClassVar = ("minigrid", "minigrid")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shows not in ("partial", "full", "symbolic"):
            raise ValueError(f"shows must be partial, full or symbolic, got {self.shows!r}")
        if self.size < CELLS:
            raise ValueError(f"size must be at least {CELLS} pixels, one for each cell, got {self.size}")
        if self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative, got {self.max_steps}")

    def require(self) -> None:
        """MissingExtra without minigrid; OneiroError for an id it does not have."""
        super().require()
        _find(self.id)

    def env(self) -> gymnasium.Env:
        """See `EnvConfig.env`."""
        return MiniGrid(self)

    def describe(self) -> str:
        """See `EnvConfig.describe`."""
        shown = "symbols" if self.shows == "symbolic" else f"{self.shows} {self.size}x{self.size} RGB"
        limit = f"at most {self.max_steps:,} steps, " if self.max_steps else ""
        return f"MiniGrid {self.id}, {shown}, {limit}score = 1 - 0.9 t/T at the goal"


class MiniGrid(gymnasium.Env):
    """One room."""

    def __init__(self, config: MiniGridConfig) -> None:
        self.config = config
        limit = {"max_steps": config.max_steps} if config.max_steps else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            engine = gymnasium.make(_find(config.id), disable_env_checker=True, **limit)
        self.engine: Any = engine.unwrapped
        self.action_space = self.engine.action_space
        spaces: dict[str, gymnasium.Space]
        if config.shows == "symbolic":
            size = CELLS * CELLS * (KINDS + COLOURS + STATES)
            spaces = {"vector": gymnasium.spaces.Box(0, 1, (size,), np.float32), "direction": OneHot(4)}
        else:
            spaces = {"image": gymnasium.spaces.Box(0, 255, (3, config.size, config.size), np.uint8)}
        self.observation_space = gymnasium.spaces.Dict(spaces)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """A new room; the same for the same seed."""
        obs, info = self.engine.reset(seed=seed)
        return self._show(obs), info

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One action."""
        obs, reward, terminated, truncated, info = self.engine.step(action)
        return self._show(obs), float(reward), bool(terminated), bool(truncated and not terminated), info

    def close(self) -> None:
        """Close the room."""
        self.engine.close()

    def _show(self, obs: dict[str, Any]) -> dict[str, np.ndarray]:
        if self.config.shows == "symbolic":
            kind, colour, state = np.moveaxis(obs["image"], -1, 0)
            cells = [np.eye(n)[x] for x, n in ((kind, KINDS), (colour, COLOURS), (state, STATES))]
            vector = np.concatenate(cells, -1).astype(np.float32).reshape(-1)
            return {"vector": vector, "direction": OneHot(4).row(int(obs["direction"]))}
        size, is_partial = self.config.size, self.config.shows == "partial"
        cells = CELLS if is_partial else max(self.engine.width, self.engine.height)
        if size < cells:
            raise OneiroError(f"{self.config.id} has {cells} cells along a side; set size to at least that")
        frame = self.engine.get_frame(tile_size=size // cells, agent_pov=is_partial)
        image = np.zeros((3, size, size), np.uint8)
        height, width = frame.shape[:2]
        top, left = (size - height) // 2, (size - width) // 2
        image[:, top : top + height, left : left + width] = frame.transpose(2, 0, 1)
        return {"image": image}


def _find(id: str) -> Any:
    """The registered spec; OneiroError with the nearest one."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import minigrid  # noqa: F401 - registers the rooms
    except ImportError:
        raise MissingExtra("minigrid", "minigrid") from None
    return find(id.removeprefix("minigrid:"))
