"""What an online recipe needs of a machine: RAM, GPU memory, disk; and what of it does not fit.

RAM      this process now + update (counted, on the CPU) + replay + batches in flight + environment workers
         + experience actors, if Ray is started on this machine for them
GPU      update (counted) + what CUDA itself takes
disk     rows x (rows of the environment + latents)
"""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch

from oneiro.errors import OneiroError
from oneiro.spaces import Spaces
from oneiro.training.memory_count import ALLOCATOR, UpdateMemory, count_update
from oneiro.training.online import Online
from oneiro.training.recipe import Recipe
from oneiro.training.schedule import stages

GIB = 1 << 30
_WORKER = 40 << 20  # an environment's worker process, as measured with MiniGrid
_ACTOR = 200 << 20  # an experience actor without its agent and environments, as measured
_RAY = 320 << 20  # Ray's own processes, as measured with 4 actors
_CUDA = 1 << 29  # the CUDA context: a margin, not measured
_BATCHES = 3  # in flight: in use, read ahead, latents on their way back
_SMALL = 2e8  # parameters x rows of an update below which its memory is not worth a count (under half a GiB)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes, by what they are for."""

    process: int  # Python and its libraries
    update: int  # on the CPU: the largest moment of an update, allocator included
    replay: int  # segments and blocks in RAM
    batches: int  # rows on their way
    environments: int  # worker processes
    actors: int  # processes that play, and Ray's own
    gpu: int  # 0 without a GPU
    row: int  # a row on the disk at worst, that is not compressed; latents included
    memo: int  # of which latents, which are never compressed
    rows: int  # rows of the replay in the end

    @property
    def ram(self) -> int:
        """Bytes of RAM, all processes together."""
        return sum(self.ram_bytes.values())

    @property
    def ram_bytes(self) -> dict[str, int]:
        """Parts of `ram` by name."""
        return {
            k: v
            for k, v in asdict(self).items()
            if k in ("process", "update", "replay", "batches", "environments", "actors")
        }


def online_stage(recipe: Recipe) -> Online | None:
    """The first online stage of a schedule."""
    return next((stage for _, stage in stages(recipe.schedule) if isinstance(stage, Online)), None)


def needs(
    recipe: Recipe, spaces: Spaces, stage: Online, device: torch.device, process: int | None = None
) -> tuple[Needs, UpdateMemory]:
    """Of a recipe with `stage` on `device`. `process`: bytes of a process that has only begun; default this one's."""
    process = psutil.Process().memory_info().rss if process is None else process
    counted = count_update(recipe, spaces, stage)
    raw = sum(prod(s) * (1 if len(s) == 3 else 4) for s in spaces.obs.values()) + 4 * (spaces.action.dim + 1)
    rows = min(
        sum(s.steps for _, s in stages(recipe.schedule) if isinstance(s, Online)), recipe.data.capacity
    )
    is_cuda = device.type == "cuda"
    held = int(counted.peak * ALLOCATOR["cuda" if is_cuda else "cpu"])
    return Needs(
        process=process,
        update=0 if is_cuda else held,
        replay=min(int(recipe.data.ram * GIB), rows * (raw + counted.memo)),
        batches=_BATCHES
        * stage.batch.size
        * (stage.batch.length + stage.batch.context)
        * (raw + counted.memo),
        environments=_workers(recipe.env, stage.actors.num) * _WORKER,
        actors=_actors(stage, counted.weights),
        gpu=held + _CUDA if is_cuda else 0,
        row=raw + counted.memo,
        memo=counted.memo,
        rows=rows,
    ), counted


def _workers(env: Any, actors: int) -> int:
    if getattr(env, "workers", "sync") != "async":
        return 0
    players = actors or 1
    return players * min(env.num // players, env.processes or psutil.cpu_count() or 1)


def _actors(stage: Online, weights: int) -> int:
    """As if all of them were here, also where a cluster takes some of them."""
    return stage.actors.num * (_ACTOR + weights) + bool(stage.actors.num) * _RAY


def memory_of(device: torch.device) -> tuple[str, int]:
    """("GPU memory" or "RAM", bytes the machine has)."""
    if device.type == "cuda":
        return "GPU memory", torch.cuda.get_device_properties(device).total_memory
    return "RAM", psutil.virtual_memory().total


def check_machine(
    recipe: Recipe, spaces: Spaces, device: torch.device, folder: Path, parameters: int
) -> None:
    """Warn before a run begins that it will not fit; OneiroError where the disk has not a tenth of the room.

    What is not known is passed over: how well pictures pack, and small updates are not counted at all.
    """
    stage = online_stage(recipe)
    if stage is None or parameters * stage.rows < _SMALL:
        return
    try:
        need, _ = needs(recipe, spaces, stage, device)
    except OneiroError:
        return
    kind, there = memory_of(device)
    wanted = need.gpu or need.ram
    remedy = "`oneiro show RECIPE --fit` names the largest size and batch that fit"
    if wanted > there:
        warnings.warn(
            f"this run will need about {wanted / GIB:.1f} GiB of {kind}, the machine has {there / GIB:.1f}. "
            f"Choose a smaller --size or batch ({remedy})",
            stacklevel=2,
        )
    latents, free = need.rows * need.memo, shutil.disk_usage(folder).free
    if free < latents / 10:
        raise OneiroError(
            f"the latents of {need.rows:,} rows alone need {latents / GIB:.1f} GiB in {folder}, and "
            f"{free / GIB:.2f} GiB are free: less than a tenth, so the run would end early. Free some space, name a "
            "folder on another disk with --run, or set a smaller --data.capacity"
        )
    if free < latents:
        warnings.warn(
            f"the latents of {need.rows:,} rows alone need {latents / GIB:.1f} GiB in {folder}, and "
            f"{free / GIB:.1f} GiB are free. Free some space, or set a smaller --data.capacity",
            stacklevel=2,
        )


def largest_batch(fits: Callable[[int], bool], first: int) -> int:
    """The largest batch size that fits, 0 if none does; `first` is where the search begins."""
    low, high = 0, max(1, first)
    while fits(high) and high < 1 << 20:
        low, high = high, 2 * high
    while high - low > max(1, low // 16):  # to a sixteenth: a prediction is not more exact
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
