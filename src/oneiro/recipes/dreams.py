"""The dream of a run folder as an environment of Gymnasium; dreams begin where stored episodes were.

env = dream_env("runs/demo", num_envs=64, horizon=500, sees="feature")
env = gymnasium.make("oneiro/Dream-v0", run="runs/demo")       # one dream: single_dream
env = gymnasium.make_vec("oneiro/Dream-v0", num_envs=64, run="runs/demo")
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from oneiro import tree
from oneiro.agent import Agent, Starts
from oneiro.data.batches import Stretch, gather
from oneiro.data.episode_reader import EpisodeReader
from oneiro.envs.dream import DreamEnv
from oneiro.envs.single_dream import SingleDream
from oneiro.errors import OneiroError
from oneiro.recipes.saved import open_run
from oneiro.training.run import Trained
from oneiro.training.starts import first_rows
from oneiro.types import Carry, TimeStep


def dream_env(
    run: Path | str | Trained,
    num_envs: int = 1,
    *,
    horizon: int = 500,
    context: int | None = None,
    count: int = 1000,
    anywhere: bool = False,
    recipe: str | None = None,
    seed: int = 0,
    **view: Any,
) -> DreamEnv:
    """`num_envs` dreams of a run's world, `horizon` imagined steps at most.

    Each begins after `context` real rows (default: the world's own, or 1) of one of `count` stored episodes
    chosen by `seed`: its first rows, or with `anywhere` rows from any part of it. `recipe` as in
    `oneiro.load`; `view` goes to `DreamEnv` (sees, temperature, autoreset_mode, channels, render_mode).
    """
    begin = _Beginnings(run, context, count, anywhere, recipe, seed)
    return DreamEnv(begin.agent.world, begin, num_envs, horizon, **view)


def single_dream(
    run: Path | str | Trained,
    *,
    horizon: int = 500,
    context: int | None = None,
    count: int = 1000,
    anywhere: bool = False,
    recipe: str | None = None,
    seed: int = 0,
    **view: Any,
) -> SingleDream:
    """The same for one dream, as a `gymnasium.Env`."""
    begin = _Beginnings(run, context, count, anywhere, recipe, seed)
    return SingleDream(begin.agent.world, begin, horizon, **view)


class _Beginnings:
    """Keeps real rows and settles the agent on n of them when asked: states may be far larger than rows."""

    def __init__(
        self,
        run: Path | str | Trained,
        context: int | None,
        count: int,
        anywhere: bool,
        recipe: str | None,
        seed: int,
    ) -> None:
        trained = open_run(run, recipe) if isinstance(run, (str, Path)) else run
        self.agent: Agent = trained.agent
        self.context = context or self.agent.world.context or 1
        starts = Starts(context=self.context, count=count)
        choose = windows if anywhere else first_rows
        self.rows: TimeStep = choose(trained.store, starts, seed, trained.device)

    def __call__(self, n: int, random: np.random.Generator) -> Carry:
        index = torch.from_numpy(random.integers(tree.size(self.rows.is_first), size=n))
        return self.agent.settle(tree.take(self.rows, index.to(self.rows.is_first.device)), self.context)


def windows(store: EpisodeReader, starts: Starts, seed: int, device: torch.device | str) -> TimeStep:
    """[N, context] rows from anywhere in stored episodes, every row of the store as likely as any other; the
    last row of an episode never ends a window, since nothing follows it.
    """
    places = np.maximum(store.lengths - starts.context, 0)
    if not places.sum():
        raise OneiroError(
            f"no stored episode is longer than {starts.context} rows, so no dream can begin; collect episodes first"
        )
    random = np.random.default_rng(seed)
    fields = ("action", *store.memos) if store.memos else store.fields
    stretches = []
    for b, place in enumerate(random.integers(places.sum(), size=starts.count)):
        episode = int(np.searchsorted(places.cumsum(), place, side="right"))
        start = int(place - places.cumsum()[episode] + places[episode])
        stretches.append(Stretch(b, 0, int(store.ids[episode]), start, start + starts.context))
    return tree.to(gather(store, fields, starts.count, starts.context, stretches), device)
