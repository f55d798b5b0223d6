"""What a world is shown and what it can do: observation shapes, the action codec, image conversion."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from oneiro.errors import OneiroError
from oneiro.onehot import OneHot


@dataclass(frozen=True)
class ActionCodec:
    """Environment action <-> float tensor [.., dim] that networks read and write.

    Box: the values themselves, clipped to the bounds on the way out. Discrete: one-hot, arg-max on the way
    out. MultiDiscrete: one one-hot after the other, arg-max of each.

        Discrete(3)           groups (3,)     dim 3   [.., 3]
        MultiDiscrete([3, 2]) groups (3, 2)   dim 5   [.., 3 + 2]
        Box(2)                groups ()       dim 2   [.., 2]
    """

    dim: int
    low: tuple[float, ...] = ()
    """Bounds of a Box, one per dimension; empty for Discrete and MultiDiscrete."""
    high: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()
    """Sizes of the one-hot groups, whose sum is `dim`; () for a Box. Discrete(n) is (n,), also when left out."""

    def __post_init__(self) -> None:
        if self.is_discrete and not self.groups:
            object.__setattr__(self, "groups", (self.dim,))
        if self.is_discrete and sum(self.groups) != self.dim:
            raise ValueError(f"groups must add up to dim {self.dim}, got {self.groups}")
        if not self.is_discrete and (self.groups or not len(self.low) == len(self.high) == self.dim):
            raise ValueError(
                f"a Box of dim {self.dim} needs as many bounds and no groups, got low {self.low}, "
                f"high {self.high}, groups {self.groups}"
            )

    @property
    def is_discrete(self) -> bool:
        """True if the environment takes integers."""
        return not self.low

    @classmethod
    def of(cls, space: gymnasium.Space) -> "ActionCodec":
        """The codec of a Gymnasium action space; OneiroError if there is none."""
        if isinstance(space, gymnasium.spaces.Discrete):
            return cls(int(space.n))
        if isinstance(space, gymnasium.spaces.MultiDiscrete):
            groups = tuple(int(n) for n in space.nvec.ravel())
            return cls(sum(groups), groups=groups)
        if isinstance(space, gymnasium.spaces.Box):
            low, high = space.low.ravel(), space.high.ravel()
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                raise OneiroError(
                    f"the action space {space} is unbounded; wrap the environment so that it has finite bounds, "
                    "for example with gymnasium.wrappers.TransformAction"
                )
            return cls(len(low), tuple(map(float, low)), tuple(map(float, high)))
        raise OneiroError(
            f"no codec for the action space {space}; Discrete, MultiDiscrete and Box are supported"
        )

    def to_env(self, action: Tensor) -> np.ndarray:
        """[B, dim] tensor -> what `VectorEnv.step` takes: float32 [B, dim] for a Box, int64 [B] for Discrete,
        int64 [B, k] for MultiDiscrete of k groups.
        """
        array = action.detach().cpu().numpy()
        if not self.is_discrete:
            return np.clip(array, self.low, self.high).astype(np.float32)
        if len(self.groups) == 1:
            return array.argmax(-1).astype(np.int64)
        parts = np.split(array, np.cumsum(self.groups)[:-1], axis=-1)
        return np.stack([part.argmax(-1) for part in parts], -1).astype(np.int64)

    def from_env(self, action: Any) -> Tensor:
        """Inverse of `to_env`: env actions [..], or [.., k] for k groups -> float32 [.., dim]."""
        array = np.asarray(action)
        if not self.is_discrete:
            return torch.from_numpy(array.astype(np.float32).reshape(*array.shape[:1], -1))
        index = torch.from_numpy(array.astype(np.int64))
        return self.one_hot(index if len(self.groups) > 1 else index[..., None])

    def one_hot(self, index: Tensor) -> Tensor:
        """Integers [.., k], one for each group -> float32 [.., dim]."""
        parts = [
            torch.nn.functional.one_hot(i, n) for i, n in zip(index.unbind(-1), self.groups, strict=True)
        ]
        return torch.cat(parts, -1).float()

    def best(self, score: Tensor) -> Tensor:
        """Scores [.., dim] -> one-hot [.., dim] of the highest in each group, in the type of the scores."""
        index = torch.stack([part.argmax(-1) for part in score.split(self.groups, -1)], -1)
        return self.one_hot(index).to(score.dtype)


@dataclass(frozen=True)
class Spaces:
    """Observation shapes by modality and the action codec."""

    obs: dict[str, tuple[int, ...]]
    """(C, H, W) for uint8 pictures, (D,) for float32 vectors, whatever the name; mostly "image" and "vector"."""
    action: ActionCodec
    classes: dict[str, int] = field(default_factory=dict)
    """Modalities that are categories, shown one-hot as float32 [.., n]: {name: n}. They are in `obs` too."""

    @classmethod
    def of(cls, env: gymnasium.Env | gymnasium.vector.VectorEnv) -> "Spaces":
        """Read from a (vector) environment with named modalities (see `oneiro.envs.make`)."""
        obs = getattr(env, "single_observation_space", None) or env.observation_space
        action = getattr(env, "single_action_space", None) or env.action_space
        if not isinstance(obs, gymnasium.spaces.Dict):
            raise OneiroError(
                f"expected a Dict of named modalities, got {obs}; build it with oneiro.envs.make"
            )
        for name, space in obs.items():
            _require_modality(name, space)
        shapes = {name: tuple(space.shape or ()) for name, space in obs.items()}
        classes = {name: space.n for name, space in obs.items() if isinstance(space, OneHot)}
        return cls(shapes, ActionCodec.of(action), classes)

    def require_image(self, size: int, world: str) -> None:
        """Raise unless there is an "image" of 3 x size x size."""
        found = self.obs.get("image")
        if found != (3, size, size):
            raise OneiroError(
                f"{world} needs an image of 3 x {size} x {size}, it is given {found or 'none'}; "
                f"set the environment's image size to {size}"
            )


def _require_modality(name: str, space: gymnasium.Space) -> None:
    """OneiroError unless it is a picture, a vector or a category."""
    if isinstance(space, OneHot):
        return
    kinds = {3: np.uint8, 1: np.float32}
    if isinstance(space, gymnasium.spaces.Box) and kinds.get(len(space.shape)) == space.dtype:
        return
    raise OneiroError(
        f"the observation {name!r} is {space}; an EnvConfig shows pictures as a Box of uint8 [C, H, W] from 0 to 255, "
        "vectors as a Box of float32 [D], and categories as oneiro.onehot.OneHot(n). Convert it in `env`, or return "
        "oneiro.envs.modalities.Modalities(env, size) there, which shows what Gymnasium's spaces hold as such"
    )


def to_float(image: Tensor) -> Tensor:
    """uint8 [.., C, H, W] in 0..255 -> float32 in 0..1; floats pass through."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def to_uint8(image: Tensor) -> Tensor:
    """Float [.., C, H, W] in 0..1 -> uint8, rounded."""
    return image.clamp(0, 1).mul_(255).round_().to(torch.uint8)
