"""How much memory an update takes, counted without computing it: shapes only, on PyTorch's meta device.

The update runs as it is written (losses, gradients, optimizer) on tensors that have a shape and no content. Every
storage that is made is added, and taken off when it is freed; the largest sum is the peak. A network of any size is
counted in a second or two and needs no memory. What the count leaves out is what an operation needs while it runs (the
scratch space of convolutions) and what the allocator keeps back; `ALLOCATOR` stands for both.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oneiro import tree
from oneiro.agent import Agent
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces
from oneiro.training.fit import Fitter, parameter_counts
from oneiro.training.online import Online
from oneiro.training.recipe import Recipe
from oneiro.training.schedule import Update
from oneiro.types import TimeStep

ALLOCATOR = {"cpu": 1.25, "cuda": 1.2}
"""Memory held for each counted byte. cpu: fitted to runs of benchmarks/memory.py; cuda: a margin, not measured."""


@dataclass(frozen=True, kw_only=True)
class UpdateMemory:
    """Bytes of one update, and exact numbers of parameters."""

    parameters: dict[str, int]
    weights: int  # all weights and buffers, what is not trained (slow critic) included
    optimizer: int  # running means and the like
    peak: int  # most that is held at once, weights and optimizer included
    memo: int  # latents beside a row of the replay


def count_update(recipe: Recipe, spaces: Spaces, stage: Online | Update) -> UpdateMemory:
    """Count an update of `stage`. OneiroError if the world cannot be run without content."""
    try:
        with torch.device("meta"), _Tally() as tally:
            world = recipe.world.build(spaces)
            agent = Agent(world, recipe.behaviour.build(spaces, world.feature_dim)).train()
            weights = tally.now
            fitter = Fitter(replace(stage.fit, pieces=1), agent, _NoGuard())  # type: ignore[arg-type]
            fitter.apply(blank_rows(agent, *_short(stage), memo=False))  # which makes the optimizer's state
            optimizer = tally.now - weights
            tally.peak = tally.now
            batch = blank_rows(agent, *_short(stage), memo=False)
            fitter.apply(batch)
            is_blank = isinstance(stage, Online) and not stage.batch.context
            memo = {} if is_blank else world.memo(world.start(1))
    except (NotImplementedError, RuntimeError) as error:
        raise OneiroError(f"the memory of an update cannot be counted on the meta device: {error}") from error
    if stage.fit.pieces > 1:  # their sum is kept beside the gradients of the present piece
        tally.peak += sum(x.nbytes for named in fitter.named for _, x in named)
    return UpdateMemory(
        parameters=parameter_counts(agent),
        weights=weights,
        optimizer=optimizer,
        peak=tally.peak,
        memo=sum(x.nbytes for x in memo.values()),
    )


def _short(stage: Online | Update) -> tuple[int, int]:
    """As many rows as the batch, in sequences of two: the sums are the same, the steps to run through fewer.

    Segments of an `Update` may be all that a world can learn from: they are taken whole, one piece of the batch.
    """
    if isinstance(stage, Update):
        return stage.batch.size // stage.fit.pieces, getattr(stage.batch, "length", 1)
    return -(-stage.rows // 2), min(2, stage.batch.length)


def with_batch(stage: Online, size: int) -> Online:
    """The stage with `size` sequences in a batch."""
    return replace(stage, batch=replace(stage.batch, size=size))


def blank_rows(agent: Agent, size: int, length: int, memo: bool = True) -> TimeStep:
    """[size, length] rows of zeros in the world's spaces; with `memo` sequences carry that instead of pictures."""
    world, device = agent.world, agent.world.device
    lead = (size, length)
    kept = world.memo(world.start(1)) if memo and length > 1 else {}
    dtypes = {name: torch.uint8 if len(s) == 3 else torch.float32 for name, s in world.spaces.obs.items()}
    obs = {} if kept else {k: torch.zeros(*lead, *s, dtype=dtypes[k]) for k, s in world.spaces.obs.items()}
    rows = TimeStep(
        obs=obs,
        action=torch.zeros(*lead, world.spaces.action.dim),
        reward=torch.zeros(lead),
        is_first=torch.zeros(lead, dtype=torch.bool),
        terminated=torch.zeros(lead, dtype=torch.bool),
        mask=torch.ones(lead, dtype=torch.bool),
        memo={k: torch.zeros(*lead, *v.shape[1:]) for k, v in kept.items()},
    )
    return tree.to(rows, device)


class _Tally(TorchDispatchMode):
    """Bytes of all storages that operations made and that are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # a number is asked for: there is none
            return False if args[0].dtype == torch.bool else 1.0  # AdamW divides by 1 - beta^step
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, size: int) -> None:
        self.now -= size


class _NoGuard:
    """Nothing can be wrong with numbers that are not there."""

    def check(self, losses: Any, groups: Sequence[Any], batch: Any) -> list[bool]:
        return [True] * len(groups)
