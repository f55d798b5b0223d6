"""DIAMOND on two games of VizDoom that a small machine can learn: the deadly corridor, and a round arena."""

from dataclasses import replace
from typing import Literal

from oneiro.behaviours.explore import HeldRandom
from oneiro.behaviours.recurrent_actor_critic import RecurrentActorCriticConfig
from oneiro.envs.vizdoom import VizDoomConfig
from oneiro.evaluation.stage import Evaluate, Rival
from oneiro.nets.edm import EDMSampler, NoiseLaw
from oneiro.recipes import recipe
from oneiro.recipes.diamond import Budget, diamond_schedule
from oneiro.training.epochs import Epochs
from oneiro.training.fit import Fit
from oneiro.training.recipe import DataConfig, Recipe
from oneiro.worlds.diamond import DiamondConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig
from oneiro.worlds.diamond_reward import RewardConfig

SMOKE = Budget(
    epochs=2,
    first_steps=200,
    most_first_steps=200,
    steps=100,
    total_steps=300,
    first=(3, 3, 2),
    updates=(2, 2, 2),
    size=4,
)


@recipe
def diamond_doom(size: Literal["cpu", "smoke"] = "cpu") -> Recipe:
    """DIAMOND on VizDoom's deadly corridor, skill 1: run past armed men to the armour at the far end.

    The game gives the distance gained on the armour and takes what is lost (about 1,300 in all), gives 1,000 for taking
    it, and takes 100 for dying. Of rewards the world knows the sign only. Size smoke is for continuous integration.
    """
    budget = Budget(
        epochs=4,
        first_steps=4000,
        most_first_steps=4000,
        steps=1000,
        total_steps=7000,
        first=(1200, 800, 150),
        updates=(200, 150, 50),
        size=16,
    )
    return _doom("deadly_corridor", NoiseLaw(), budget, is_smoke=size == "smoke")


@recipe
def diamond_arena(size: Literal["cpu", "smoke"] = "cpu") -> Recipe:
    """DIAMOND in VizDoom's defend_the_center, skill 1: turn, and shoot what comes from all sides of a round arena.

    It can do both at once. The game gives 1 for a kill and takes 1 for dying; there are 26 shots. One epoch: all is
    learned from random play. Half of what the reward model sees is dreamed. Size smoke is for continuous integration.
    """
    budget = Budget(
        epochs=1,
        first_steps=8000,
        most_first_steps=8000,
        total_steps=8000,
        first=(1100, 500, 150),
        size=16,
        self_fed=3,
    )
    made = _doom("defend_the_center", NoiseLaw(mean=0.7, std=1.2), budget, is_smoke=size == "smoke", steps=3)
    turns = ("TURN_LEFT", "TURN_RIGHT")
    buttons = (*turns, "ATTACK", *(f"{turn}+ATTACK" for turn in turns))
    world = replace(made.world, reward_on_dreams=0.5)
    return replace(made, env=replace(made.env, buttons=buttons), world=world)


def _doom(scenario: str, law: NoiseLaw, budget: Budget, *, is_smoke: bool, steps: int = 1) -> Recipe:
    """The scenario at 24 x 32 pixels with small networks and `steps` denoising steps."""
    budget = SMOKE if is_smoke else budget
    world = DiamondConfig(
        denoiser=DenoiserConfig(
            channels=(32, 32, 32),
            blocks=1,
            cond_dim=128,
            law=law,
            sampler=EDMSampler(steps=steps),
            rounding="round",
        ),
        reward=RewardConfig(channels=(16, 32, 32), blocks=1, cond_dim=64, hidden_dim=128),
    )
    behaviour = RecurrentActorCriticConfig(channels=(16, 32, 32), hidden_dim=128, horizon=10, discount=0.9)
    evaluate = Evaluate(
        episodes=4 if is_smoke else 100,
        rivals=(Rival(name="random", policy=HeldRandom(hold=(1,))),),
        dream=False,
    )
    schedule = diamond_schedule(world, behaviour, budget, evaluate, lr=5e-4, policy=HeldRandom(hold=(1, 8)))
    return Recipe(
        env=VizDoomConfig(
            scenario=scenario, skill=1, action_repeat=4, rows=(24, 96), size=24, width=32, num=2
        ),
        world=world,
        behaviour=behaviour,
        schedule=replace(schedule, epochs=_tuned(schedule.epochs)),
        data=DataConfig(ram=0.25),
    )


def _tuned(epochs: Epochs) -> Epochs:
    """Rewards are rare, so the reward model and the dreams use all episodes alike; the behaviour learns faster."""
    denoise, *others = epochs.tasks
    even = [replace(task, batch=replace(task.batch, quarters=())) for task in others]
    *world, behaviour = epochs.fit.groups
    behaviour = replace(behaviour, optimizer=replace(behaviour.optimizer, lr=1e-3, warmup=10))
    return replace(epochs, tasks=(denoise, *even), fit=Fit(groups=(*world, behaviour)))
