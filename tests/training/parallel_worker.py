"""One process of a job, for test_parallel: `parallel_worker.py FOLDER INDEX COUNT TASK [LOOKS]`."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from online_world import tally
from torch import Tensor, nn

from oneiro.agent import Agent
from oneiro.behaviours.actor_critic import ActorCriticConfig
from oneiro.data import stream_folder
from oneiro.data.samplers import Windows
from oneiro.envs.toy import ToyConfig
from oneiro.errors import OneiroError
from oneiro.training.fit import Fit, Fitter, Group
from oneiro.training.guard import Guard
from oneiro.training.laprop import LaProp
from oneiro.training.online import Online
from oneiro.training.optim import Adam
from oneiro.training.parallel import Ranks, connect
from oneiro.training.progress import Progress
from oneiro.training.recipe import Recipe, tweak
from oneiro.training.run import Run, Stopped
from oneiro.training.run_folder import RunFolder
from oneiro.training.schedule import Update
from oneiro.training.signals import Stop
from oneiro.types import TimeStep
from oneiro.worlds.dreamerv3 import DreamerV3Config

SIZE, LENGTH = 4, 6


class Recording(Adam):
    """Keeps the gradients that a step is made of."""

    def clip_(self, parameters) -> Tensor:
        parameters = list(parameters)
        found.append([None if p.grad is None else p.grad.clone() for p in parameters])
        return super().clip_(parameters)


found: list[list[Tensor | None]] = []


def joint_gradients(ranks: Ranks, folder: Path) -> dict[str, Tensor]:
    """Of an update on this rank's rows of one batch. Noise is drawn for all rows; each takes that of its own."""
    agent = dreamer()
    fitter = Fitter(
        Fit(groups=(Group(address=("world", "behaviour"), optimizer=Recording()),)), agent, Guard(folder)
    )
    fitter.ranks = ranks
    ranks.unite(agent)
    original = torch.rand

    def shared(*shape, device=None):
        first, *rest = shape[0] if isinstance(shape[0], tuple) else shape
        whole = original(first * ranks.count, *rest, device=device)
        return whole[first * ranks.index : first * (ranks.index + 1)]

    batch = rows(ranks.index, ranks.count)
    torch.manual_seed(5)
    torch.rand = shared
    try:
        losses = fitter.apply(batch)
    finally:
        torch.rand = original
    names = [name for name, _ in fitter.named[0]]
    gradients = {f"gradient/{n}": g for n, g in zip(names, found.pop(), strict=True) if g is not None}
    scale = agent.behaviour.scale
    return gradients | losses.metrics | {"low": scale.low.clone(), "high": scale.high.clone()}


def digests(ranks: Ranks, folder: Path, updates: int = 4) -> list[str]:
    """Of the weights after each of several updates, on rows and noise that differ from rank to rank."""
    agent = dreamer()
    if not ranks.is_first:
        nn.init.zeros_(next(iter(agent.world.parameters())))  # what rank 0 has counts
    ranks.unite(agent)
    group = Group(address=("world", "behaviour"), optimizer=LaProp(lr=1e-3, warmup=0))
    fitter = Fitter(Fit(groups=(group,)), agent, Guard(folder, rank=ranks.index), ranks)
    torch.manual_seed(ranks.seed(3))
    seen = [digest(agent)]
    for k in range(updates):
        batch = rows(ranks.index, ranks.count, seed=k)
        if k == 1 and ranks.index == 1:
            batch.reward[0, 2] = float("nan")  # the update is skipped by all
        fitter.apply(batch)
        seen.append(digest(agent))
    return [*seen, str(fitter.guard.skipped)]


def dreamer() -> Agent:
    torch.manual_seed(1)
    spaces = ToyConfig(id="catch").spaces()
    small = {"units": 16, "deter_dim": 64, "stoch": 4, "classes": 4, "depth": 2}
    world = DreamerV3Config(size="1m", **small, compute_dtype="float32").build(spaces)
    agent = Agent(
        world,
        ActorCriticConfig(units=16, horizon=4, scale_rate=1.0, compute_dtype="float32").build(
            spaces, world.feature_dim
        ),
    )
    with torch.no_grad():
        for p in agent.parameters():  # heads begin at 0, which would hide much
            p += 0.02 * torch.randn(p.shape)
    return agent.train()


def rows(index: int, count: int, seed: int = 0) -> TimeStep:
    """Rows of this rank's part of a batch."""
    g = torch.Generator().manual_seed(10 + seed)
    obs = {
        name: torch.randint(256, (SIZE, LENGTH, *shape), generator=g, dtype=torch.uint8)
        for name, shape in ToyConfig(id="catch").spaces().obs.items()
    }
    action = torch.nn.functional.one_hot(torch.randint(3, (SIZE, LENGTH), generator=g), 3).float()
    flags = torch.rand(2, SIZE, LENGTH, generator=g) < 0.2
    part = slice(index * SIZE // count, (index + 1) * SIZE // count)
    return TimeStep(
        obs={name: x[part] for name, x in obs.items()},
        action=action[part],
        reward=torch.randn(SIZE, LENGTH, generator=g)[part],
        is_first=flags[0, part],
        terminated=flags[1, part],
        mask=torch.ones(SIZE, LENGTH, dtype=torch.bool)[part],
    )


def digest(module: nn.Module) -> str:
    whole = b"".join(x.detach().numpy().tobytes() for x in module.state_dict().values())
    return hashlib.sha256(whole).hexdigest()


def counters() -> Recipe:
    return tweak(tally(), {"env.num": 4})


@dataclass(frozen=True, kw_only=True)
class Both:
    """Acting and learning at once, and then a stage that only learns."""

    online: Online
    fit: Update


def two_stages() -> Recipe:
    online = tweak(counters().schedule.online, {"steps": 80})
    return tweak(
        counters(),
        {
            "schedule": Both(
                online=online, fit=Update(fit=online.fit, batch=Windows(size=4, length=6), updates=3)
            )
        },
    )


class StopAfter(Stop):
    """Asks to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        super().__init__()

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    @requested.setter
    def requested(self, _: bool) -> None: ...


def train(ranks: Ranks, path: Path, looks: int, recipe: Recipe | None = None) -> str:
    """Until it is done or, in the last rank, `looks` looks are taken; a digest of the weights."""
    stream_folder.LARGEST = 32
    stop = StopAfter(looks) if looks and ranks.index == ranks.count - 1 else Stop()
    run = Run(recipe or counters(), RunFolder.read(path), Progress("", "cpu", path, quiet=True), stop, ranks)
    try:
        run.train()
    except Stopped:
        return f"stopped {run.done['steps']} {digest(run.agent)}"
    except OneiroError as error:
        return f"refused {error}"
    finally:
        run.replay.close()
    return f"done {digest(run.agent)}"


def main() -> None:
    folder, index, count, task, looks = (
        Path(sys.argv[1]),
        *map(int, sys.argv[2:4]),
        sys.argv[4],
        int(sys.argv[5]),
    )
    torch.set_num_threads(1)
    with connect(init_method=f"file://{folder / task}.join", rank=index, world_size=count) as ranks:
        if task == "first":
            found = (joint_gradients(ranks, folder), digests(ranks, folder))
            torch.save(found, folder / f"equal-{index}.pt")
        recipe = two_stages() if task == "alone" else None
        (folder / f"{task}-{index}.txt").write_text(train(ranks, folder / "run", looks, recipe))


if __name__ == "__main__":
    main()
