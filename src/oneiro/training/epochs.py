"""The stage `Epochs`: collect a little, then fit each group in turn, again and again (DIAMOND's and IRIS's loop).

    epoch 1    collect until `first_steps`      then every task with its `first` updates
    epoch e    collect `steps` more             then every task with its `updates`
    ...        once `total_steps` are collected, epochs go on without collecting

Episodes are played to their end, so a collection may overshoot; the next ones are then shorter. (DIAMOND's code stops
in mid-episode and trains on what there is of it.)
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from oneiro import tree
from oneiro.agent import Agent
from oneiro.data.collect import play
from oneiro.data.samplers import prefetch
from oneiro.training.fit import Fit, Fitter
from oneiro.training.schedule import Stage, add_up

if TYPE_CHECKING:
    from oneiro.training.recipe import Recipe
    from oneiro.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one group of the fit is trained on in an epoch."""

    batch: Any  # a sampler config of oneiro.data
    updates: int  # optimizer steps in every epoch but the first
    first: int  # optimizer steps in the first epoch


@dataclass(frozen=True, kw_only=True)
class Epochs(Stage):
    """Collect, then one task after the other; repeated."""

    fit: Fit  # groups of parts and their optimizers, one for each task
    tasks: tuple[Task, ...]  # in the order in which they are done
    epochs: int = 1000  # how often
    first_steps: int = 5000  # environment steps collected before the first epoch
    rare_rewards: int = 10  # and on until this many rewards have another sign than most
    most_first_steps: int = 10_000  # but not beyond this
    steps: int = 100  # environment steps collected in every further epoch
    total_steps: int = 100_000  # after which nothing more is collected
    policy: Any = (
        None  # config of a random behaviour for the first collection; None = the agent itself, exploring
    )
    log_every: int = 100  # updates between lines in metrics.jsonl (means over them)

    keeps: ClassVar[Literal["episodes", "streams"] | None] = "episodes"

    def __post_init__(self) -> None:
        if len(self.tasks) != len(self.fit.groups):
            raise ValueError(
                f"there are {len(self.tasks)} tasks for {len(self.fit.groups)} groups of the fit; give one for each"
            )
        if not self.first_steps <= self.most_first_steps <= self.total_steps:
            raise ValueError(
                f"first_steps {self.first_steps} <= most_first_steps {self.most_first_steps} <= total_steps "
                f"{self.total_steps} is needed"
            )

    def line(self) -> str:
        """See `Stage.line`."""
        tasks = "; ".join(
            f"{' + '.join(group.address)} {task.updates:,} updates (first {task.first:,}) "
            f"on {task.batch.size} x {task.batch.length} rows"
            for group, task in zip(self.fit.groups, self.tasks, strict=True)
        )
        return f"{self.epochs:,} epochs of {self.steps} steps up to {self.total_steps:,}: {tasks}"

    def total(self) -> int:
        """Updates of all tasks."""
        return sum(self.updates(index) for index in range(len(self.tasks)))

    def updates(self, index: int) -> int:
        """Of one task."""
        task = self.tasks[index]
        return task.first + (self.epochs - 1) * task.updates if self.epochs else 0

    @property
    def collected(self) -> int:
        """Environment steps asked for in all epochs."""
        return min(self.first_steps + max(0, self.epochs - 1) * self.steps, self.total_steps)

    def require(self, recipe: "Recipe") -> None:
        """See `Stage.require`."""
        for index, task in enumerate(self.tasks):
            if self.updates(index):
                task.batch.require_capacity(recipe.data.capacity)

    def run(self, run: "Run") -> None:
        """Batch k of a task is a pure function of (seed, k) and of what is stored."""
        done = run.done
        done.setdefault("epoch", 0)
        done.setdefault("task", 0)
        done.setdefault("updates", 0)
        # Episodes may have been dropped since (data.capacity), or stored after the checkpoint.
        done["collected"] = max(done.get("collected", 0), _steps(run.collected))
        fitter = run.fitter(self.fit)
        run.progress.advance(sum(fitter.steps))
        with run.env() as env:
            while done["epoch"] < self.epochs:
                self._collect(run, env)
                for index in range(done["task"], len(self.tasks)):
                    self._train(run, fitter, index)
                    done["task"], done["updates"] = index + 1, 0
                done["epoch"], done["task"] = done["epoch"] + 1, 0

    # -- collecting ------------------------------------------------------------------------------------------

    def _collect(self, run: "Run", env: Any) -> None:
        """Whole episodes, as many at once as there are slots, until enough steps are collected."""
        store, epoch = run.collected, run.done["epoch"]
        if epoch and not self.steps:
            return
        is_first = epoch == 0
        agent = (
            Agent(run.agent.world, self.policy.build(run.spaces)) if is_first and self.policy else run.agent
        )
        scores = []
        while self._is_due(run):
            begin = int(store.ids[-1]) + 1 if len(store) else 0
            ids = list(range(begin, begin + env.num_envs))
            for episode in play(
                env,
                agent.eval(),
                ids,
                seed=run.recipe.seed,
                explore=True,
                on_step=lambda n: run.progress.advance(0, env_steps=n),
            ):
                store.add(episode)
                run.done["collected"] += len(episode) - 1
                scores.append(float(episode.info["score"]))
                run.tick()
            store.flush()
        if scores:
            run.record(
                run.done["collected"],
                {
                    "collect/score": float(np.mean(scores)),
                    "collect/episodes": float(len(store)),
                    "collect/rows": float(store.rows),
                    "collect/epoch": float(epoch + 1),
                },
            )

    def _is_due(self, run: "Run") -> bool:
        epoch, collected = run.done["epoch"], run.done["collected"]
        if epoch == 0 and self.first_steps <= collected < self.most_first_steps:
            return _rare(run.collected) < self.rare_rewards
        return collected < min(self.first_steps + epoch * self.steps, self.total_steps)

    # -- learning --------------------------------------------------------------------------------------------

    def _train(self, run: "Run", fitter: Fitter, index: int) -> None:
        task, epoch, done = self.tasks[index], run.done["epoch"], run.done
        count = task.updates if epoch else task.first
        before = task.first + (epoch - 1) * task.updates if epoch else 0
        if done["updates"] >= count:
            return
        sampler = task.batch.build(run.store, seed=run.stage_seed + index)
        run.agent.train()
        for k, batch in enumerate(
            prefetch(sampler, before + done["updates"], before + count), done["updates"]
        ):
            began = time.perf_counter()
            losses = fitter.apply(tree.to(batch, run.device), only=(index,))
            done["updates"] = k + 1
            is_last = k + 1 == count
            self._note(run, losses.metrics, before + k + 1, is_last, index, time.perf_counter() - began)
            run.tick()
        run.agent.eval()

    def _note(
        self, run: "Run", metrics: dict[str, Tensor], k: int, is_last: bool, index: int, seconds: float
    ) -> None:
        """Means over `log_every` updates, or over what is left of an epoch's task."""
        sums = run.carry.setdefault("sums", {})
        add_up(sums, metrics)
        shown: dict[str, float] = {}
        if is_last or k % self.log_every == 0:
            count = sums.pop("count")
            means = {name: value / count for name, value in sums.items()}
            means["guard/skipped"] = torch.tensor(float(run.guard.skipped))
            run.carry["sums"] = {}
            part = "+".join(self.fit.groups[index].address)
            shown = run.record(k, means, timing={f"time/{part}": seconds})
        run.progress.advance(1, updates=1, metrics=shown)


def _steps(store: Any) -> int:
    """Environment steps that are stored: rows but for the first of each episode."""
    return store.rows - len(store)


def _rare(store: Any) -> int:
    """How many stored rewards have another sign than most."""
    signs = np.zeros(3, np.int64)
    for id, length in zip(store.ids.tolist(), store.lengths.tolist(), strict=True):
        reward = np.empty(length, np.float32)
        store.copy("reward", id, 0, reward)
        signs += np.bincount(np.sign(reward[1:]).astype(np.int64) + 1, minlength=3)
    return int(signs.sum() - signs.max())
