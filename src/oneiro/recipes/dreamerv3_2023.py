"""DreamerV3 as first published (2023), on Atari and on any environment of Gymnasium."""

from dataclasses import dataclass
from typing import Any, Literal

from oneiro.behaviours.actor_critic import ActorCriticConfig
from oneiro.data.replayed import Replayed
from oneiro.envs.atari import AtariConfig
from oneiro.envs.gym import GymConfig
from oneiro.recipes import recipe
from oneiro.recipes.dreamerv3 import DreamerSchedule, final_evaluation
from oneiro.training.fit import Fit, Group
from oneiro.training.online import Online
from oneiro.training.optim import Adam
from oneiro.training.recipe import DataConfig, Recipe
from oneiro.worlds.dreamerv3_2023 import DreamerV3Of2023Config

Size = Literal["s", "m", "l", "xl", "cpu", "smoke"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What differs between the blocks of the official configuration, and what a small machine can do of it."""

    steps: int  # agent steps
    ratio: float  # rows trained on per agent step
    cpu_steps: int  # of size cpu
    cpu_ratio: float  # the same, of size cpu
    episodes: int = 100  # of the final evaluation


@recipe
def dreamerv3_2023_atari100k(size: Size = "s") -> Recipe:
    """Atari 100k with DreamerV3 of January 2023: 400,000 frames of one game, `--env.game ms_pacman`.

    Published (Hafner et al. 2023, training episodes): human-normalised mean 1.12, median 0.49; Ms. Pac-Man 1,327.
    Size s is the published one.
    """
    env = AtariConfig(preset="dreamer-2023", num=1)
    return _make(size, env, Budget(steps=100_000, ratio=1024, cpu_steps=30_000, cpu_ratio=128))


@recipe
def dreamerv3_2023_gym(size: Size = "s") -> Recipe:
    """Any environment of Gymnasium with DreamerV3 of January 2023: `--env.id my_package:MyEnv-v0`.

    Actions in bounds were learnt through the world: `--behaviour.gradient dynamics`. No published figure.
    Measured here: see results/.
    """
    return _make(size, GymConfig(num=4), Budget(steps=500_000, ratio=512, cpu_steps=5000, cpu_ratio=256))


def _make(size: str, env: Any, budget: Budget) -> Recipe:
    """The official settings; sizes cpu and smoke depart from them in the fields set below."""
    small = size in ("cpu", "smoke")
    world = DreamerV3Of2023Config(size="s" if small else size, compute_dtype="float32")  # type: ignore[arg-type]
    batch = Replayed(size=16, length=64, begin="blank", online=False)
    optimizer = Adam(lr=1e-4, eps=1e-8, clip_norm=1000.0)
    learner = Adam(lr=3e-5, eps=1e-5, clip_norm=100.0)
    steps, ratio, prefill, episodes = budget.steps, budget.ratio, 1024, budget.episodes
    if size == "cpu":
        world = DreamerV3Of2023Config(
            deter_dim=256,
            units=64,
            stoch=16,
            classes=8,
            depth=4,
            vector_layers=3,
            vector_units=256,
            compute_dtype="float32",
        )
        batch = Replayed(size=8, length=32, begin="blank", online=False)
        optimizer = Adam(lr=1e-3, eps=1e-8, clip_norm=1000.0)
        learner = Adam(lr=1e-3, eps=1e-5, clip_norm=100.0)
        steps, ratio, prefill = budget.cpu_steps, budget.cpu_ratio, 256
    if size == "smoke":
        world = DreamerV3Of2023Config(
            deter_dim=64,
            units=16,
            stoch=8,
            classes=4,
            depth=2,
            vector_layers=2,
            vector_units=16,
            compute_dtype="float32",
        )
        batch = Replayed(size=4, length=16, begin="blank", online=False)
        optimizer = learner = Adam(lr=1e-3, clip_norm=100.0)
        steps, ratio, prefill, episodes = 400, 16.0, 64, 2
    _, units, layers, _ = world.widths
    return Recipe(
        env=env,
        world=world,
        behaviour=ActorCriticConfig(
            units=units,
            layers=layers,
            norm="layer",
            actor_scale=1.0,
            unimix=0.01,
            cont="mode",
            start_cont="recorded",
            bin_space="symlog",
            replay_weight=0.0,
            compute_dtype="float32",
        ),
        schedule=DreamerSchedule(
            online=Online(
                steps=steps,
                fit=Fit(
                    groups=(
                        Group(address=("world",), optimizer=optimizer),
                        Group(address=("behaviour.actor",), optimizer=learner),
                        Group(address=("behaviour.critic",), optimizer=learner),
                    )
                ),
                batch=batch,
                train_ratio=ratio,
                prefill=prefill,
                log_every=100 if size == "smoke" else 1000,
            ),
            evaluate=final_evaluation(episodes),
        ),
        data=DataConfig(capacity=1_000_000, ram=0.5 if small else 1.0),
    )
