"""`History`: the frames of one session, of which the oldest are let go when they take too much memory."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oneiro import tree
from oneiro.envs.dice import Dice
from oneiro.types import Carry


@dataclass(frozen=True, kw_only=True)
class LaneFrame:
    """What one world dreamed at one time, and everything needed to go on from there."""

    carry: Carry
    dice: Dice
    picture: np.ndarray
    """uint8 [H, W, 3]."""
    reward: float = 0.0
    cont: float = 1.0
    value: float | None = None
    ended: bool = False
    milliseconds: float = 0.0

    @property
    def nbytes(self) -> int:
        """Memory it keeps, views counted with all they are views of."""
        storages = {
            leaf.untyped_storage().data_ptr(): leaf.untyped_storage() for leaf in tree.leaves(self.carry)
        }
        return self.picture.nbytes + self.dice.nbytes + sum(s.nbytes() for s in storages.values())


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One time of a session: a frame of every dream, by the same action."""

    number: int
    """Imagined steps since the start."""
    lanes: tuple[LaneFrame, ...]
    action: tuple[float, ...] | None = None
    """What led here, as the environment takes it; None at the start."""
    by_agent: bool = False
    real: Any = field(default=None)
    """What the real game showed, if it is played beside: `real.Shown`."""

    @property
    def nbytes(self) -> int:
        """Memory it keeps."""
        return sum(lane.nbytes for lane in self.lanes) + (self.real.picture.nbytes if self.real else 0)


class History:
    """Frames in order, numbered without gaps, at most `limit` bytes; the one last added is always kept."""

    def __init__(self, limit: int) -> None:
        self.limit, self.nbytes = limit, 0
        self._frames: deque[Frame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> Frame:
        """By number; KeyError if it is not kept."""
        if not self._frames or not self.first <= number <= self.last:
            raise KeyError(number)
        return self._frames[number - self.first]

    @property
    def first(self) -> int:
        """Number of the oldest frame kept."""
        return self._frames[0].number

    @property
    def last(self) -> int:
        """Number of the newest."""
        return self._frames[-1].number

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self.nbytes = 0

    def append(self, frame: Frame) -> None:
        """Frames from this number on are forgotten, then the oldest, as far as needed."""
        while self._frames and self.last >= frame.number:
            self.nbytes -= self._frames.pop().nbytes
        self._frames.append(frame)
        self.nbytes += frame.nbytes
        self._let_go(frame.number)

    def replace(self, frame: Frame) -> None:
        """Another frame in the place of the one with its number; what follows stays. KeyError if none is kept there.

        If it takes too much memory, the oldest are forgotten, then the newest, but never this one.
        """
        self.nbytes += frame.nbytes - self[frame.number].nbytes
        self._frames[frame.number - self.first] = frame
        self._let_go(frame.number)

    def _let_go(self, kept: int) -> None:
        while self.nbytes > self.limit and self.first < kept:
            self.nbytes -= self._frames.popleft().nbytes
        while self.nbytes > self.limit and self.last > kept:
            self.nbytes -= self._frames.pop().nbytes
