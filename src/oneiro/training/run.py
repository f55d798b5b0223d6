"""`Run`: a recipe at work in a run folder; resumes by being started again."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from oneiro import runtime, tree
from oneiro.data.episode_reader import EpisodeReader
from oneiro.data.replay import Replay, joined
from oneiro.data.replay_episodes import ReplayEpisodes
from oneiro.data.store import EpisodeStore
from oneiro.envs.config import HOW_IT_RUNS, EnvConfig
from oneiro.errors import OneiroError
from oneiro.spaces import Spaces
from oneiro.training.checkpoint import Checkpoints
from oneiro.training.files import plain
from oneiro.training.fit import Fit, Fitter
from oneiro.training.given import Given
from oneiro.training.guard import Guard
from oneiro.training.log import MetricsLog
from oneiro.training.needs import check_machine
from oneiro.training.parallel import Ranks
from oneiro.training.progress import Progress
from oneiro.training.recipe import Recipe, build_agent, to_json
from oneiro.training.run_folder import RunFolder
from oneiro.training.schedule import Stage, index_of, round_of, stages
from oneiro.training.signals import Every, Stop
from oneiro.training.state import (
    load_module,
    load_optimizer,
    module_tensors,
    optimizer_state,
    random_state,
    set_random_state,
)
from oneiro.world import part_module

logger = logging.getLogger("oneiro")
GIB = 1 << 30


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop, has saved, and leaves."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Another run whose experience and world this one begins with; its own stages before `stage` are skipped."""

    run: Path  # the other run's folder; it is only read
    stage: str  # first stage that is done here
    parts: tuple[str, ...] = ()  # parts of its world to take; () = all

    @classmethod
    def of(cls, folder: RunFolder) -> "Origin | None":
        """As noted in the run folder's recipe.json."""
        saved = folder.recipe.get("origin") or {}
        if "run" not in saved:
            return None
        return cls(run=Path(saved["run"]), stage=saved["stage"], parts=tuple(saved["parts"]))


class Trained:
    """A recipe's agent and the experience it was trained on, in a run folder."""

    checkpoint = ""
    """Name of the checkpoint that was loaded."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        self.recipe, self.folder = recipe, folder
        self.device = runtime.start(recipe.runtime).device
        runtime.seed_everything(recipe.seed)
        self.spaces: Spaces = recipe.env.spaces()
        self.agent = build_agent(recipe, self.spaces).to(self.device).eval()
        self.origin = Origin.of(folder)
        self.checkpoints = Checkpoints(folder.checkpoint, keep=recipe.checkpoint.keep)
        self.stages: list[tuple[str, Stage]] = stages(recipe.schedule)

    @classmethod
    def load(cls, recipe: Recipe, folder: RunFolder) -> "Trained":
        """With the weights of the newest checkpoint; OneiroError if there is none yet."""
        saved = Checkpoints(folder.checkpoint).load()
        if saved is None:
            raise OneiroError(
                f"{folder.path} has no checkpoint yet: train it first, or wait for its first one"
            )
        trained = cls(recipe, folder)
        load_module(trained.agent, saved.tensors["weights"], f"checkpoint {saved.path.name}")
        trained.checkpoint = saved.path.name
        return trained

    @cached_property
    def store(self) -> EpisodeReader:
        """The episodes, read-only: a run may be going on in the folder. Opened when they are first asked for."""
        if keeps_streams(self.recipe):
            return ReplayEpisodes(self.replay)
        return open_store(self.recipe, self.folder, self.origin, "r")

    @cached_property
    def replay(self) -> Replay:
        """The streams of a run that has an online stage, read-only."""
        return open_replay(self.recipe, self.folder, self.origin, "r")


class Run(Trained):
    """A recipe being trained: owns the position in the schedule, and saves everything together.

    Where several processes train it, each has a `Run`. They go through an online stage in step; every other stage is
    the first one's, for which the others wait. The first one writes the log and the checkpoints.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        progress: Progress,
        stop: Stop,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.together = self.ranks  # those that are in the present stage
        self.progress, self.stop, self.given = progress, stop, Given.of(folder)
        runtime_here = replace(recipe.runtime, device=self.ranks.device(recipe.runtime.device))
        super().__init__(replace(recipe, runtime=runtime_here), folder)
        mode: Literal["a", "r"] = "r" if self.origin else "a"
        if self.given and keeps_streams(recipe):
            raise OneiroError(
                f"this recipe learns while it plays and cannot begin with the episodes of {self.given.folder}; "
                "choose one that collects whole episodes, or leave out --origin"
            )
        if self.given and not folder.checkpoint.exists():
            self.given.link(self)
        if keeps_streams(recipe):
            if self.origin:
                raise OneiroError(
                    "--origin lends a run the experience of another one to read, but this recipe has an online stage "
                    "(DreamerV3), which adds to it; leave out --origin, or name a recipe without such a stage"
                )
            self.replay = open_replay(recipe, folder, None, mode, self.ranks)
            self.store = ReplayEpisodes(self.replay)
        elif self.ranks.count > 1:
            raise OneiroError(
                "several processes can train a recipe with an online stage (DreamerV3); this one has none, start it "
                "without torchrun"
            )
        else:
            self.store = open_store(recipe, folder, self.origin, mode)
        self.log = MetricsLog(folder.path, recipe.log) if self.ranks.is_first else None
        self.guard = Guard(folder.path, rank=self.ranks.index)
        self.timer = Every(recipe.checkpoint.minutes)
        self.index = 0
        self.saves = 0
        self.done: dict[str, Any] = {}  # progress of the present stage, JSON
        self.carry: dict[str, Any] = {}  # and its tensors
        self.before_save: Callable[[], None] | None = None  # the present stage completes `done` and `carry`
        self._fitter: Fitter | None = None
        self._streams: dict[str, Any] | None = None  # where all streams began and ended when all were saved
        self._resume()
        self.ranks.unite(self.agent)

    @property
    def collected(self) -> EpisodeStore:
        """The store that stages add whole episodes to."""
        assert isinstance(self.store, EpisodeStore), "this run keeps streams"
        return self.store

    @property
    def stage_seed(self) -> int:
        """A seed of its own for every stage of the run."""
        return int(np.random.SeedSequence([self.recipe.seed, self.index]).generate_state(1)[0])

    @property
    def round(self) -> int:
        """1, or n for the n-th repetition of the schedule."""
        return round_of(self.stages[self.index][0])

    def train(self) -> None:
        """Run what is left of the schedule. Raises `Stopped` after saving if asked to stop."""
        if not self.index and not self.done:
            count = sum(p.numel() for p in self.agent.parameters())
            check_machine(self.recipe, self.spaces, self.device, self.folder.path, count)
        while self.index < len(self.stages):
            stage = self.stages[self.index][1]
            if stage.keeps == "streams" or self.ranks.count == 1:
                self._do(stage)
            else:
                self.together = Ranks()
                self.together.unite(self.agent)
                if not self.ranks.first_alone(lambda: self._do(stage)):  # noqa: B023 - called at once
                    raise Stopped
                self.together = self.ranks
                self.ranks.unite(self.agent)
            self.index += 1
            self._fitter, self._saved_fitter, self.done, self.carry = None, None, {}, {}
            self.save()
            self.store.forget()
            runtime.release_memory()
            if self.together.any(self.stop.requested)[0]:
                raise Stopped

    def close(self) -> None:
        """Finish the log, which ends the runs of W&B and trackio."""
        if self.log is not None:
            self.log.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, stage: Stage) -> None:
        name = self.stages[self.index][0]
        if not self.done:
            runtime.seed_everything(self.ranks.seed(self.stage_seed))
        logger.info("stage %s: %s", name, stage.line())
        self.progress.stage(name, self.index, len(self.stages), stage.total())
        stage.run(self)

    def tick(self, save: bool = True) -> None:
        """A point at which the run may be saved or left; `save=False` where this stage cannot be resumed.

        All processes of a stage reach it together, and do what one of them wants.
        """
        stop, due = self.together.any(self.stop.requested, save and self.timer.due())
        if stop or due:
            self.save()
        if stop:
            raise Stopped

    def fitter(self, fit: Fit) -> Fitter:
        """The present stage's fitter, with its optimizers as they were saved."""
        self._fitter = Fitter(fit, self.agent, self.guard, self.together)
        if self._saved_fitter:
            self._fitter.updates = self._saved_fitter["updates"]
            for optimizer, saved in zip(
                self._fitter.optimizers, self._saved_fitter["optimizers"], strict=True
            ):
                load_optimizer(optimizer, saved)
        self._saved_fitter = None
        return self._fitter

    @contextmanager
    def env(self, config: Any = None) -> Iterator[Any]:
        """The vector environment of a config (default: the recipe's), closed afterwards."""
        env = (config or self.recipe.env).make()
        try:
            yield env
        finally:
            env.close()

    def record(
        self, step: int, metrics: Mapping[str, Tensor | float], timing: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Write one event to the log; returns its numbers."""
        values = {k: float(v) for k, v in metrics.items()} | dict(timing or {})
        if self.log is not None:
            self.log.write(step, values, stage=self.stages[self.index][0])
        return values

    def save(self) -> None:
        """One atomic checkpoint of everything that is not on disk already."""
        if self.before_save is not None:
            self.before_save()
        streams = isinstance(self.store, ReplayEpisodes)
        if self.origin is None:
            self.replay.flush() if streams else self.collected.flush()
        if streams and self.together.count == self.ranks.count:
            self._streams = joined(self.together.gather(self.replay.state()))  # after the flush of all
        self.saves += 1
        if self.log is not None:
            self._write(self.log.position())
        self.together.wait()  # nobody goes on, or leaves, before it is there
        self.timer.reset()

    def _write(self, log: dict[str, Any]) -> None:
        fitter = self._fitter
        state = {
            "index": self.index,
            "done": self.done,
            "carry": self.carry,
            "log": log,
            "guard": self.guard.state(),
            "random": random_state(),
            "replay": self._streams,
            "fitter": fitter
            and {"updates": fitter.updates, "optimizers": [optimizer_state(o) for o in fitter.optimizers]},
        }
        self.checkpoints.save(self.saves, {"weights": module_tensors(self.agent)}, state)

    def _resume(self) -> None:
        self._saved_fitter: dict[str, Any] | None = None
        saved = self.checkpoints.load()
        if isinstance(self.store, ReplayEpisodes) and self.origin is None:
            self._streams = saved and saved.state["replay"]
            self.replay.restore(self._streams)
        if self.log is not None:
            self.log.rewind(saved and saved.state["log"])
        if saved is None:
            if self.origin:
                self._begin_from(self.origin)
            if self.given:
                self._begin_with(self.given)
            return
        state = saved.state
        self.saves, self.index, self.done = saved.step, state["index"], state["done"]
        load_module(self.agent, saved.tensors["weights"], f"checkpoint {saved.path.name}")
        self.carry = tree.to(state["carry"], self.device)
        self.guard.load_state(state["guard"])
        self._saved_fitter = state["fitter"]
        if self.ranks.is_first:
            set_random_state(state["random"])
        else:
            runtime.seed_everything(self.ranks.seed(self.stage_seed + self.saves))
        self.progress.note(f"resuming from checkpoint {saved.path.name}, stage {self.index + 1}")

    def _begin_from(self, origin: Origin) -> None:
        index = index_of(origin.stage, self.stages)
        saved = Checkpoints(RunFolder.read(origin.run).checkpoint).load()
        if saved is None:
            raise OneiroError(f"{origin.run} has no checkpoint to begin with; train it first")
        world = self.agent.world
        taken = {"": world} if not origin.parts else {f"{p}.": part_module(world, p) for p in origin.parts}
        for part, module in taken.items():
            prefix = f"world.{part}"
            weights = {
                k.removeprefix(prefix): v for k, v in saved.tensors["weights"].items() if k.startswith(prefix)
            }
            load_module(module, weights, f"{origin.run}")
        self.index = index
        self.progress.note(
            f"beginning at stage {origin.stage} with the world and the experience of {origin.run}"
        )

    def _begin_with(self, given: Given) -> None:
        self.index = given.first(self.stages)
        name = self.stages[self.index][0]
        self.progress.note(f"beginning at stage {name} with {len(self.store):,} episodes of {given.folder}")
        self.save()


def keeps_streams(recipe: Recipe) -> bool:
    """True if a stage acts and learns at once: then the run has a `Replay`, otherwise an `EpisodeStore`."""
    kinds = {stage.keeps for _, stage in stages(recipe.schedule)}
    if len(kinds - {None}) > 1:
        raise OneiroError(
            "a schedule has either stages that collect whole episodes or an online stage, not both"
        )
    return "streams" in kinds


def open_replay(
    recipe: Recipe,
    folder: RunFolder,
    origin: Origin | None,
    mode: Literal["a", "r"],
    ranks: Ranks | None = None,
) -> Replay:
    """The streams of a run: its own, or those of the run it began from; with `ranks` those of this process."""
    data = recipe.data
    return Replay(
        RunFolder.read(origin.run).replay if origin else folder.replay,
        streams=recipe.env.num if mode == "a" else 0,
        ram=int(data.ram * GIB),
        capacity=data.capacity,
        compress=data.compress,
        mode=mode,
        share=ranks and ranks.share,
        env=_identity(recipe.env),
    )


def _identity(env: EnvConfig) -> dict[str, Any]:
    """Which environment it is and its settings, without how it is run."""
    settings = {name: value for name, value in plain(to_json(env)).items() if name not in HOW_IT_RUNS}
    return {"environment": type(env).__name__, **settings}


def open_store(
    recipe: Recipe, folder: RunFolder, origin: Origin | None, mode: Literal["a", "r"]
) -> EpisodeStore:
    """The replay of a run: its own, or that of the run it began from."""
    data = recipe.data
    return EpisodeStore(
        RunFolder.read(origin.run).replay if origin else folder.replay,
        ram=int(data.ram * GIB),
        capacity=data.capacity,
        compress=data.compress,
        mode=mode,
    )
