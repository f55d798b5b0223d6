"""`bench`: how fast a recipe's parts train, dream and play here, as a share of this machine's own peak."""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from oneiro import runtime, tree
from oneiro.agent import Agent
from oneiro.behaviours.population import Population
from oneiro.bench import diamond, dreamer, published
from oneiro.bench.rival import CANDIDATES, ENCODE_BATCH, ROWS, Rival, Shapes
from oneiro.bench.work import Work
from oneiro.dreaming import imagine
from oneiro.errors import MissingExtra, OneiroError, nearest
from oneiro.spaces import to_float
from oneiro.training.cma_es import Evolution
from oneiro.training.epochs import Epochs
from oneiro.training.evolve import Evolve
from oneiro.training.fit import Fitter
from oneiro.training.guard import Guard
from oneiro.training.online import Online
from oneiro.training.played import Players
from oneiro.training.recipe import Recipe
from oneiro.training.run import build_agent
from oneiro.training.schedule import Episodes, Update, stages
from oneiro.types import Carry, TimeStep
from oneiro.world import WorldModel, part_module

_DREAM_STEPS = 64  # a dream lays out its weights once; those of an evolution last 525 steps and more


def bench(
    recipe: Recipe,
    *,
    against: bool = False,
    env: bool = True,
    seconds: float = 6.0,
    rounds: int = 3,
    only: Sequence[str] = (),
):
    """Measure everything, or the works named in `only`; returns plain JSON values (see `table`).

    Each work gets `seconds` in `rounds` turns, and so does its plain PyTorch form (`against`), so that other load
    on the machine hits both.
    """
    report = runtime.start(recipe.runtime)
    agent = build_agent(recipe, recipe.env.spaces()).to(report.device)
    online = next((stage for _, stage in stages(recipe.schedule) if isinstance(stage, Online)), None)
    epochs = next((stage for _, stage in stages(recipe.schedule) if isinstance(stage, Epochs)), None)
    epochs = epochs if diamond.fits(recipe) else None
    updates = {
        address.split(".")[-1]: stage
        for _, stage in stages(recipe.schedule)
        if isinstance(stage, Update)
        for address in stage.fit.groups[0].address
    }
    shapes = Shapes.of(recipe, {part: stage.batch for part, stage in updates.items()})
    if online:
        plain = dreamer.rival(recipe, agent, online)
    elif epochs:
        plain = diamond.rival(recipe, agent, epochs)
    elif updates:
        plain = Rival("naive.py", asdict(shapes), report.device) if shapes else None
    else:
        raise OneiroError("this recipe has no stage that bench can time: it times updates on a replay")
    if against and plain is None:
        raise OneiroError(
            "there is a plain PyTorch form of V-M-C recipes, of DreamerV3 recipes (2024 generation) with one group "
            "of actions and no categories among the observations, and of DIAMOND recipes with the released code's "
            "objective and sampler and sides that halve evenly; leave out --against"
        )
    peak = runtime.measure_peak(report.device)
    with ExitStack() as open_:
        folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
        rival = open_.enter_context(plain) if against and plain else None
        if online:
            works = dreamer.works(recipe, agent, online, folder)
        elif epochs:
            works = diamond.works(recipe, agent, epochs, folder)
        elif diamond.has_two_stages(recipe):
            works = diamond.two_stage_works(agent, updates, folder)
        else:
            works = _works(agent, updates, folder)
        works = _chosen(works, only)
        for work in works:
            if shapes and work.naive in (flop := shapes.flop()):
                work.flop = flop[work.naive].times(work.amount / work.naive_amount)
        for _ in range(rounds):
            for work in works:
                _turn(work, rival, seconds / rounds)
    dtype = "bfloat16" if report.compute_dtype == torch.bfloat16 else "float32"
    records = [_record(work, peak, dtype, plain) for work in works]
    records += dreamer.whole_run(recipe, online, records) if online else []
    records += [] if only else _evolution(recipe, agent, records, env)
    records += _env(recipe, seconds) if env else []
    return {
        "device": runtime.describe_device(report.device),
        "threads": report.threads,
        "allocator": "freed memory is kept" if report.levers["memory"] == "on" else "the system's default",
        "levers": report.levers,
        "compute_dtype": dtype,
        "peak_gflops": peak,
        "records": records,
        "peak_ram_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _chosen(works: list[Work], only: Sequence[str]) -> list[Work]:
    """Those named; all of them if none is. OneiroError if there is none of that name."""
    names = [work.name for work in works]
    for name in only:
        if name not in names:
            raise OneiroError(f"bench does not time {name!r} of this recipe. {nearest(name, names)}")
    return [work for work in works if not only or work.name in only]


def _works(agent: Agent, updates: dict[str, Update], folder: Path) -> list[Work]:
    works = []
    for part, stage in updates.items():
        size, length = stage.batch.size, getattr(stage.batch, "length", 1)
        batch = _batch(agent.world, size, length, stage.batch.fields)
        fitter = Fitter(stage.fit, agent, Guard(folder))
        call = _update(agent, fitter, batch)
        shape = f"batch {size} x {length}" if length > 1 else f"batch {size}"
        works.append(Work(f"{part} update", shape, "updates/s", 1, call, part, 1))
    if "vision" in agent.world.parts:
        works.append(
            Work(
                "encoder",
                f"batch {ENCODE_BATCH}",
                "frames/s",
                ENCODE_BATCH,
                _encode(agent),
                "encode",
                ENCODE_BATCH,
            )
        )
    shape = f"{ROWS} rollouts, {CANDIDATES} controllers"
    works.append(Work("dream", shape, "steps/s", ROWS * _DREAM_STEPS, _dream(agent), "dream", ROWS))
    return works


def _batch(world: WorldModel, size: int, length: int, fields: tuple[str, ...]) -> TimeStep:
    """Random rows [size, length] with the fields a sampler would read."""
    lead = (size, length)
    obs = {}
    for name, shape in world.spaces.obs.items():
        if not fields or name in fields:
            obs[name] = torch.randint(0, 256, (*lead, *shape), dtype=torch.uint8)
    memo = {
        name: torch.randn(*lead, *x.shape[1:])
        for name, x in world.memo(world.start(1)).items()
        if name in fields
    }
    first = torch.zeros(lead, dtype=torch.bool)
    batch = TimeStep(
        obs=obs,
        action=torch.rand(*lead, world.spaces.action.dim) * 2 - 1,
        reward=torch.zeros(lead),
        is_first=first,
        terminated=first.clone(),
        mask=~first,
        memo=memo,
    )
    return tree.to(batch, world.device)


def _update(agent: Agent, fitter: Fitter, batch: TimeStep) -> Callable[[], Any]:
    def update() -> float:
        agent.train()
        losses = fitter.apply(batch)
        return float(next(iter(losses.metrics.values())))  # waits for a GPU

    return update


def _encode(agent: Agent) -> Callable[[], Any]:
    vision: Any = part_module(agent.world, "vision")
    image = torch.randint(0, 256, (ENCODE_BATCH, *agent.world.spaces.obs["image"]), dtype=torch.uint8)
    image = image.to(agent.world.device)

    @torch.no_grad()
    def encode() -> float:
        agent.eval()
        return float(vision.encode(to_float(image))[0][0, 0])

    return encode


def _dream(agent: Agent) -> Callable[[], Any]:
    world, population = agent.world, Population(agent.behaviour)
    weights = torch.randn(CANDIDATES, population.num_weights, device=world.device) * 0.1
    state = world.start(ROWS)
    if "draw" in state:
        state["draw"] = state["draw"] % (ROWS // CANDIDATES)
    seats = population.seat(weights.repeat_interleave(ROWS // CANDIDATES, 0))

    @torch.no_grad()
    def dream() -> float:
        agent.eval()
        rows = imagine(world, population, Carry(state=tree.clone(state), memory=seats), temperature=1.15)
        actions = [next(rows)[0].action for _ in range(_DREAM_STEPS)]
        return float(actions[-1][0, 0])

    return dream


def _turn(work: Work, rival: Rival | None, seconds: float) -> None:
    """One round of ours and of the plain form."""
    if not work.seconds:
        work.warm_up()
    times: list[float] = []
    while sum(times) < seconds:
        began = time.perf_counter()
        work.call()
        times.append(time.perf_counter() - began)
    work.seconds += times
    if rival and work.naive:
        plain = rival.ask(work.naive, seconds)
        work.naive_seconds += plain
        scale = work.amount / work.naive_amount
        work.ratios.append(statistics.median(plain) * scale / statistics.median(times))


def _record(work: Work, peak: dict[str, float], dtype: str, plain: Rival | None) -> dict[str, Any]:
    """Rates: median, least and greatest over repetitions; those of the released code, if its shapes were these."""
    record: dict[str, Any] = {"name": work.name, "shape": work.shape, "unit": work.unit}
    record |= _rates(work.seconds, work.amount)
    if work.flop and work.flop.total:
        seconds = statistics.median(work.seconds)
        record |= {
            "gflops": work.flop.total / seconds / 1e9,
            "convolutions": work.flop.conv / work.flop.total,
            "share_of_peak": work.flop.seconds(peak, dtype) / seconds,
        }
    if elsewhere := published.rates(plain, work.name, work.amount):
        record["published"] = elsewhere
    if work.naive_seconds:
        record["naive"] = _rates(work.naive_seconds, work.naive_amount)
        record["speedup"] = {
            "median": statistics.median(work.ratios),
            "min": min(work.ratios),
            "max": max(work.ratios),
        }
    return record


def _rates(seconds: list[float], amount: float) -> dict[str, float]:
    return {
        "median": amount / statistics.median(seconds),
        "min": amount / max(seconds),
        "max": amount / min(seconds),
        "repeats": len(seconds),
    }


def _evolution(
    recipe: Recipe, agent: Agent, records: list[dict[str, Any]], env: bool
) -> list[dict[str, Any]]:
    """Seconds of one generation: CMA-ES itself, and the rollouts, all of them as long as they may be."""
    stage = next((s for _, s in stages(recipe.schedule) if isinstance(s, Evolve)), None)
    if stage is None:
        return []
    flat = torch.cat([p.detach().reshape(-1) for p in agent.behaviour.parameters()])
    try:
        evolution = Evolution(stage.cma, flat)
    except MissingExtra as error:
        return [{"name": "generation", "shape": "", "unit": "s", "skipped": str(error)}]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        weights = evolution.ask()
        evolution.tell(weights.square().mean(1).tolist())
        times.append(time.perf_counter() - began)
    shape = f"population {stage.cma.population}, {flat.numel()} weights"
    found: list[dict[str, Any]] = [
        {"name": "CMA-ES", "shape": shape, "unit": "s", "median": statistics.median(times), "min": min(times)}
    ]
    rollouts = stage.cma.population * stage.episodes
    if stage.where == "env":
        return [*found, _generation_in_env(recipe, agent, rollouts, env)]
    speed = next(r["median"] for r in records if r["name"] == "dream")
    longest = statistics.median(times) + rollouts * stage.horizon / speed
    shape = f"{rollouts} rollouts, all {stage.horizon} steps long (dreams that end cost less)"
    return [*found, {"name": "generation", "shape": shape, "unit": "s", "median": longest}]


def _generation_in_env(recipe: Recipe, agent: Agent, rollouts: int, env: bool) -> dict[str, Any]:
    """From some seconds of candidates that act in the real environment."""
    record: dict[str, Any] = {"name": "generation", "shape": f"{rollouts} rollouts", "unit": "s"}
    notes = [] if env else ["it plays the real environment, which was left out"]
    with Players(recipe, agent.eval(), notes) as players:
        played = players.of(Episodes(count=rollouts, candidates=True)) if env else None
    if (duration := played and played.duration(rollouts)) is None:
        return {
            **record,
            "skipped": notes[0] if notes else "no episode ended, and it is not known when they do",
        }
    if duration.most is None:
        return {
            **record,
            "shape": f"{rollouts} rollouts, as long as untrained ones",
            "median": duration.about,
        }
    assert played is not None
    shape = f"{rollouts} rollouts, all {played.longest} steps long (episodes that end cost less)"
    return {**record, "shape": shape, "median": duration.most}


def _env(recipe: Recipe, seconds: float) -> list[dict[str, Any]]:
    """Steps per second of the real environment under random actions."""
    record: dict[str, Any] = {"name": "environment", "shape": f"{recipe.env.num} at once", "unit": "steps/s"}
    try:
        env = recipe.env.make()
    except (MissingExtra, OneiroError) as error:
        return [{**record, "skipped": str(error)}]
    times = []
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        while sum(times) < seconds or len(times) < 10:
            began = time.perf_counter()
            env.step(env.action_space.sample())
            if not env.running.all():
                env.reset(options={"reset_mask": ~env.running})
            times.append(time.perf_counter() - began)
    finally:
        env.close()
    # The mean: resets are rare and long, and belong to the cost.
    return [{**record, "median": env.num_envs * len(times) / sum(times), "repeats": len(times)}]
