"""What training left in a run folder: `open_run` for the verbs that read it, `load` for programs that act."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from oneiro import tree
from oneiro.agent import Agent
from oneiro.behaviour import Behaviour
from oneiro.data.collect import seat
from oneiro.envs.gym import GymConfig
from oneiro.errors import OneiroError
from oneiro.recipes import find
from oneiro.recipes.exported import is_exported, open_exported, read_config
from oneiro.spaces import Spaces
from oneiro.training.recipe import Recipe, restore
from oneiro.training.run import Trained
from oneiro.training.run_folder import RunFolder
from oneiro.types import Carry, TimeStep


def open_run(path: Path | str, recipe: str | None = None) -> Trained:
    """A run folder with the weights of its newest checkpoint, or an exported folder. Never imports code that it names:
    for a run of a recipe of your own, name the recipe ("file.py:function") as it was named to train it. Where the
    environment is of a module that is not installed, to name the recipe is to trust the folder.
    """
    if is_exported(path):
        return open_exported(path, recipe_of(read_config(path)["recipe"], path, recipe))
    folder = RunFolder.read(path)
    return Trained.load(recipe_of(folder.recipe, path, recipe), folder)


def recipe_of(record: dict[str, Any], path: Path | str, recipe: str | None = None) -> Recipe:
    """The recipe noted in a folder, with its values; `recipe` as for `open_run`."""
    try:
        name, size, values = (record[key] for key in ("recipe", "size", "values"))
    except (KeyError, TypeError):
        raise OneiroError(f"{path} holds no recipe of `oneiro train`; name a folder that it made") from None
    if ":" in name and recipe is None:
        raise OneiroError(
            f"{path} was made by a recipe of your own ({name}). Loading never runs code that a file names: "
            f"repeat the command with --recipe {name} if you trust it"
        )
    restored = restore(find(recipe or name).build(size), values)
    if recipe is None and (code := next(_foreign_code(restored), None)):
        raise OneiroError(
            f"{path} names {code}. Loading never runs code that a file names: repeat the command with "
            f"--recipe {name} if you trust it"
        )
    return restored


def _foreign_code(record: Any) -> Iterator[str]:
    """Code beside the installed packages that the environments of a recipe would import."""
    if isinstance(record, GymConfig):
        yield from record.foreign_code()
    elif is_dataclass(record):
        for f in fields(record):
            yield from _foreign_code(getattr(record, f.name))
    elif isinstance(record, tuple):
        for item in record:
            yield from _foreign_code(item)


def load(path: Path | str, *, recipe: str | None = None, behaviour: Behaviour | None = None) -> "Player":
    """The agent of a run folder, ready to act; with `behaviour`, one that sees with the run's world:

    player = oneiro.load("runs/vmc-takecover-demo-0")
    env = player.env()
    obs, _ = env.reset(seed=0)
    obs, reward, terminated, truncated, _ = env.step(player.act(obs))
    """
    run = open_run(path, recipe)
    agent = run.agent if behaviour is None else Agent(run.agent.world, behaviour)
    return Player(agent, run.spaces, run.recipe.env)


class Player:
    """An agent that acts in one environment, or in several at once, and remembers what it has seen."""

    def __init__(self, agent: Agent, spaces: Spaces, env_config: Any = None) -> None:
        self.agent, self.spaces, self.env_config = agent.eval(), spaces, env_config
        self.reset()

    def env(self) -> gymnasium.Env:
        """One environment as the agent was trained in, whose observations `act` takes."""
        if self.env_config is None:
            raise OneiroError("this player was made without an environment; open one yourself")
        self.env_config.require()
        return self.env_config.env()

    def reset(self, rows: Any = None) -> None:
        """A new episode begins: forget. With `rows` [B] bool only in these environments of a batch."""
        if rows is None:
            self._carry: Carry | None = None
            self._action, self._fresh = torch.zeros(0), np.zeros(0, bool)
        elif self._carry is not None:
            self._fresh |= np.asarray(rows, bool)

    def act(self, obs: Any, reward: Any = 0.0, *, explore: bool = False) -> Any:
        """The action for an observation, as the environment takes it: float32 [A], or an int.

        `obs` is {modality: array}, or a picture uint8 [3, H, W] alone; a batch has one more axis in front, and
        is answered with actions [B, A] or [B]. `reward` is what arrived with it, for worlds that look at it.
        `explore`: actions are sampled, in every episode by other random numbers of torch's generator.
        """
        given, is_batch = self._tensors(obs)
        size = len(next(iter(given.values())))
        if self._carry is None:
            self._carry = self.agent.start(size)
            self._action = torch.zeros(size, self.spaces.action.dim)
            self._fresh = np.ones(size, bool)
        if len(self._fresh) != size:
            raise ValueError(
                f"{size} observations after {len(self._fresh)}; call reset() before another batch"
            )
        row = self._row(given, reward, size)
        carry = self.agent.observe(self._carry, tree.to(row, self._device))
        if carry.memory and self._fresh.any():
            rows = np.flatnonzero(self._fresh).tolist()
            keys = torch.randint(2**62, (len(rows),)).tolist()
            carry = seat(carry, rows, self.agent.behaviour.memory(len(rows)), keys)
        action, self._carry = self.agent.act(carry, explore)
        told = self.spaces.action.to_env(action)
        self._action = self.spaces.action.from_env(told)
        self._fresh = np.zeros(size, bool)
        return told if is_batch else told[0] if told.ndim > 1 else int(told[0])

    @property
    def _device(self) -> torch.device:
        return self.agent.world.device

    def _row(self, obs: dict[str, Tensor], reward: Any, size: int) -> TimeStep:
        fresh = torch.from_numpy(self._fresh.copy())
        arrived = torch.as_tensor(np.asarray(reward, np.float32)).expand(size)
        return TimeStep(
            obs=obs,
            action=torch.where(fresh[:, None], 0.0, self._action),
            reward=torch.where(fresh, 0.0, arrived),
            is_first=fresh,
            terminated=torch.zeros(size, dtype=torch.bool),
            mask=torch.ones(size, dtype=torch.bool),
        )

    def _tensors(self, obs: Any) -> tuple[dict[str, Tensor], bool]:
        """Every modality with a batch axis, and whether it was there already."""
        given = obs if isinstance(obs, dict) else {next(iter(self.spaces.obs)): obs}
        is_batch, tensors = False, {}
        for name, shape in self.spaces.obs.items():
            array = np.asarray(given[name]) if name in given else np.zeros(0)
            is_batch = array.ndim == len(shape) + 1
            if array.shape[array.ndim - len(shape) :] != shape or array.ndim - len(shape) not in (0, 1):
                found = f"has the shape {list(array.shape)}" if name in given else "is missing"
                raise ValueError(
                    f"observation {name!r} {found}, the agent was trained on {list(shape)}; env() of the player "
                    "opens an environment that shows it so"
                )
            is_picture = len(shape) == 3
            if is_picture != (array.dtype == np.uint8):
                expected = "uint8" if is_picture else "floats"
                raise ValueError(f"observation {name!r} is {array.dtype}, expected {expected}")
            array = array if is_picture else array.astype(np.float32)
            tensors[name] = torch.from_numpy(np.ascontiguousarray(array if is_batch else array[None]))
        return tensors, is_batch
