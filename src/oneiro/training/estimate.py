"""What a recipe would take, before anything starts: parameters, disk, RAM, GPU memory and hours.

Every stage is tried for a moment on this machine (two seconds of play, two updates, a few dream steps) and scaled up;
nothing is looked up in a table. On the CPU an update on long sequences is tried on short ones, and its time and its
RAM are scaled to the length. Dreams are counted to their horizon; how long episodes last is an estimate (played.py).
"""

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from oneiro import runtime, tree
from oneiro.agent import Agent
from oneiro.behaviours.population import Population
from oneiro.dreaming import imagine
from oneiro.spaces import Spaces
from oneiro.training.epochs import Epochs
from oneiro.training.evolve import Evolve
from oneiro.training.fit import Fitter, parameter_counts
from oneiro.training.guard import Guard
from oneiro.training.memory_count import ALLOCATOR, blank_rows, count_update
from oneiro.training.needs import memory_of, needs, online_stage
from oneiro.training.online import Online
from oneiro.training.plan import Duration, Plan, StagePlan
from oneiro.training.played import Players
from oneiro.training.recipe import Recipe
from oneiro.training.run import GIB, build_agent
from oneiro.training.schedule import Collect, Episodes, Memorise, Stage, Update, round_of, stages
from oneiro.types import Carry

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
    named = stages(recipe.schedule)
    durations: list[Duration | None] = [None] * len(named)
    peaks = [float(_peak())]
    with Players(recipe, agent, notes) if timed else nullcontext() as players:
        replay = _Replay.of(recipe, players)
        if players:
            durations = [_duration(*each, recipe, agent, players, replay, peaks) for each in named]
    gpu = torch.cuda.max_memory_allocated(report.device) / GIB if report.device.type == "cuda" else 0.0
    return Plan(
        device=runtime.describe_device(report.device),
        parameters=parameter_counts(agent),
        schedule=[StagePlan.of(n, s.line(), d) for (n, s), d in zip(named, durations, strict=True)],
        rows=replay.rows,
        replay_gib=replay.gib,
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
        schedule=[StagePlan.of(name, stage.line(), None) for name, stage in named],
        rows=None,
        replay_gib=None,
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
    row, named = None, stages(recipe.schedule)
    durations: list[Duration | None] = [None] * len(named)
    if timed and need.gpu + need.update > min(there, _TRIED):
        notes.append("time was not measured: an update is too large to be tried")
    elif timed:
        agent = build_agent(recipe, spaces).to(device).eval()
        with Players(recipe, agent, notes) as players:
            durations = [_duration(*each, recipe, agent, players, _Replay(), []) for each in named]
            row = (found := players.live(stage.policy, bool(stage.batch.context))) and found.bytes_per_row
    if not row:
        notes.append(
            "disk is the worst case: nothing was played, so rows count as if they were not compressed"
        )
    if need.gpu:
        notes.append("GPU memory is counted on shapes with a margin for the allocator")
    return Plan(
        device=runtime.describe_device(device),
        parameters=counted.parameters,
        schedule=[StagePlan.of(n, s.line(), d) for (n, s), d in zip(named, durations, strict=True)],
        rows=need.rows,
        replay_gib=need.rows * (row or need.row) / GIB,
        ram_gib=need.ram / GIB,
        gpu_gib=need.gpu / GIB,
        ram_bytes=need.ram_bytes,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Replay:
    """Rows of whole episodes in the end; None: not measured."""

    rows: int | None = None
    most: int | None = None
    """If every episode lasted to its environment's limit."""
    bytes_per_row: float | None = None

    @classmethod
    def of(cls, recipe: Recipe, players: Players | None) -> "_Replay":
        """What the stages of a recipe collect."""
        if not recipe.env.is_playable:  # recorded video, which nobody has looked at
            return cls()
        about, most, row = 0.0, 0.0, None
        for name, stage in stages(recipe.schedule):
            if isinstance(stage, Epochs):
                about, most = about + stage.collected, most + stage.collected
                played = players and players.of(Episodes(count=0))
                row = row or (played and played.bytes_per_row)
            for episodes in stage.plays(round_of(name)) if isinstance(stage, Collect) else ():
                if (played := players and players.of(episodes)) is None or played.rows is None:
                    return cls()
                row = row or played.bytes_per_row
                about += episodes.count * played.rows
                most += episodes.count * (played.longest + 1) if played.longest else math.inf
        return cls(
            rows=min(round(about), recipe.data.capacity),
            most=None if most == math.inf else min(round(most), recipe.data.capacity),
            bytes_per_row=row,
        )

    @property
    def gib(self) -> float | None:
        """On the disk."""
        if self.rows is None or (self.rows and self.bytes_per_row is None):
            return None
        return self.rows * (self.bytes_per_row or 0.0) / GIB


def _duration(
    name: str,
    stage: Stage,
    recipe: Recipe,
    agent: Agent,
    players: Players,
    replay: _Replay,
    peaks: list[float],
) -> Duration | None:
    """Of a whole stage, scaled up from a moment of it; `peaks` is given the RAM of its updates."""
    match stage:
        case Update():
            return Duration.of(stage.updates * _update_seconds(stage, agent, peaks) if stage.updates else 0.0)
        case Online():
            updates = stage.updates(stage.steps, stage.prefill) * _update_seconds(stage, agent, peaks)
            played = players.live(stage.policy, bool(stage.batch.context))
            return played and Duration.of(stage.steps / played.rate + updates)
        case Epochs():
            updates = sum(_task_seconds(stage, i, agent, peaks) for i in range(len(stage.tasks)))
            played = players.of(Episodes(count=0))
            return played and Duration.of(stage.collected / played.rate + updates)
        case Memorise():
            if replay.rows is None:
                return None
            row = _memo_seconds(stage, agent)
            return Duration(about=replay.rows * row, most=replay.most and replay.most * row)
        case Evolve(where="dream"):
            generations = stage.rollouts() / (stage.cma.population * stage.episodes)
            return Duration.of(generations * stage.horizon * _dream_seconds(stage, agent))
    found = [(episodes.count, players.of(episodes)) for episodes in stage.plays(round_of(name))]
    total = Duration.of(0.0) if found else None
    for count, played in found:
        duration = played and played.duration(count)
        total = total + duration if total and duration else None
    return total


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
