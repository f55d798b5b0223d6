"""`play`: the only loop over real environments. Collection, evaluation and evolution in the real game all use it.

An episode is a function of (seed, its id, the agent): its environment seed and its behaviour's key derive from
them, so the same episodes come out with any number of slots and workers, only in another order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import gymnasium
import numpy as np
import optree
import torch
from torch import Tensor

from oneiro import tree
from oneiro.agent import Agent
from oneiro.data.episodes import Episode
from oneiro.spaces import ActionCodec
from oneiro.types import Carry, State, TimeStep


def play(
    env: gymnasium.vector.VectorEnv,
    agent: Agent,
    ids: Iterable[int],
    *,
    seed: int,
    explore: bool = False,
    record: bool = True,
    memory: Callable[[Tensor], State] | None = None,
    on_step: Callable[[int], None] | None = None,
    seed_ids: Sequence[int] | None = None,
) -> Iterator[Episode]:
    """Play the episodes `ids` of `seed` and yield each when it ends, in order of their ends.

    `env` is a vector environment of `oneiro.envs` (explicit resets). Each slot takes the next id when it is free;
    slots for which none is left drop out of the batch. `record=False` keeps no observations. `memory(ids [B])`
    is the behaviour's memory at the start of these episodes (default: `behaviour.memory`). `on_step(n)` is called
    after each step of the batch with the number of environment steps made. `seed_ids` are the ids from which
    seeds and keys derive (default: `ids`), one for each of `ids`: equal ones share their random numbers.

    `Episode.info`: seed (of the environment), truncated, crashed, score (sum of rewards), length (steps). A
    crashed episode ends with the last row that arrived.
    """
    waiting = iter(zip(ids, ids if seed_ids is None else seed_ids, strict=True))
    loop = _Loop(env, agent, seed, record, memory)
    loop.begin(range(env.num_envs), waiting)
    while loop.slots:
        ended = loop.step(explore)
        if on_step is not None:
            on_step(len(loop.slots) - sum(part.crashed for part in ended.values()))
        loop.begin(ended, waiting)
        for part in ended.values():
            yield part.finish()


def episode_seeds(seed: int, id: int) -> tuple[int, int]:
    """(seed of the environment, 31 bits; key of the behaviour, 63 bits) of episode `id`."""
    first, second = np.random.SeedSequence([seed, id]).generate_state(2, np.uint64)
    return int(first >> np.uint64(33)), int(second >> np.uint64(1))


@dataclass(kw_only=True)
class _Part:
    """An episode while it is played."""

    id: int
    seed: int
    key: int
    record: bool
    obs: dict[str, list[np.ndarray]] = field(default_factory=dict)
    action: list[np.ndarray] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    truncated: bool = False
    crashed: bool = False

    def add(self, obs: dict[str, np.ndarray], action: np.ndarray, reward: float, terminated: bool) -> None:
        if self.record:
            for name, value in obs.items():
                self.obs.setdefault(name, []).append(value.copy())
        self.action.append(action)
        self.reward.append(reward)
        self.terminated.append(terminated)

    def finish(self) -> Episode:
        reward = np.array(self.reward)
        return Episode(
            id=self.id,
            obs={name: np.stack(rows) for name, rows in self.obs.items()},
            action=np.stack(self.action).astype(np.float32),
            reward=reward.astype(np.float32),
            terminated=np.array(self.terminated, bool),
            info={
                "seed": self.seed,
                "truncated": self.truncated,
                "crashed": self.crashed,
                "score": float(reward.sum()),
                "length": len(reward) - 1,
            },
        )


class _Loop:
    """Slots, their episodes and the agent's carry; row i of the batch is `slots[i]`."""

    def __init__(
        self,
        env: gymnasium.vector.VectorEnv,
        agent: Agent,
        seed: int,
        record: bool,
        memory: Callable[[Tensor], State] | None,
    ) -> None:
        self.env, self.agent, self.seed, self.record = env, agent, seed, record
        self.memory = memory or (lambda ids: agent.behaviour.memory(len(ids)))
        self.codec = ActionCodec.of(env.single_action_space)
        self.is_blind = agent.behaviour.sees == "nothing"
        tensors = chain(() if self.is_blind else agent.world.parameters(), agent.behaviour.buffers())
        self.device = next((x.device for x in tensors), torch.device("cpu"))
        self.slots = list(range(env.num_envs))
        self.parts: dict[int, _Part] = {}
        self.carry = agent.start(env.num_envs)
        self.idle = env.action_space.sample() * 0  # an action for slots that do not act
        self.obs: dict[str, np.ndarray] = {}
        self.reward = np.zeros(env.num_envs)
        self.action = np.zeros((env.num_envs, self.codec.dim), np.float32)
        self.fresh = np.zeros(env.num_envs, bool)

    def begin(self, free: Iterable[int], waiting: Iterator[tuple[int, int]]) -> None:
        """Start the next episodes in the free slots; slots without one leave the batch."""
        free = list(free)
        seeds = np.zeros(self.env.num_envs, np.int64)
        for slot in free:
            self.parts.pop(slot, None)
            if (entry := next(waiting, None)) is not None:
                seeds[slot], key = episode_seeds(self.seed, entry[1])
                self.parts[slot] = _Part(id=entry[0], seed=int(seeds[slot]), key=key, record=self.record)
        started = [slot for slot in free if slot in self.parts]
        if len(self.parts) < len(self.slots):
            keep = [i for i, slot in enumerate(self.slots) if slot in self.parts]
            self.carry = tree.take(self.carry, torch.tensor(keep, dtype=torch.long, device=self.device))
            self.slots = [self.slots[i] for i in keep]
        if not started:
            return
        self.fresh[started] = True
        self.reward[started], self.action[started] = 0.0, 0.0
        self.obs = self.env.reset_rows(self.fresh, seeds)  # pyright: ignore[reportAttributeAccessIssue]
        for slot in started:
            self._write(slot, False)

    def step(self, explore: bool) -> dict[int, _Part]:
        """Observe, act, step; returns the episodes that have ended, by slot."""
        self.carry = self.agent.observe(self.carry, self._row())
        self._seat()
        action, self.carry = self.agent.act(self.carry, explore)
        told = self.codec.to_env(action)
        self.action[self.slots] = self.codec.from_env(told)
        actions = self.idle.copy()
        actions[self.slots] = told.reshape(len(told), *actions.shape[1:])
        self.obs, self.reward, terminated, truncated, info = self.env.step(actions)
        crashed = info["crashed"]
        ended = {}
        for slot in self.slots:
            part = self.parts[slot]
            part.truncated, part.crashed = bool(truncated[slot]), bool(crashed[slot])
            if not part.crashed:
                self._write(slot, bool(info["terminal"][slot]))
            if terminated[slot] or truncated[slot]:
                ended[slot] = part
        return ended

    def _write(self, slot: int, terminated: bool) -> None:
        """The row that has just arrived."""
        obs = {name: value[slot] for name, value in self.obs.items()}
        self.parts[slot].add(obs, self.action[slot].copy(), float(self.reward[slot]), terminated)

    def _row(self) -> TimeStep:
        """The newest row of every slot that plays; a blind behaviour is shown nothing."""
        shown = {} if self.is_blind else {name: self._tensor(value) for name, value in self.obs.items()}
        still = torch.zeros(len(self.slots), dtype=torch.bool, device=self.device)
        return TimeStep(
            obs=shown,
            action=self._tensor(self.action),
            reward=self._tensor(self.reward.astype(np.float32)),
            is_first=self._tensor(self.fresh),
            terminated=still,
            mask=~still,
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array[self.slots]).to(self.device)

    def _seat(self) -> None:
        """Give the episodes that begin their memory and their key."""
        rows = [i for i, slot in enumerate(self.slots) if self.fresh[slot]]
        self.fresh[:] = False
        if not rows or not self.carry.memory:
            return
        parts = [self.parts[self.slots[i]] for i in rows]
        fresh = self.memory(torch.tensor([part.id for part in parts]))
        self.carry = seat(self.carry, rows, fresh, [part.key for part in parts])


def seat(carry: Carry, rows: Sequence[int], memory: State, keys: Sequence[int]) -> Carry:
    """The carry in which `rows` begin an episode with this memory of the behaviour, and with these keys."""

    def with_key(path: tuple[Any, ...], x: Tensor) -> Tensor:
        return torch.tensor(keys, device=x.device) if path[-1] == "key" else x

    own: Any = optree.tree_map_with_path(with_key, memory, namespace=tree.NAMESPACE)  # pyright: ignore[reportArgumentType]
    index = torch.tensor(rows, device=tree.leaves(carry.memory)[0].device)
    return Carry(state=carry.state, memory=tree.put(carry.memory, index, own))
