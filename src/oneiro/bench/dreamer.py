"""What `bench` times of a recipe that learns while it lives: one update, a dream, and acting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from oneiro import tree
from oneiro.agent import Agent
from oneiro.behaviours.actor_critic import ActorCriticConfig
from oneiro.bench.rival import ROWS, Rival
from oneiro.bench.work import Work
from oneiro.dreaming import dream
from oneiro.envs.atari import AtariConfig
from oneiro.training.fit import Fitter
from oneiro.training.guard import Guard
from oneiro.training.online import Online
from oneiro.training.recipe import Recipe
from oneiro.types import Carry, State, TimeStep
from oneiro.worlds.dreamerv3 import DreamerV3, DreamerV3Config, GenerationConfig

HORIZON = 15
"""Steps of a dream where the behaviour does not say."""


def works(recipe: Recipe, agent: Agent, stage: Online, folder: Path) -> list[Work]:
    """An update on the stage's batch; a dream of `ROWS` rows as the behaviour learns in; acting on 1 and 16 rows.

    "imagine" is the dream without reward and continuation, which the released code works out afterwards.
    """
    size, length = stage.batch.size, stage.batch.length
    horizon = getattr(recipe.behaviour, "horizon", HORIZON)
    found = [
        Work(
            "update",
            f"batch {size} x {length}, horizon {horizon}",
            "updates/s",
            1,
            _update(agent, stage, folder),
        ),
        Work("dream", f"{ROWS} rows x {horizon}", "steps/s", ROWS * horizon, _dream(agent, horizon)),
        *_imagine(recipe, agent, horizon),
        *(Work(f"act {n}", f"batch {n}", "actions/s", n, _act(agent, n)) for n in (1, 16)),
    ]
    for work in found:
        work.naive, work.naive_amount = work.name, work.amount
    return found


def rival(recipe: Recipe, agent: Agent, stage: Online) -> Rival | None:
    """The plain form of the same shapes; None if there is none (other worlds, several groups of actions)."""
    config, learner, codec, spaces = (
        recipe.world,
        recipe.behaviour,
        agent.world.spaces.action,
        agent.world.spaces,
    )
    if not isinstance(config, DreamerV3Config) or not isinstance(learner, ActorCriticConfig):
        return None
    if len(codec.groups) > 1 or spaces.classes or config.vector_layers != 3:
        return None
    if learner.layers != 3 or learner.norm != "rms":
        return None
    images = [shape for shape in spaces.obs.values() if len(shape) == 3]
    shapes: dict[str, Any] = {
        "units": config.width,
        "deter": config.deter,
        "stoch": config.stoch,
        "classes": config.num_classes,
        "depth": config.cnn_depth,
        "blocks": config.blocks,
        "bins": config.bins,
        "image": [sum(shape[0] for shape in images), *images[0][1:]] if images else [],
        "vector": sum(torch.Size(shape).numel() for shape in spaces.obs.values() if len(shape) != 3),
        "action": codec.dim,
        "discrete": codec.is_discrete,
        "size": stage.batch.size,
        "length": stage.batch.length,
        "horizon": learner.horizon,
        "rows": ROWS,
    }
    return Rival("naive_dreamer.py", shapes, agent.world.device)


def whole_run(recipe: Recipe, stage: Online, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hours of an Atari-100k run of the recipe at the rates in `records`; nothing where one of them is missing."""
    env, acts_here = recipe.env, stage.policy is None and not stage.actors.num
    is_atari_100k = isinstance(env, AtariConfig) and env.preset == "dreamer" and acts_here
    named = {record["name"]: record for record in records}
    update, act = named.get("update"), named.get(f"act {env.num}")
    if not is_atari_100k or update is None or act is None:
        return []
    steps, updates = stage.steps, stage.updates(stage.steps)

    def hours(rates: tuple[dict[str, Any], dict[str, Any]], pick: str) -> float:
        return (updates / rates[0][pick] + steps / rates[1][pick]) / 3600

    found: dict[str, Any] = {
        "name": "Atari-100k run" if steps >= 100_000 else "shortened run",
        "shape": f"{updates:,} updates, {steps:,} steps",
        "unit": "hours",
        "note": "the schedule's updates and actions at these rates; the emulator and the evaluation are not in it",
        "median": hours((update, act), "median"),
        "min": hours((update, act), "max"),
        "max": hours((update, act), "min"),
    }
    if "published" in update and "published" in act:
        theirs = update["published"], act["published"]
        found["published"] = theirs[0] | {
            "median": hours(theirs, "median"),
            "min": hours(theirs, "max"),
            "max": hours(theirs, "min"),
        }
    return [found]


def random_rows(agent: Agent, size: int, length: int) -> TimeStep:
    """[size, length] rows inside one episode: noise in every modality, random actions and rewards."""
    spaces, lead = agent.world.spaces, (size, length)
    obs = {
        name: torch.randint(0, 256, (*lead, *shape), dtype=torch.uint8)
        if len(shape) == 3
        else torch.randn(*lead, *shape)
        for name, shape in spaces.obs.items()
    }
    no = torch.zeros(lead, dtype=torch.bool)
    if spaces.action.is_discrete:
        groups = [torch.eye(n)[torch.randint(n, lead)] for n in spaces.action.groups]
        action = torch.cat(groups, -1)
    else:
        low, high = torch.tensor(spaces.action.low), torch.tensor(spaces.action.high)
        action = low + (high - low) * torch.rand(*lead, spaces.action.dim)
    rows = TimeStep(
        obs=obs,
        action=action,
        reward=torch.randn(lead),
        is_first=no,
        terminated=no.clone(),
        mask=~no,
    )
    return tree.to(rows, agent.world.device)


def _update(agent: Agent, stage: Online, folder: Path) -> Callable[[], Any]:
    rows = random_rows(agent, stage.batch.size, stage.batch.length)
    fitter = Fitter(stage.fit, agent, Guard(folder))

    def update() -> float:
        agent.train()
        losses = fitter.apply(rows, agent.world.start(stage.batch.size))
        return float(next(iter(losses.metrics.values())))  # waits for a GPU

    return update


def _dream(agent: Agent, horizon: int) -> Callable[[], Any]:
    @torch.no_grad()
    def run() -> float:
        agent.eval()
        carry = Carry(state=agent.world.start(ROWS), memory=agent.behaviour.memory(ROWS))
        return float(dream(agent.world, agent.behaviour, carry, horizon, explore=True).reward[0, -1])

    return run


def _imagine(recipe: Recipe, agent: Agent, horizon: int) -> list[Work]:
    config = recipe.world
    if not isinstance(config, GenerationConfig):
        return []
    world, behaviour = cast(DreamerV3, agent.world), agent.behaviour

    @torch.no_grad()
    def run() -> float:
        agent.eval()
        step, state = world.stepper(judges=False), world.start(ROWS)
        memory: State = {}  # samples by torch's generator, as dreams that the behaviour learns in do
        views, actions = [behaviour.view(world, state)], []
        for _ in range(horizon):
            decision = behaviour.act(world, state, memory, explore=True)
            state, memory = step(state, decision.action, 1.0).state, decision.memory
            views.append(behaviour.view(world, state))
            actions.append(decision.action)
        return float(torch.stack(views, 1)[0, -1, 0] + torch.stack(actions, 1)[0, -1, 0])  # waits for a GPU

    return [Work("imagine", f"{ROWS} rows x {horizon}", "steps/s", ROWS * horizon, run)]


def _act(agent: Agent, n: int) -> Callable[[], Any]:
    row = tree.map(lambda x: x[:, 0], random_rows(agent, n, 1))
    carry = agent.eval().start(n)

    def act() -> Any:
        nonlocal carry
        carry = agent.eval().observe(carry, row)
        action, carry = agent.act(carry, explore=True)
        return action.cpu()

    return act
