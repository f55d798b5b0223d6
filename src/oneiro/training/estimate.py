"""What a recipe would take, before anything starts: parameters, disk, RAM, GPU memory and hours.

Every stage is tried for a moment on this machine (a few episodes, two updates, a few dream steps) and scaled up;
nothing is looked up in a table. On the CPU an update on long sequences is tried on short ones, and its time and its
RAM are scaled to the length. Dreams are counted to their horizon, so their time is an upper bound.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import psutil
import torch

from oneiro import runtime, tree
from oneiro.agent import Agent
from oneiro.behaviours.population import Population
from oneiro.data.collect import play
from oneiro.data.replay import Replay
from oneiro.data.store import EpisodeStore
from oneiro.dreaming import imagine
from oneiro.errors import MissingExtra
from oneiro.spaces import Spaces
from oneiro.training.acting import Acting
from oneiro.training.epochs import Epochs
from oneiro.training.evolve import Evolve
from oneiro.training.fit import Fitter, parameter_counts
from oneiro.training.guard import Guard
from oneiro.training.memory_count import ALLOCATOR, blank_rows, count_update
from oneiro.training.needs import memory_of, needs, online_stage
from oneiro.training.online import Online
from oneiro.training.plan import Plan, StagePlan
from oneiro.training.recipe import Recipe
from oneiro.training.run import GIB, build_agent
from oneiro.training.schedule import Collect, Memorise, Stage, Update, stages
from oneiro.types import Carry

_PATIENCE = 3.0  # seconds of playing, at most
_ENOUGH = 2.0  # seconds of repeating a moment, after which no further repetition begins
_LARGE = 100_000_000  # numbers of an agent above which an offline recipe is only counted
_TRIED = 8 << 30  # bytes of an update above which it is not tried
_STEPS = 32  # rows of a sequence that are tried on the CPU


def estimate(recipe: Recipe, *, timed: bool = True) -> Plan:
    """Measure a moment of every stage (or with `timed=False` only count)."""
    report = runtime.start(recipe.runtime)
    spaces = recipe.env.spaces()
    if online_stage(recipe) is not None:
        return _estimate_online(recipe, spaces, report.device, timed)
    if _weights(recipe, spaces) > _LARGE:
        return _estimate_large(recipe, spaces, report.device)
    agent = build_agent(recipe, spaces).to(report.device).eval()
    notes: list[str] = []
    play_facts = _Played.measure(recipe, agent, notes) if timed else _Played()
    named = stages(recipe.schedule)
    plans: list[StagePlan] = []
    peaks = [float(_peak())]
    for name, stage in named:
        seconds = _seconds(stage, recipe, agent, play_facts, peaks) if timed else None
        plans.append(StagePlan(name=name, about=stage.line(), seconds=seconds))
    episodes = sum(s.episodes for _, s in named if isinstance(s, Collect))
    steps = sum(s.collected for _, s in named if isinstance(s, Epochs))
    rows = min(int(episodes * play_facts.rows_per_episode) + steps, recipe.data.capacity)
    gpu = torch.cuda.max_memory_allocated(report.device) / GIB if report.device.type == "cuda" else 0.0
    return Plan(
        device=runtime.describe_device(report.device),
        parameters=parameter_counts(agent),
        schedule=plans,
        rows=rows,
        replay_gib=rows * play_facts.bytes_per_row / GIB,
        ram_gib=max(*peaks, _peak()) / GIB + recipe.data.ram,
        gpu_gib=gpu,
        notes=notes,
    )


def _weights(recipe: Recipe, spaces: Spaces) -> int:
    """Numbers in the agent, counted on shapes alone."""
    with torch.device("meta"):
        return sum(x.numel() for x in build_agent(recipe, spaces).state_dict().values())


def _estimate_large(recipe: Recipe, spaces: Spaces, device: torch.device) -> Plan:
    """Nothing is built: memory is counted on shapes alone, time is not measured."""
    named = stages(recipe.schedule)
    counted = [count_update(recipe, spaces, stage) for _, stage in named if isinstance(stage, Update)]
    with torch.device("meta"):
        parameters = parameter_counts(build_agent(recipe, spaces))
    kind = "GPU memory" if device.type == "cuda" else "RAM"
    need = (
        ALLOCATOR["cuda" if device.type == "cuda" else "cpu"]
        * max((each.peak for each in counted), default=0)
        / GIB
    )
    there = memory_of(device)[1] / GIB
    notes = [
        f"an agent of {sum(parameters[o] for o in ('world', 'behaviour')):,} weights is counted on shapes alone: time "
        "was not measured, and what the videos take on the disk depends on them",
    ]
    if need > there:
        notes.append(f"an update needs {need:.1f} GiB of {kind} and the machine has {there:.1f}")
    is_gpu = device.type == "cuda"
    return Plan(
        device=runtime.describe_device(device),
        parameters=parameters,
        schedule=[StagePlan(name=name, about=stage.line(), seconds=None) for name, stage in named],
        rows=0,
        replay_gib=0.0,
        ram_gib=_peak() / GIB + recipe.data.ram + (0.0 if is_gpu else need),
        gpu_gib=need if is_gpu else 0.0,
        notes=notes,
    )


def _estimate_online(recipe: Recipe, spaces: Spaces, device: torch.device, timed: bool) -> Plan:
    """Memory is counted on shapes alone; the network is built for its time only, and only if it fits."""
    stage = online_stage(recipe)
    assert stage is not None
    need, counted = needs(recipe, spaces, stage, device)
    kind, there = memory_of(device)
    wanted = need.gpu or need.ram
    notes: list[str] = []
    if wanted > there:
        notes.append(
            f"{wanted / GIB:.1f} GiB of {kind} are needed and the machine has {there / GIB:.1f}; --fit "
            f"{there // GIB}GiB names what fits"
        )
    played, plans = _Played(), [(name, stage, None) for name, stage in stages(recipe.schedule)]
    if timed and need.gpu + need.update > min(there, _TRIED):
        notes.append("time was not measured: an update is too large to be tried")
    elif timed:
        agent = build_agent(recipe, spaces).to(device).eval()
        played = _Played.measure(recipe, agent, notes)
        plans = [(name, stage, _seconds(stage, recipe, agent, played, [])) for name, stage, _ in plans]
    bytes_per_row = played.bytes_per_row or need.row
    if not played.bytes_per_row:
        notes.append(
            "disk is the worst case: nothing was played, so rows count as if they were not compressed"
        )
    if need.gpu:
        notes.append("GPU memory is counted on shapes with a margin for the allocator")
    return Plan(
        device=runtime.describe_device(device),
        parameters=counted.parameters,
        schedule=[StagePlan(name=n, about=s.line(), seconds=x) for n, s, x in plans],
        rows=need.rows,
        replay_gib=need.rows * bytes_per_row / GIB,
        ram_gib=need.ram / GIB,
        gpu_gib=need.gpu / GIB,
        ram_bytes=need.ram_bytes,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Played:
    """What a few episodes with the first policy of the schedule told."""

    rows_per_second: float | None = None
    rows_per_episode: float = 0.0
    bytes_per_row: float = 0.0

    @classmethod
    def measure(cls, recipe: Recipe, agent: Agent, notes: list[str]) -> "_Played":
        first = next(
            (s for _, s in stages(recipe.schedule) if isinstance(s, Collect | Epochs | Online)), None
        )
        if first is None:
            return cls()
        player = Agent(agent.world, first.policy.build(agent.world.spaces)) if first.policy else agent
        try:
            env = recipe.env.make()
        except MissingExtra as missing:
            notes.append(f"the environment was not tried: {missing}")
            return cls()
        if isinstance(first, Online):
            return cls._live(recipe, player, env)
        return cls._collect(recipe, player, env)

    @classmethod
    def _live(cls, recipe: Recipe, player: Agent, env: gymnasium.vector.VectorEnv) -> "_Played":
        """Act and store as `Online` does, without updates."""
        episodes = 0
        with tempfile.TemporaryDirectory() as folder:
            replay = Replay(Path(folder), streams=env.num_envs, ram=int(recipe.data.ram * GIB))
            device = player.world.device
            acting = Acting(player, env, replay, seed=recipe.seed, device=device, overlap=False)
            began = time.perf_counter()
            try:
                while time.perf_counter() - began < _PATIENCE:
                    episodes += len(acting.live().ended)
                    acting.go_on()
            finally:
                env.close()
            seconds = time.perf_counter() - began
            replay.flush()
            size = sum(file.stat().st_size for file in Path(folder).rglob("*.rows"))
            latents = replay.memo_type.nbytes if replay.memo_type else 0
            return cls(
                rows_per_second=replay.rows / seconds,
                rows_per_episode=replay.rows / max(1, episodes),
                bytes_per_row=size / replay.rows + latents,
            )

    @classmethod
    def _collect(cls, recipe: Recipe, player: Agent, env: gymnasium.vector.VectorEnv) -> "_Played":
        """Play whole episodes as `Collect` does."""
        steps = 0

        def count(n: int) -> None:
            nonlocal steps
            steps += n

        began, episodes = time.perf_counter(), []
        with tempfile.TemporaryDirectory() as folder:
            store = EpisodeStore(Path(folder) / "replay", ram=GIB // 4, capacity=recipe.data.capacity)
            try:
                for episode in islice(
                    play(env, player, range(10_000), seed=recipe.seed, explore=True, on_step=count), 64
                ):
                    episodes.append(len(episode))
                    store.add(episode)
                    if time.perf_counter() - began > _PATIENCE:
                        break
            finally:
                env.close()
            seconds = time.perf_counter() - began
            store.flush()
            size = sum(f.stat().st_size for f in (Path(folder) / "replay").rglob("*") if f.is_file())
        rows = sum(episodes)
        return cls(
            rows_per_second=max(steps, rows) / seconds,
            rows_per_episode=rows / len(episodes),
            bytes_per_row=size / rows,
        )


def _seconds(stage: Stage, recipe: Recipe, agent: Agent, played: _Played, peaks: list[float]) -> float | None:
    """Time of a whole stage, scaled up from a moment of it; `peaks` is given the RAM of its updates."""
    match stage:
        case Collect():
            return _playing(stage.episodes, played)
        case Update():
            return stage.updates * _update_seconds(stage, agent, peaks) if stage.updates else 0.0
        case Online():
            rate = played.rows_per_second
            updates = stage.updates(stage.steps) * _update_seconds(stage, agent, peaks)
            return None if rate is None else stage.steps / rate + updates
        case Epochs():
            rate = played.rows_per_second
            updates = sum(_task_seconds(stage, i, agent, peaks) for i in range(len(stage.tasks)))
            return None if rate is None else stage.collected / rate + updates
        case Memorise():
            collected = sum(s.episodes for _, s in stages(recipe.schedule) if isinstance(s, Collect))
            return collected * played.rows_per_episode * _memo_seconds(stage, agent)
        case Evolve(where="env"):
            playing = _playing(stage.cma.population * stage.episodes, played)
            return None if playing is None else stage.generations * playing
        case Evolve():
            return stage.generations * stage.horizon * _dream_seconds(stage, agent)
    policies = getattr(stage, "episodes", 0) * (1 + len(getattr(stage, "rivals", ())))
    return _playing(policies, played)


def _playing(episodes: int, played: _Played) -> float | None:
    rate = played.rows_per_second
    return None if rate is None else episodes * played.rows_per_episode / rate


def _update_seconds(stage: Update | Online, agent: Agent, peaks: list[float]) -> float:
    fitter = Fitter(stage.fit, agent, Guard(Path(os.devnull).parent))
    length = getattr(stage.batch, "length", 1)
    tried = min(length, _STEPS) if agent.world.device.type == "cpu" else length
    agent.train()
    shortest = _try(fitter, agent, stage, 2) if tried < length else 0.0
    peaks.append(_peak())
    runtime.release_memory()
    before = psutil.Process().memory_info().rss
    _forget_peak()
    seconds = _try(fitter, agent, stage, tried)
    agent.eval()
    peaks.append(before + max(0, _peak() - before) * length / tried)
    # What does not grow with the length (the optimizer's step) is in `shortest`, and in `before`.
    return seconds + (length - tried) * max(0.0, seconds - shortest) / max(1, tried - 2)


def _task_seconds(stage: Epochs, index: int, agent: Agent, peaks: list[float]) -> float:
    """All updates of one task; its segments are short, so they are tried whole."""
    fitter = Fitter(stage.fit, agent, Guard(Path(os.devnull).parent))
    batch = stage.tasks[index].batch
    rows = blank_rows(agent, batch.size, batch.length, memo=False)
    agent.train()
    seconds = _time(lambda: fitter.apply(rows, only=(index,)))
    agent.eval()
    peaks.append(_peak())
    return stage.updates(index) * seconds


def _try(fitter: Fitter, agent: Agent, stage: Update | Online, length: int) -> float:
    batch = blank_rows(agent, stage.batch.size, length, memo=not isinstance(stage, Online))
    return _time(lambda: fitter.apply(batch))


@torch.no_grad()
def _memo_seconds(stage: Memorise, agent: Agent) -> float:
    row = tree.map(lambda x: x[:, 0], blank_rows(agent, stage.size, 1))
    world = agent.world
    return _time(lambda: world.memo(world.observe(world.start(stage.size), row))) / stage.size


@torch.no_grad()
def _dream_seconds(stage: Evolve, agent: Agent) -> float:
    population = Population(agent.behaviour)
    rows = stage.cma.population * stage.episodes
    carry = Carry(state=agent.world.start(rows), memory=population.memory(rows))
    steps = imagine(agent.world, population, carry, temperature=stage.temperature)
    return _time(lambda: next(steps), repeats=4)


def _time(work: Callable[[], Any], repeats: int = 2) -> float:
    """Seconds of the fastest of `repeats` calls, after one to warm up; fewer if they take long."""
    seconds: list[float] = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        if len(seconds) > 1 and sum(seconds) > _ENOUGH:
            break
    return min(seconds[1:])


def _forget_peak() -> None:
    """Let `_peak` begin anew, where the system can (Linux); elsewhere it stays that of the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Largest resident size of this process so far (or since `_forget_peak`), bytes."""
    info = psutil.Process().memory_info()
    try:
        import resource
    except ImportError:  # Windows
        return info.rss
    unit = 1 if sys.platform == "darwin" else 1024
    return max(info.rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
