"""What `bench` times of DIAMOND: the updates of its parts, a dreamed step, and a frame of play."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from oneiro import tree
from oneiro.agent import Agent
from oneiro.behaviours.recurrent_actor_critic import RecurrentActorCriticConfig
from oneiro.bench.dreamer import random_rows
from oneiro.bench.rival import Rival
from oneiro.bench.work import Work
from oneiro.dreaming import imagine
from oneiro.training.epochs import Epochs
from oneiro.training.fit import Fitter
from oneiro.training.guard import Guard
from oneiro.training.recipe import Recipe
from oneiro.training.schedule import Update
from oneiro.worlds.diamond import DiamondConfig
from oneiro.worlds.diamond_csgo import TwoStageConfig

SIZES = {"world.denoiser": 32, "world.reward": 8, "behaviour": 4}
"""At most so many segments in an update: those of speed measurements of the released code, whose recipe has 32."""
ROWS = 32
"""Dreams at once."""


def fits(recipe: Recipe) -> bool:
    """Whether the recipe is DIAMOND with its own behaviour."""
    config, learner = recipe.world, recipe.behaviour
    return isinstance(config, DiamondConfig) and isinstance(learner, RecurrentActorCriticConfig)


def batches(stage: Epochs) -> dict[str, tuple[int, int]]:
    """Group of the fit -> (segments, rows of each) of the update that is timed."""
    return {
        address: (min(task.batch.size, SIZES[address]), task.batch.length)
        for group, task in zip(stage.fit.groups, stage.tasks, strict=True)
        for address in group.address
    }


def works(recipe: Recipe, agent: Agent, stage: Epochs, folder: Path) -> list[Work]:
    """Updates of each group, a dreamed step of `ROWS` rows with policy, reward and end, and one frame of play.

    The denoiser's update is timed once more on segments of one frame after the context, as the released code's was.
    """
    fitter = Fitter(stage.fit, agent, Guard(folder))
    horizon = recipe.behaviour.horizon
    found = []
    for index, (address, (size, length)) in enumerate(batches(stage).items()):
        shape = f"batch {size} x {length}" + (f", horizon {horizon}" if address == "behaviour" else "")
        name = f"{address.removeprefix('world.')} update"
        found.append(Work(name, shape, "updates/s", 1, _update(agent, fitter, index, size, length)))
        if address == "world.denoiser":
            one = (agent.world.context or 0) + 1
            call = _update(agent, fitter, index, size, one)
            found.append(Work(f"{name}, one frame", f"batch {size} x {one}", "updates/s", 1, call))
    found += _dreams(agent)
    for work in found:
        work.naive, work.naive_amount = work.name, work.amount
    return found


def has_two_stages(recipe: Recipe) -> bool:
    """Whether the recipe's world is the one that is learned from video."""
    config = recipe.world
    return isinstance(config, TwoStageConfig)


def two_stage_works(agent: Agent, updates: Mapping[str, Update], folder: Path) -> list[Work]:
    """Updates of both parts with the batches of the recipe, a dreamed step, one frame of play. No plain form."""
    found = []
    for part, stage in updates.items():
        size, length = stage.batch.size, stage.batch.length
        call = _update(agent, Fitter(stage.fit, agent, Guard(folder)), 0, size, length)
        found.append(Work(f"{part} update", f"batch {size} x {length}", "updates/s", 1, call))
    return found + _dreams(agent)


def _dreams(agent: Agent) -> list[Work]:
    found = [
        Work("dream", f"{ROWS} rows", "steps/s", ROWS, _dream(agent, ROWS)),
        Work("play", "1 row, with its picture", "frames/s", 1, _play(agent)),
    ]
    for work in found:
        work.prepare = work.call  # the first frame also shows the real ones to the reward model
    return found


def rival(recipe: Recipe, agent: Agent, stage: Epochs) -> Rival | None:
    """The plain form of the same shapes; None if there is none (options that are not the released code's)."""
    world, learner, spaces = recipe.world, recipe.behaviour, agent.world.spaces
    plain = DiamondConfig().denoiser
    told = (
        "objective",
        "offset_noise",
        "sigma_data",
        "law",
        "tells_context_noise",
        "noises_context",
    )
    if any(getattr(world.denoiser, name) != getattr(plain, name) for name in told):
        return None
    sampler = world.denoiser.sampler
    unlike = world.denoiser.attention or world.reward.attention or sampler.order != 1 or sampler.churn
    if unlike or sampler.start != "unit" or len(spaces.action.groups) != 1:
        return None
    named = batches(stage)
    unit = 2 ** (max(len(world.denoiser.channels), len(world.reward.channels)) - 1)
    if any(side % unit for side in spaces.obs["image"][1:]):
        return None
    shapes: dict[str, Any] = {
        "image": list(spaces.obs["image"]),
        "actions": spaces.action.dim,
        "context": world.denoiser.context,
        "channels": list(world.denoiser.channels),
        "blocks": world.denoiser.blocks,
        "cond": world.denoiser.cond_dim,
        "sigmas": sampler.sigmas,
        "rounding": world.denoiser.rounding,
        "reward": {
            "channels": list(world.reward.channels),
            "blocks": world.reward.blocks,
            "cond": world.reward.cond_dim,
            "hidden": world.reward.hidden_dim,
        },
        "behaviour": {"channels": list(learner.channels), "hidden": learner.hidden_dim},
        "denoiser_batch": list(named["world.denoiser"]),
        "reward_batch": list(named["world.reward"]),
        "behaviour_batch": named["behaviour"][0],
        "horizon": learner.horizon,
        "rows": ROWS,
    }
    return Rival("naive_diamond.py", shapes, agent.world.device)


def _update(agent: Agent, fitter: Fitter, index: int, size: int, length: int) -> Callable[[], Any]:
    rows = random_rows(agent, size, length)

    def update() -> float:
        agent.train()
        losses = fitter.apply(rows, only=(index,))
        return float(next(iter(losses.metrics.values())))  # waits for a GPU

    return update


def _dream(agent: Agent, rows: int) -> Callable[[], Any]:
    """One step after another of an endless dream."""
    length = agent.world.context or 1
    dreams = None

    @torch.no_grad()
    def step() -> float:
        nonlocal dreams
        if dreams is None:
            carry = agent.eval().settle(random_rows(agent, rows, length), length)
            dreams = imagine(agent.world, agent.behaviour, carry)
        agent.eval()
        _, prediction, _ = next(dreams)
        return float(tree.leaves(prediction.state)[0].flatten()[0])  # waits for a GPU

    return step


def _play(agent: Agent) -> Callable[[], Any]:
    """A person plays: an action in, a picture in 256 levels out."""
    length = agent.world.context or 1
    rows = random_rows(agent, 1, length)
    assert rows.action is not None
    action, step = rows.action[:, 0], agent.world.stepper()
    state: Any = None

    @torch.no_grad()
    def frame() -> Any:
        nonlocal state
        if state is None:
            state = agent.eval().settle(rows, length).state
        agent.eval()
        state = step(state, action, 1.0).state
        return (agent.world.decode(state)["image"][0] * 255).round().to(torch.uint8).cpu()

    return frame
