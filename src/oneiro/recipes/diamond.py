"""DIAMOND on Atari, and on games that a small machine can learn."""

from dataclasses import dataclass
from typing import Any, Literal

from oneiro.behaviours.explore import HeldRandom
from oneiro.behaviours.recurrent_actor_critic import RecurrentActorCriticConfig
from oneiro.data.recent import RecentSegments
from oneiro.envs.atari import AtariConfig
from oneiro.envs.toy import ToyConfig
from oneiro.evaluation.stage import Evaluate, Rival
from oneiro.nets.edm import EDMSampler
from oneiro.recipes import recipe
from oneiro.training.adamw import AdamW
from oneiro.training.epochs import Epochs, Task
from oneiro.training.fit import Fit, Group
from oneiro.training.recipe import DataConfig, Recipe
from oneiro.worlds.diamond import DiamondConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig
from oneiro.worlds.diamond_reward import RewardConfig


@dataclass(frozen=True, kw_only=True)
class DiamondSchedule:
    """Collect and learn in epochs; then play."""

    epochs: Epochs
    evaluate: Evaluate


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is collected and learned; the defaults are the paper's."""

    epochs: int = 1000
    first_steps: int = 5000  # environment steps before the first epoch
    most_first_steps: int = 10_000
    steps: int = 100  # in every further epoch
    total_steps: int = 100_000
    first: tuple[int, int, int] = (
        10_000,
        10_000,
        5_000,
    )  # updates of the first epoch: denoiser, reward, behaviour
    updates: tuple[int, int, int] = (400, 400, 400)  # and of every further one
    size: int = 32  # segments per batch, dreams at once
    burn_in: int = 4  # rows on which the reward model is warmed up
    self_fed: int = 1  # frames of a segment predicted from the denoiser's own; 0 = the paper's objective


def diamond_schedule(
    world: DiamondConfig,
    behaviour: RecurrentActorCriticConfig,
    budget: Budget,
    evaluate: Evaluate,
    lr: float = 1e-4,
    policy: Any = None,
) -> DiamondSchedule:
    """The loop of the paper with segments that fit the world: n + 1 + self_fed rows, horizon + burn_in, n.

    `policy`: config of the random policy that collects first; None = the agent itself.
    """
    context = world.denoiser.context
    batches = (
        RecentSegments(size=budget.size, length=context + 1 + budget.self_fed, pads="left"),
        RecentSegments(size=budget.size, length=behaviour.horizon + budget.burn_in, pads="both"),
        RecentSegments(size=budget.size, length=context, pads="left"),
    )
    groups = (
        Group(address=("world.denoiser",), optimizer=AdamW(lr=lr, clip_norm=1.0)),
        Group(address=("world.reward",), optimizer=AdamW(lr=lr, clip_norm=100.0)),
        Group(address=("behaviour",), optimizer=AdamW(lr=lr, weight_decay=0.0, clip_norm=100.0)),
    )
    tasks = tuple(
        Task(batch=batch, updates=updates, first=first)
        for batch, updates, first in zip(batches, budget.updates, budget.first, strict=True)
    )
    return DiamondSchedule(
        epochs=Epochs(
            fit=Fit(groups=groups),
            tasks=tasks,
            epochs=budget.epochs,
            first_steps=budget.first_steps,
            most_first_steps=budget.most_first_steps,
            steps=budget.steps,
            total_steps=budget.total_steps,
            policy=policy,
        ),
        evaluate=evaluate,
    )


@recipe
def diamond_atari(size: Literal["paper", "cpu", "smoke"] = "paper") -> Recipe:
    """DIAMOND on Atari 100k, `--env.game breakout`.

    Published (Alonso et al. 2024, 100,000 steps, 5 seeds): human-normalised mean 1.46, interquartile mean 0.64;
    Breakout 132.5, Boxing 86.9, Pong 20.4. 2.9 days on one RTX 4090. Size cpu plays at 32 x 32 with small networks.
    """
    if size == "smoke":
        return _smoke()
    small = size == "cpu"
    env = AtariConfig(game="breakout", preset="diamond", num=1, size=32 if small else None)
    world, behaviour = (
        (small_world(), small_behaviour()) if small else (DiamondConfig(), RecurrentActorCriticConfig())
    )
    budget = Budget()
    if small:
        budget = Budget(
            epochs=8,
            first_steps=5000,
            most_first_steps=5000,
            steps=1500,
            total_steps=15_000,
            first=(1500, 300, 100),
            updates=(500, 100, 100),
            size=16,
        )
    evaluate = Evaluate(
        episodes=20 if small else 100,
        rivals=(Rival(name="random", policy=HeldRandom(hold=(1,))),),
        env=AtariConfig(game="breakout", preset="diamond-test", num=4, size=32 if small else None),
        dream=False,
    )
    return Recipe(
        env=env,
        world=world,
        behaviour=behaviour,
        schedule=diamond_schedule(world, behaviour, budget, evaluate, lr=3e-4 if small else 1e-4),
        data=DataConfig(ram=1.0),
    )


def _smoke() -> Recipe:
    """The toy `catch` for a few updates: does everything run?"""
    world = DiamondConfig(
        denoiser=DenoiserConfig(
            channels=(8, 8, 8),
            blocks=1,
            cond_dim=16,
            sampler=EDMSampler(steps=1),
        ),
        reward=RewardConfig(channels=(8, 8, 8, 8), blocks=1, cond_dim=8, hidden_dim=16),
    )
    behaviour = RecurrentActorCriticConfig(channels=(8, 8, 8, 8), hidden_dim=16, horizon=3)
    budget = Budget(
        epochs=2,
        first_steps=30,
        most_first_steps=30,
        steps=30,
        total_steps=60,
        first=(3, 3, 2),
        updates=(2, 2, 2),
        size=2,
    )
    evaluate = Evaluate(episodes=2, dream=False)
    return Recipe(
        env=ToyConfig(id="catch", num=2),
        world=world,
        behaviour=behaviour,
        schedule=diamond_schedule(world, behaviour, budget, evaluate, lr=1e-3),
        data=DataConfig(ram=0.05),
    )


def small_world() -> DiamondConfig:
    """For pictures of 32 x 32: about 0.6 M weights in the denoiser."""
    return DiamondConfig(
        denoiser=DenoiserConfig(channels=(32, 32, 32), blocks=1, cond_dim=128),
        reward=RewardConfig(channels=(16, 32, 32), blocks=1, cond_dim=64, hidden_dim=128),
    )


def small_behaviour() -> RecurrentActorCriticConfig:
    """For pictures of 32 x 32."""
    return RecurrentActorCriticConfig(channels=(16, 32, 32), hidden_dim=128)
