"""V-M-C at its smallest, on the toy game `dodge`: what tests of runs train. Also a recipe of one's own in a file."""

from typing import Literal

from oneiro.agent import Starts
from oneiro.behaviours.explore import HeldRandom
from oneiro.behaviours.linear import LinearConfig
from oneiro.data.samplers import Frames, Windows
from oneiro.envs.toy import ToyConfig
from oneiro.evaluation.stage import Evaluate, Rival
from oneiro.recipes.vmc import MEMORY_ROWS, VMCSchedule
from oneiro.training.cma_es import CMA
from oneiro.training.evolve import Evolve
from oneiro.training.fit import Fit, Group
from oneiro.training.log import LogConfig
from oneiro.training.optim import Adam
from oneiro.training.recipe import CheckpointConfig, DataConfig, Recipe
from oneiro.training.schedule import Collect, Memorise, Update
from oneiro.worlds.vmc import VMCConfig


def vmc_dodge(size: Literal["tiny"] = "tiny") -> Recipe:
    """V-M-C on a toy, in seconds."""
    vision = Group(address=("world.vision",), optimizer=Adam(lr=1e-3))
    memory = Group(address=("world.memory",), optimizer=Adam(lr=1e-3, clip_value=1.0))
    world = VMCConfig(
        z_dim=8,
        channels=(4, 4, 8, 8),
        hidden_dim=16,
        feature="zh",
        end_weight=1.0,
        ending="sample",
        compute_dtype="float32",
    )
    windows = Windows(size=4, length=16, at="start", fields=MEMORY_ROWS)
    evolve = Evolve(
        cma=CMA(population=6), generations=4, episodes=2, horizon=20, starts=Starts(count=8), test_every=2
    )
    return Recipe(
        env=ToyConfig(id="dodge", num=2),
        world=world,
        behaviour=LinearConfig(),
        schedule=VMCSchedule(
            collect=Collect(episodes=10, policy=HeldRandom(hold=(4,)), flush_seconds=0.0),
            vision=Update(fit=Fit(groups=(vision,)), batch=Frames(size=8), updates=24, log_every=5),
            encode=Memorise(size=64),
            memory=Update(fit=Fit(groups=(memory,)), batch=windows, updates=20, log_every=5),
            evolve=evolve,
            evaluate=Evaluate(episodes=4, rivals=(Rival(name="random", policy=HeldRandom(hold=(1,))),)),
        ),
        data=DataConfig(ram=0.05, capacity=10_000),
        checkpoint=CheckpointConfig(minutes=0.0001),  # at every tick, almost
        log=LogConfig(tensorboard=False),
    )
