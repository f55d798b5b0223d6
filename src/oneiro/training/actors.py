"""An experience actor: a process that plays some of the environment slots with a copy of the agent of its own.

    Role   ->  Actor.play(turns, weights)  ->  [(rows of its slots, their latents)] x turns
               Actor.play(turns, None)     ->  ...

This is what runs in the actor's process; how it got there is the business of `ray_actors`, and what becomes of the rows
that of `collectors`.
"""

import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oneiro import runtime, targets
from oneiro.agent import Agent
from oneiro.data.rollout import Turn
from oneiro.data.share import Share
from oneiro.spaces import Spaces
from oneiro.training.acting import Playing
from oneiro.training.recipe import Recipe, build_agent

Lived = tuple[Turn, dict[str, Tensor]]
"""A row of every slot of an actor, and their latents [n, ...]."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """What an actor is told when it begins. Its process learns nothing else about the run, but weights."""

    recipe: Recipe
    policy: Any  # config of a behaviour that acts instead of the agent's own; None = the agent's own
    latents: bool  # those of the rows are handed over too
    spaces: Spaces
    share: Share = field(default_factory=Share)  # its slots
    begun: int = 0  # id of the first episode it begins; the next ones follow at steps of `share.count`
    life: int = 0  # how many actors had this role before

    @property
    def num(self) -> int:
        """Number of its slots."""
        return self.recipe.env.num // self.share.count

    def build(self) -> Agent:
        """Who acts, with new weights."""
        agent = build_agent(self.recipe, self.spaces)
        if self.policy is None:
            return agent.eval()
        return Agent(agent.world, self.policy.build(self.spaces)).eval()


class Actor:
    """Plays when it is told to. Rows are handed over after whole turns only."""

    def __init__(self, role: Role) -> None:
        seed, place = role.recipe.seed, [role.share.index, role.life]
        runtime.start(replace(role.recipe.runtime, device="cpu", threads=1))
        runtime.seed_everything(int(np.random.SeedSequence([seed, *place]).generate_state(1)[0]))
        self.agent = role.build()
        self.env = replace(role.recipe.env, num=role.num).make()
        self.playing = Playing(
            self.agent,
            self.env,
            seed=seed,
            device=torch.device("cpu"),
            overlap=False,
            latents=role.latents,
            begun=role.begun,
            stride=role.share.count,
        )
        self.has_rows = False

    def play(self, turns: int, weights: np.ndarray | None = None) -> list[Lived]:
        """The next `turns` turns, with new weights if there are any."""
        if weights is not None:
            unpack(self.agent, weights)
        lived = []
        for _ in range(turns):
            if self.has_rows:
                self.playing.go_on()
            lived.append(self.playing.live())
            self.has_rows = True
        return lived


# -- what goes to the process ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parcel:
    """A role for another process: the files and folders it needs to know before the role can be unpickled."""

    folders: list[str]
    files: list[str]
    content: bytes

    @classmethod
    def of(cls, role: Role) -> "Parcel":
        """Classes of the user's are named in it, not copied; the other machine must have the same files."""
        folders = [os.path.abspath(folder or ".") for folder in sys.path]
        return cls(folders, targets.loaded_files(), pickle.dumps(role))

    def open(self) -> Role:
        """The role, in the other process."""
        sys.path += [folder for folder in self.folders if folder not in sys.path and Path(folder).exists()]
        for file in self.files:
            targets.load_file(Path(file))
        return pickle.loads(self.content)


def pack(module: nn.Module) -> np.ndarray:
    """Parameters and buffers as one vector of bytes, uint8 [N]; one copy from the device."""
    tensors = module.state_dict().values()
    return torch.cat([x.detach().contiguous().reshape(-1).view(torch.uint8) for x in tensors]).cpu().numpy()


@torch.no_grad()
def unpack(module: nn.Module, packed: np.ndarray) -> None:
    """Write what `pack` of a module of the same kind gave into `module`."""
    tensors = list(module.state_dict().values())
    sizes = [x.numel() * x.element_size() for x in tensors]
    assert sum(sizes) == len(packed), (sum(sizes), len(packed))
    start = 0
    for x, size in zip(tensors, sizes, strict=True):
        raw = torch.from_numpy(packed[start : start + size].copy())  # a copy is aligned
        x.copy_(raw.view(x.dtype).view(x.shape))
        start += size


# -- options ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Processes that play, on this machine or on others, through Ray. See docs/distributed.md."""

    num: int = 0  # how many; each has env.num / num of the slots. 0 = all slots are played here, turn by turn
    turns: int = 16  # turns that an actor plays before it hands its rows over
    ahead: int = 2  # times `turns` that an actor is at most ahead of what was taken in
    refresh: int = (
        4  # updates after which actors are given new weights, with the next turns they are asked for
    )
    timeout: float = (
        600.0  # seconds after which an actor that has begun and does not answer is taken for dead
    )
    max_deaths: int = 5  # deaths of one actor in a row (no rows handed over between) that stop the run
    address: str = ""  # of a Ray cluster; "" = that of RAY_ADDRESS, else Ray is started on this machine

    def __post_init__(self) -> None:
        if self.num < 0:
            raise ValueError(f"actors.num is {self.num}; it must be 0 (play here) or more")
        for name in ("turns", "ahead", "refresh", "max_deaths"):
            if getattr(self, name) < 1:
                raise ValueError(f"actors.{name} is {getattr(self, name)}; it must be at least 1")
        if self.timeout <= 0:
            raise ValueError(f"actors.timeout is {self.timeout}; it must be a positive number of seconds")
        idle = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if not self.num and idle:
            raise ValueError(
                f"actors.{idle[0]} has no effect without actors; set actors.num, or leave it out"
            )
        if self.address.startswith("ray://"):
            raise ValueError(
                f"actors.address is {self.address!r}, an address of Ray Client, which is not supported; train on a "
                "machine of the cluster and give host:port, or auto"
            )


def split(num: int, actors: int) -> Sequence[np.ndarray]:
    """The slots of every actor, int64 [num / actors] each."""
    return [np.arange(num)[index::actors] for index in range(actors)]
