"""Environments that misbehave on purpose. A module of its own, so that worker processes can import it."""

import os
import time
from dataclasses import dataclass

import numpy as np

from oneiro.envs.config import EnvConfig
from oneiro.envs.toy import Counter


@dataclass(frozen=True, kw_only=True)
class FaultyConfig(EnvConfig):
    """A counter that does `fault` at step `at` of episodes whose seed is a multiple of `every`."""

    fault: str = ""  # which
    at: int = 2  # step; 0 = reset
    every: int = 1
    marker: str = ""  # file that a fault leaves; while it is there, there are no faults

    def env(self):
        return Faulty(self)

    def describe(self):
        return f"counter with fault {self.fault}"


class Faulty(Counter):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        if self.config.at == 0:
            self._misbehave(obs)
        return obs, info

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if self.count == self.config.at:
            reward = self._misbehave(obs) or reward
            if (
                self.config.fault == "terminal"
            ):  # no fault: a row to be learnt as an end, though the game goes on
                info = info | {"terminal": True}
        return obs, reward, terminated, truncated, info

    def _misbehave(self, obs):
        config = self.config
        if self.seed % config.every:
            return None
        if config.marker:
            if os.path.exists(config.marker):
                return None
            open(config.marker, "w").close()
        match config.fault:
            case "raise":
                raise RuntimeError(f"the dice of seed {self.seed} fell off the table")
            case "kill":
                os.kill(os.getpid(), 9)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(600)
            case "nan":
                obs["vector"][1] = np.nan
            case "bounds":
                obs["vector"][1] = -7.0
            case "dtype":
                obs["vector"] = obs["vector"].astype(np.float64)
            case "shape":
                obs["image"] = obs["image"][:, :32]
            case "missing":
                del obs["image"]
            case "reward":
                return float("nan")
            case "no reward":
                return "plenty"
        return None
