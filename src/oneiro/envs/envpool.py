"""Environments of EnvPool (C++, extra `envpool`), one at a time.

EnvPool seeds an environment when it is made and then resets it by itself. So that an episode is a function of its
seed, every episode gets a pool of one (5 to 15 ms, track or level included); the workers of `VectorEnv` play them in
parallel.
"""

import warnings
from typing import Any

import gymnasium
import numpy as np

NEVER = 10**9  # steps; the time limit is kept by the caller


class Pooled(gymnasium.Env):
    """One environment by its id, shown as it is; after an episode has ended it must be reset."""

    def __init__(self, id: str, **options: Any) -> None:
        self.id, self.options = id, options
        self._pool: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode; the same for the same seed."""
        import envpool

        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31)) if seed is None else seed % 2**31
        self.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the precision of bounds
            self._pool = envpool.make_gymnasium(  # pyright: ignore[reportAttributeAccessIssue]
                self.id, num_envs=1, num_threads=1, seed=chosen, **self.options
            )
            obs, _ = self._pool.reset()
        return obs[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step; the action as the pool takes it."""
        obs, reward, terminated, truncated, _ = self._pool.step(np.asarray(action)[None])
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        """Let the pool go."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
