"""One episode as arrays of arrival rows, as it is collected and as it is read back from the store."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oneiro.errors import OneiroError


@dataclass(kw_only=True)
class Episode:
    """T arrival rows of one episode; axis 0 of every array is time.

    Row 0 is the reset row: its action and reward are zero. A piece of an episode (see `EpisodeStore.read`)
    has the same form, with `start` > 0.
    """

    id: int
    """Position in the order of collection; the env seed and the policy's key derive from it."""
    obs: dict[str, np.ndarray]
    """By modality: "image" uint8 [T, C, H, W], "vector" float32 [T, D]."""
    action: np.ndarray
    """[T, A] float32 in the world's codec; the action that led to the row."""
    reward: np.ndarray
    """[T] float32."""
    terminated: np.ndarray
    """[T] bool."""
    info: dict[str, Any] = field(default_factory=dict)
    """Anything JSON can hold: seed, policy, truncated, crashed, ..."""
    memo: dict[str, np.ndarray] = field(default_factory=dict)
    """[T, ...] by name: what a world stored beside each row."""
    start: int = 0
    """Row of the whole episode at which this piece begins."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def score(self) -> float:
        """Sum of rewards."""
        return float(self.reward.sum(dtype=np.float64))

    @property
    def is_first(self) -> np.ndarray:
        """[T] bool, True at row 0 of the episode."""
        return np.arange(self.start, self.start + len(self)) == 0

    def columns(self) -> dict[str, np.ndarray]:
        """Every array but the memo by its stored name: "action", "reward", "terminated", "obs/image", ..."""
        columns = {f"obs/{name}": array for name, array in self.obs.items()}
        return columns | {"action": self.action, "reward": self.reward, "terminated": self.terminated}

    def check(self) -> "Episode":
        """Return self, or raise OneiroError if lengths or types disagree or a number is not finite."""
        if not len(self):
            raise OneiroError(f"episode {self.id} has no rows; an episode has at least its reset row")
        wanted = {"action": (2, np.float32), "reward": (1, np.float32), "terminated": (1, np.bool_)}
        for name, array in (
            self.columns() | {f"memo/{key}": value for key, value in self.memo.items()}
        ).items():
            if len(array) != len(self):
                raise OneiroError(
                    f"episode {self.id}: {name!r} has {len(array)} rows but there are {len(self)} rewards; "
                    "every array needs one row per arrival"
                )
            if name in wanted and (array.ndim, array.dtype) != wanted[name]:
                ndim, dtype = wanted[name]
                raise OneiroError(
                    f"episode {self.id}: {name!r} is {array.dtype} with {array.ndim} axes; "
                    f"convert it to {np.dtype(dtype)} with {ndim}"
                )
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0][0])
                raise OneiroError(
                    f"episode {self.id}: {name!r} is not finite at row {row}; the environment or the policy "
                    "returned NaN or infinity, mend it there"
                )
        return self
