"""Rules about the world as an environment: `DreamEnv` keeps to its spaces and to its seed."""

from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from oneiro.envs.dream import DreamEnv
from oneiro.errors import OneiroError
from oneiro.testing.case import Case
from oneiro.testing.checks import violated
from oneiro.types import Carry

ENVS, HORIZON, STEPS = 3, 3, 7
MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)


def is_an_environment(case: Case) -> None:
    """Observations, rewards and ends are what the spaces say, whichever rows begin again."""
    for mode in MODES:
        env = dream_of(case, mode)
        for name, (obs, reward, terminated, truncated, infos) in play(env, seed=0):
            if obs not in env.observation_space:
                found = f"{obs.dtype} {list(obs.shape)}"
                violated(f"{mode.value}, {name}: {found} is not in {env.observation_space}, or not finite")
            if not np.isfinite(reward).all():
                violated(f"{mode.value}, {name}: a reward is not finite")
            for i in infos.get("_final_obs", np.zeros(0)).nonzero()[0]:
                if infos["final_obs"][i] not in env.single_observation_space:
                    violated(f"{mode.value}, {name}: final_obs is not in {env.single_observation_space}")
            if (terminated & truncated).any() or (env.steps > HORIZON).any():
                violated(f"{mode.value}, {name}: a dream goes on past its end")


def repeats_as_an_environment(case: Case) -> None:
    """The same seed and actions, the same dream; what others do with the world in between does not matter."""
    env, other = dream_of(case, AutoresetMode.SAME_STEP), dream_of(case, AutoresetMode.SAME_STEP)
    first = play(env, seed=5)
    play(other, seed=6)
    for (name, a), (_, b) in zip(first, play(env, seed=5), strict=True):
        if not data_equivalence(a, b):
            violated(f"the same seed and actions give another {name}")


def dream_of(case: Case, mode: AutoresetMode) -> DreamEnv:
    """A dream from the states after a batch, as pictures where the world can draw."""
    starts = Carry(state=case.absorb(case.batch()))
    try:
        return DreamEnv(case.world, starts, ENVS, HORIZON, autoreset_mode=mode)
    except OneiroError:
        return DreamEnv(case.world, starts, ENVS, HORIZON, sees="feature", autoreset_mode=mode)


def play(env: DreamEnv, seed: int) -> list[tuple[str, tuple[Any, ...]]]:
    """(name, what arrived) of a few steps; row 1 begins again early, so that rows end at different times."""
    env.action_space.seed(seed)
    env.reset(seed=seed)
    arrived = []
    for t in range(STEPS):
        arrived.append((f"step {t + 1}", env.step(env.action_space.sample())))
        if t == 0:
            env.reset(options={"reset_mask": np.arange(ENVS) == 1})
    return arrived
