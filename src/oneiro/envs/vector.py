"""`VectorEnv`: several environments behind one interface, with explicit resets and workers that may crash.

    obs = env.reset_rows(mask, seeds)                                 # begin episodes in these slots
    obs, reward, terminated, truncated, info = env.step(actions)      # slots whose episode has ended stay idle

It is Gymnasium's interface in its autoreset mode DISABLED (`reset(seed=..., options={"reset_mask": ...})` works
too). Every array is a copy. `info["crashed"]` [N] marks episodes whose environment or worker died: they end as
truncated, with the last observation repeated and reward 0, and the worker is started again. `info["terminal"]`
[N] is what the row is to be marked with: `terminated`, unless the environment says otherwise (a lost life that is
to be learnt as an end, while the game goes on).
"""

import logging
import mmap
import os
import tempfile
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from oneiro.envs.config import EnvConfig
from oneiro.envs.slots import Layout
from oneiro.envs.worker import LocalWorker, ProcessWorker, WorkerDied
from oneiro.errors import OneiroError

logger = logging.getLogger("oneiro")


class VectorEnv(gymnasium.vector.VectorEnv):
    """`num` environments of one config, divided among workers."""

    def __init__(self, config: EnvConfig, num: int | None = None) -> None:
        self._workers, self._memory = [], -1
        self.config = config
        self.num_envs = config.num if num is None else num
        if self.num_envs < 1:
            raise ValueError(f"num must be at least 1, got {self.num_envs}")
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self._running = np.zeros(self.num_envs, bool)
        self._lost: dict[int, str] = {}  # running slots whose worker has died meanwhile
        self._memory = _anonymous_file()
        count = min(self.num_envs, config.processes or _cores()) if config.workers == "async" else 1
        self._workers = [
            ProcessWorker(config, self._memory) if config.workers == "async" else LocalWorker(config)
            for _ in range(count)
        ]
        self._worker_of = np.arange(self.num_envs) * count // self.num_envs
        self._crashes = [0] * count
        try:
            self._meet()
        except BaseException:
            self.close()
            raise

    def _meet(self) -> None:
        """Learn the spaces from the first worker and lay out the arrays."""
        while True:
            try:
                self._workers[0].send("spaces", 0)
                obs, action = self._workers[0].receive()
                break
            except WorkerDied as death:
                self._note_crash(0, str(death), "while the environment was opened")
        self.single_observation_space, self.single_action_space = obs, action
        self.observation_space = batch_space(obs, self.num_envs)
        self.action_space = batch_space(action, self.num_envs)
        layout = Layout.of(self.num_envs, obs, action)
        os.ftruncate(self._memory, layout.nbytes)
        block = mmap.mmap(self._memory, layout.nbytes)
        self._arrays = layout.arrays(block)
        for worker in self._workers:
            worker.use(layout, block)

    @property
    def running(self) -> np.ndarray:
        """[N] bool: slots in the middle of an episode."""
        return self._running.copy()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Gymnasium's reset; `options={"reset_mask": bool [N]}` resets some slots. An int seeds slot i with +i."""
        mask = np.ones(self.num_envs, bool) if options is None else np.asarray(options["reset_mask"], bool)
        given = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        fresh = np.random.SeedSequence().generate_state(self.num_envs) >> 1
        seeds = [fresh[i] if given is None or (s := given[i]) is None else s for i in range(self.num_envs)]
        return self.reset_rows(mask, np.array(seeds)), {"crashed": np.zeros(self.num_envs, bool)}

    def reset_rows(self, mask: np.ndarray, seeds: np.ndarray) -> dict[str, np.ndarray]:
        """Begin the episode of `seeds` [N] in every slot of `mask` [N]; returns the observations of all slots."""
        todo = {int(slot): int(seeds[slot]) for slot in np.flatnonzero(mask)}
        self._running[list(todo)] = False
        for slot in todo:
            self._lost.pop(slot, None)
        while todo:
            failed = self._run("reset", todo)
            self._running[[slot for slot in todo if slot not in failed]] = True
            todo = {slot: todo[slot] for slot in failed}
        return self._observations()

    def step(
        self, actions: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step in every running slot; the others return their last observation and zeros."""
        arrays = self._arrays
        arrays["action"][:] = np.asarray(actions).reshape(arrays["action"].shape)
        for name in ("reward", "terminated", "truncated", "terminal"):
            arrays[name][~self._running] = 0
        crashed = np.zeros(self.num_envs, bool)
        failed = self._run("step", {int(slot): 0 for slot in np.flatnonzero(self._running)})
        for slot in failed:
            crashed[slot] = arrays["truncated"][slot] = True
            arrays["reward"][slot], arrays["terminated"][slot], arrays["terminal"][slot] = 0.0, False, False
        ended = arrays["terminated"] | arrays["truncated"]
        for slot in np.flatnonzero(ended & ~crashed):
            self._crashes[self._worker_of[slot]] = 0
        self._running &= ~ended
        reward, terminated, truncated = (arrays[k].copy() for k in ("reward", "terminated", "truncated"))
        info = {"crashed": crashed, "terminal": arrays["terminal"].copy()}
        return self._observations(), reward, terminated, truncated, info

    def close_extras(self, **_: Any) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _observations(self) -> dict[str, np.ndarray]:
        named = self.single_observation_space
        assert isinstance(named, gymnasium.spaces.Dict)
        return {key: self._arrays[f"obs/{key}"].copy() for key in named}

    def _run(self, command: str, slots: dict[int, int]) -> dict[int, str]:
        """All workers carry out `command` at the same time; returns {slot: reason} where it failed."""
        failed = {slot: self._lost.pop(slot) for slot in slots if slot in self._lost}
        jobs = {}
        for index in range(len(self._workers)):
            mine = {s: v for s, v in slots.items() if self._worker_of[s] == index and s not in failed}
            if mine:
                jobs[index] = mine
        dead = {}
        for index, mine in jobs.items():
            try:
                self._workers[index].send(command, mine)
            except WorkerDied as death:
                dead[index] = str(death)
        for index in jobs.keys() - dead.keys():
            try:
                broken = self._workers[index].receive()
            except WorkerDied as death:
                dead[index] = str(death)
                continue
            for slot, reason in broken.items():
                self._note_crash(index, reason, f"in slot {slot}")
            failed |= broken
        for index, how in dead.items():
            self._note_crash(index, how, "and is started again")
            failed |= {slot: how for slot in jobs[index]}
            bystanders = np.flatnonzero(self._running & (self._worker_of == index))
            self._lost |= {int(slot): how for slot in bystanders if int(slot) not in jobs[index]}
        return failed

    def _note_crash(self, index: int, reason: str, where: str) -> None:
        self._crashes[index] += 1
        count, limit = self._crashes[index], self.config.max_crashes
        name = type(self.config).__name__
        if count >= limit:
            raise OneiroError(
                f"{name}: environment worker {index} crashed {count} times in a row; mend the environment, or "
                f"raise max_crashes (now {limit}). The last time:\n{reason.strip()}"
            )
        logger.warning("%s: environment worker %d crashed %s: %s", name, index, where, reason.strip())


def _anonymous_file() -> int:
    """Descriptor of a file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("oneiro")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
