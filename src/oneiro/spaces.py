"""What a world is shown and what it can do: observation shapes, the action codec, image conversion."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from oneiro.errors import OneiroError


@dataclass(frozen=True)
class ActionCodec:
    """Environment action <-> float tensor [.., dim] that networks read and write.

    Box: the values themselves, clipped to the bounds on the way out. Discrete: one-hot, arg-max on the way
    out.
    """

    dim: int
    low: tuple[float, ...] = ()
    """Bounds of a Box, one per dimension; empty for Discrete."""
    high: tuple[float, ...] = ()

    @property
    def is_discrete(self) -> bool:
        """True if the environment takes an integer."""
        return not self.low

    @classmethod
    def of(cls, space: gymnasium.Space) -> "ActionCodec":
        """The codec of a Gymnasium action space; OneiroError if there is none."""
        if isinstance(space, gymnasium.spaces.Discrete):
            return cls(int(space.n))
        if isinstance(space, gymnasium.spaces.Box):
            low, high = space.low.ravel(), space.high.ravel()
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                raise OneiroError(
                    "the action space is unbounded; wrap the environment so that it has finite bounds, for "
                    "example with gymnasium.wrappers.RescaleAction"
                )
            return cls(len(low), tuple(map(float, low)), tuple(map(float, high)))
        raise OneiroError(f"no codec for the action space {space}; Discrete and Box are supported")

    def to_env(self, action: Tensor) -> np.ndarray:
        """[B, dim] tensor -> what `VectorEnv.step` takes: float32 [B, dim], or int64 [B] for Discrete."""
        array = action.detach().cpu().numpy()
        if self.is_discrete:
            return array.argmax(-1).astype(np.int64)
        return np.clip(array, self.low, self.high).astype(np.float32)

    def from_env(self, action: Any) -> Tensor:
        """Inverse of `to_env`: env actions [..] -> float32 [.., dim]."""
        array = np.asarray(action)
        if self.is_discrete:
            return torch.nn.functional.one_hot(torch.from_numpy(array.astype(np.int64)), self.dim).float()
        return torch.from_numpy(array.astype(np.float32).reshape(*array.shape[:1], -1))


@dataclass(frozen=True)
class Spaces:
    """Observation shapes by modality and the action codec."""

    obs: dict[str, tuple[int, ...]]
    """"image" (C, H, W) for uint8 pictures, "vector" (D,) for floats."""
    action: ActionCodec

    @classmethod
    def of(cls, env: gymnasium.Env | gymnasium.vector.VectorEnv) -> "Spaces":
        """Read from a (vector) environment with named modalities (see `oneiro.envs.make`)."""
        obs = getattr(env, "single_observation_space", None) or env.observation_space
        action = getattr(env, "single_action_space", None) or env.action_space
        if not isinstance(obs, gymnasium.spaces.Dict):
            raise OneiroError(
                f"expected a Dict of named modalities, got {obs}; build it with oneiro.envs.make"
            )
        return cls({name: tuple(space.shape or ()) for name, space in obs.items()}, ActionCodec.of(action))

    def require_image(self, size: int, world: str) -> None:
        """Raise unless there is an "image" of 3 x size x size."""
        found = self.obs.get("image")
        if found != (3, size, size):
            raise OneiroError(
                f"{world} needs an image of 3 x {size} x {size}, it is given {found or 'none'}; "
                f"set the environment's image size to {size}"
            )


def to_float(image: Tensor) -> Tensor:
    """uint8 [.., C, H, W] in 0..255 -> float32 in 0..1; floats pass through."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def to_uint8(image: Tensor) -> Tensor:
    """Float [.., C, H, W] in 0..1 -> uint8, rounded."""
    return image.clamp(0, 1).mul(255).round().to(torch.uint8)
