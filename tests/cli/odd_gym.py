"""Environments that DreamerV3 cannot take, registered with Gymnasium."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Odd(gymnasium.Env):
    def __init__(self, obs: gymnasium.Space, action: gymnasium.Space) -> None:
        self.observation_space, self.action_space = obs, action

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


VECTOR = Box(-1, 1, (3,), np.float32)
for name, obs, action in (
    ("Unbounded", VECTOR, Box(-np.inf, np.inf, (2,), np.float32)),
    ("FloatPicture", Box(0, 1, (64, 64, 3), np.float32), Discrete(2)),
    ("Picture", Box(0, 255, (64, 64, 3), np.uint8), Discrete(2)),
):
    gymnasium.register(f"{name}-v0", lambda obs=obs, action=action: Odd(obs, action))
