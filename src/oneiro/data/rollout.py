"""`Rollout`: every slot of a vector environment gives one row a turn, episode after episode, without end.

    send(action)      slots in the middle of an episode step, the others begin one; a thread may do it meanwhile
    receive()         the rows that arrived

The environment and its seeds decide the rows; how fast anything is does not. Episode k of the run begins with the seed
that `episode_seeds` gives for k, like everywhere else.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from torch import Tensor

from oneiro.data.collect import episode_seeds
from oneiro.spaces import ActionCodec
from oneiro.types import TimeStep

POLL = 0.5  # seconds between two looks whether a run that waits for its environment was asked to stop


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An episode that has ended."""

    id: int
    score: float
    length: int
    """Decisions, the reset not counted."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One row of every slot."""

    obs: dict[str, np.ndarray]
    """[N, ...]."""
    action: np.ndarray
    """[N, A] float32; what led here."""
    reward: np.ndarray
    """[N] float32."""
    is_first: np.ndarray
    """[N] bool."""
    terminated: np.ndarray
    """[N] bool: what the row is marked with."""
    last: np.ndarray
    """[N] bool: the episode ends with this row."""
    arrived: np.ndarray
    """[N] bool; False: the environment died and there is no row. An episode begins in this slot next turn."""
    ids: np.ndarray
    """[N] int64: which episode the row belongs to."""
    ended: list[Ended]

    def columns(self) -> dict[str, np.ndarray]:
        """As `Replay.append` takes them."""
        return {f"obs/{k}": x for k, x in self.obs.items()} | {"action": self.action, "reward": self.reward}

    def step(self, device: torch.device) -> TimeStep:
        """The rows as a step [N]; those that did not arrive are masked."""
        return TimeStep(
            obs={name: torch.from_numpy(x).to(device) for name, x in self.obs.items()},
            action=torch.from_numpy(self.action).to(device),
            reward=torch.from_numpy(self.reward).to(device),
            is_first=torch.from_numpy(self.is_first).to(device),
            terminated=torch.from_numpy(self.terminated).to(device),
            mask=torch.from_numpy(self.arrived).to(device),
        )


class Rollout:
    """Plays in all slots of `env`. Every slot begins an episode with the first turn.

    `begun` is the id of the first episode, `stride` the step from one id to the next. With `overlap` a thread waits
    for the environment between `send` and `receive`, which pays where it runs in other processes; otherwise
    `receive` does everything.
    """

    def __init__(
        self,
        env: gymnasium.vector.VectorEnv,
        *,
        seed: int,
        begun: int = 0,
        stride: int = 1,
        overlap: bool = True,
    ) -> None:
        self.env, self.seed, self.begun, self.stride = env, seed, begun, stride
        self.codec = ActionCodec.of(env.single_action_space)
        count = env.num_envs
        self._idle = env.action_space.sample() * 0  # for slots that begin an episode
        self._begins = np.ones(count, np.bool_)
        self._ids = np.full(count, -1, np.int64)
        self._score, self._length = np.zeros(count), np.zeros(count, np.int64)
        self._thread = ThreadPoolExecutor(1, "environments") if overlap else None
        self._job: Callable[[], Turn] | None = None
        self._future: Future[Turn] | None = None

    def send(self, action: Tensor | None) -> None:
        """Begin a turn: `action` [N, A] for the slots that are in an episode (None if none is)."""
        assert self._job is None, "receive() the turn before first"
        told = self._idle if action is None else self.codec.to_env(action).reshape(self._idle.shape)
        assert action is not None or self._begins.all()
        self._job = lambda: self._play(told)
        self._future = self._thread.submit(self._job) if self._thread else None

    def receive(self, meanwhile: Callable[[], None] = lambda: None) -> Turn:
        """The rows of the turn; `meanwhile` is called twice a second as long as it takes (it may raise)."""
        assert self._job is not None, "send() first"
        while self._future is not None:
            try:
                turn = self._future.result(POLL)
                break
            except NotYet:
                if self._future.done():  # it answered just now, or the environment itself raised this
                    turn = self._future.result()
                    break
                meanwhile()
        else:
            turn = self._job()
        self._job = self._future = None
        return turn

    def close(self) -> None:
        """Wait for the turn that is being played."""
        if self._thread is not None:
            self._thread.shutdown()

    def _play(self, told: np.ndarray) -> Turn:
        begins, count = self._begins, len(self._begins)
        reward, action = np.zeros(count, np.float32), np.zeros((count, self.codec.dim), np.float32)
        terminated, last, crashed = (np.zeros(count, np.bool_) for _ in range(3))
        obs: dict[str, np.ndarray] = {}
        if not begins.all():
            obs, found, over, cut, info = self.env.step(told)
            crashed = info["crashed"] & ~begins
            goes = ~begins & ~crashed
            reward[goes], action[goes] = found[goes], np.asarray(self.codec.from_env(told))[goes]
            terminated, last = info["terminal"] & goes, (over | cut) & goes
        if begins.any():
            seeds = np.zeros(count, np.int64)
            for slot in np.flatnonzero(begins).tolist():
                self._ids[slot], seeds[slot] = self.begun, episode_seeds(self.seed, self.begun)[0]
                self.begun += self.stride
            self._score[begins], self._length[begins] = 0.0, -1
            obs = self.env.reset_rows(begins, seeds)  # pyright: ignore[reportAttributeAccessIssue]
        self._score += reward
        self._length += ~crashed
        self._begins = last | crashed
        return Turn(
            obs=obs,
            action=action,
            reward=reward,
            is_first=begins,
            terminated=terminated,
            last=last,
            arrived=~crashed,
            ids=self._ids.copy(),
            ended=[
                Ended(id=int(self._ids[i]), score=float(self._score[i]), length=int(self._length[i]))
                for i in np.flatnonzero(last).tolist()
            ],
        )
