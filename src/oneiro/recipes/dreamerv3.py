"""DreamerV3 on Atari, control, Crafter, MiniGrid, VizDoom and any environment of Gymnasium."""

from dataclasses import dataclass
from typing import Any, Literal

from oneiro.behaviours.actor_critic import ActorCriticConfig
from oneiro.behaviours.explore import HeldRandom
from oneiro.data.replayed import Replayed
from oneiro.envs.atari import AtariConfig
from oneiro.envs.crafter import CrafterConfig
from oneiro.envs.dmc import DMCConfig
from oneiro.envs.gym import GymConfig
from oneiro.envs.minigrid import MiniGridConfig
from oneiro.envs.vizdoom import VizDoomConfig
from oneiro.evaluation.stage import Evaluate, Rival
from oneiro.recipes import recipe
from oneiro.training.fit import Fit, Group
from oneiro.training.laprop import LaProp
from oneiro.training.online import Online
from oneiro.training.recipe import DataConfig, Recipe
from oneiro.worlds.dreamerv3 import DreamerV3Config

Size = Literal["200m", "1m", "12m", "25m", "50m", "100m", "400m", "cpu", "smoke"]
SizeSmallFirst = Literal["1m", "12m", "25m", "50m", "100m", "200m", "400m", "cpu", "smoke"]
SizeMiddleFirst = Literal["12m", "1m", "25m", "50m", "100m", "200m", "400m", "cpu", "smoke"]


@dataclass(frozen=True, kw_only=True)
class DreamerSchedule:
    """Live, remember and learn at once; then play."""

    online: Online
    evaluate: Evaluate


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What differs between the blocks of the official configuration, and what a small machine can do of it."""

    steps: int  # agent steps
    ratio: float  # rows trained on per agent step
    cpu_steps: int  # of size cpu
    cpu_ratio: float  # the same, of size cpu
    cpu_lr: float = 3e-4  # its learning rate; the official one is 4e-5
    episodes: int = 100  # of the final evaluation


@recipe
def dreamerv3_atari100k(size: Size = "200m") -> Recipe:
    """Atari 100k: 400,000 frames of one game, `--env.game ms_pacman`.

    Published (Hafner et al. 2025, training episodes): human-normalised mean 1.25, median 0.49; Ms. Pac-Man 1,521,
    the 2023 generation 1,327. Size cpu is a network smaller than 1m with a higher learning rate, smaller batches and a
    lower train ratio.
    Measured here: see results/.
    """
    return _make(
        size,
        AtariConfig(num=1),
        Budget(steps=110_000, ratio=256, cpu_steps=30_000, cpu_ratio=128),
    )


@recipe
def dreamerv3_atari(size: Size = "200m") -> Recipe:
    """Atari, 200 million frames with sticky actions and all 18 actions, 96 x 96 gray.

    Published (Hafner et al. 2025): human-normalised median 8.29, mean 33.9 over 57 games.
    """
    env = AtariConfig(preset="dreamer-200m", num=16)
    return _make(size, env, Budget(steps=51_000_000, ratio=32, cpu_steps=30_000, cpu_ratio=16))


@recipe
def dreamerv3_dmc_proprio(size: SizeSmallFirst = "1m") -> Recipe:
    """DeepMind Control Suite from state, `--env.task walker_walk`.

    Published (Hafner et al. 2025, 500,000 frames): mean 757.5, median 885.3 of 18 tasks; cartpole_swingup 853,
    walker_walk 925.
    """
    return _make(
        size,
        DMCConfig(num=16),
        Budget(steps=1_100_000, ratio=1024, cpu_steps=60_000, cpu_ratio=32, episodes=20),
    )


@recipe
def dreamerv3_dmc_vision(size: Size = "200m") -> Recipe:
    """DeepMind Control Suite from pictures.

    Published (Hafner et al. 2025, 1 million frames): mean 784.9, median 862.1 of 20 tasks.
    """
    env = DMCConfig(shows="image", num=16)
    return _make(size, env, Budget(steps=1_100_000, ratio=256, cpu_steps=40_000, cpu_ratio=16, episodes=20))


@recipe
def dreamerv3_crafter(size: Size = "200m") -> Recipe:
    """Crafter, 1 million steps.

    Published (Hafner et al. 2023): score 14.5 +- 1.6 %, reward 11.7 +- 1.9.
    """
    return _make(
        size,
        CrafterConfig(num=1),
        Budget(steps=1_100_000, ratio=512, cpu_steps=30_000, cpu_ratio=64, episodes=20),
    )


@recipe
def dreamerv3_minigrid(size: SizeMiddleFirst = "12m") -> Recipe:
    """MiniGrid from pictures, `--env.id MiniGrid-Empty-5x5-v0`. No published figure."""
    return _make(
        size, MiniGridConfig(num=4), Budget(steps=500_000, ratio=256, cpu_steps=20_000, cpu_ratio=32)
    )


@recipe
def dreamerv3_doom(size: SizeMiddleFirst = "12m") -> Recipe:
    """A scenario of VizDoom from pictures: TakeCover, or `--env.scenario basic`. No published figure.

    TakeCover at skill 4, a decision every fourth tic, at most 2,100 tics, score = tics survived. A Box action and the
    whole screen, as in World Models, has `vmc-takecover`.
    """
    env = VizDoomConfig(scenario="take_cover", max_tics=2100, rows=(36, 84), size=48, num=4)
    return _make(size, env, Budget(steps=500_000, ratio=256, cpu_steps=6000, cpu_ratio=128))


@recipe
def dreamerv3_gym(size: SizeMiddleFirst = "12m") -> Recipe:
    """Any environment of Gymnasium, your own package included: `--env.id my_package:MyEnv-v0`.

    Images, vectors, categories and mixtures of them; discrete, multi-discrete and continuous actions.
    """
    return _make(size, GymConfig(num=4), Budget(steps=500_000, ratio=256, cpu_steps=5000, cpu_ratio=256))


def final_evaluation(episodes: int) -> Evaluate:
    """With sampled actions, as both generations are scored; beside a random policy."""
    return Evaluate(
        episodes=episodes,
        rivals=(Rival(name="random", policy=HeldRandom(hold=(1,))),),
        dream=False,
        explore=True,
    )


def _make(size: str, env: Any, budget: Budget) -> Recipe:
    """The official settings; sizes cpu and smoke depart from them in the fields set below."""
    small = size in ("cpu", "smoke")
    world = DreamerV3Config(size="1m" if small else size)  # type: ignore[arg-type]
    batch = Replayed(size=16, length=64)
    optimizer = LaProp()
    steps, ratio, episodes = budget.steps, budget.ratio, budget.episodes
    if size == "cpu":
        world = DreamerV3Config(size="1m", deter_dim=256, stoch=16, classes=8)
        batch = Replayed(size=16, length=16)
        optimizer = LaProp(lr=budget.cpu_lr, warmup=200)
        steps, ratio = budget.cpu_steps, budget.cpu_ratio
    if size == "smoke":
        world = DreamerV3Config(size="1m", units=16, deter_dim=64, stoch=8, classes=4, depth=2)
        batch = Replayed(size=4, length=16)
        optimizer = LaProp(lr=1e-3, warmup=10)
        steps, ratio, episodes = 400, 16.0, 2
    return Recipe(
        env=env,
        world=world,
        behaviour=ActorCriticConfig(units=world.width),
        schedule=DreamerSchedule(
            online=Online(
                steps=steps,
                fit=Fit(groups=(Group(address=("world", "behaviour"), optimizer=optimizer),)),
                batch=batch,
                train_ratio=ratio,
                log_every=100 if size == "smoke" else 1000,
            ),
            evaluate=final_evaluation(episodes),
        ),
        data=DataConfig(capacity=5_000_000, ram=0.5 if small else 1.0),
    )
