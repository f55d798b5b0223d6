"""Actions of Gymnasium for a world's codec: the space a dream declares, and the way in."""

from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from oneiro.spaces import ActionCodec


def action_space(codec: ActionCodec) -> gymnasium.Space:
    """The Gymnasium space whose actions the codec takes: Box, Discrete, or MultiDiscrete."""
    if not codec.is_discrete:
        low, high = np.array(codec.low, np.float32), np.array(codec.high, np.float32)
        return gymnasium.spaces.Box(low, high, dtype=np.float32)
    groups = list(codec.groups)
    return (
        gymnasium.spaces.Discrete(groups[0]) if len(groups) == 1 else gymnasium.spaces.MultiDiscrete(groups)
    )


def to_world(codec: ActionCodec, space: gymnasium.Space, actions: Any) -> Tensor:
    """Actions of a batched space -> float32 [B, A]; ValueError if they are none. Boxes are clipped, as on the
    way to an environment.
    """
    array = np.asarray(actions)
    if array.shape != space.shape:
        raise ValueError(f"actions have the shape {list(array.shape)}, expected {list(space.shape or ())}")
    if not codec.is_discrete:
        if not np.isfinite(array).all():
            raise ValueError("actions are not finite; look for NaN in the policy")
        return codec.from_env(np.clip(array, codec.low, codec.high))
    if not space.contains(array.astype(space.dtype)):
        raise ValueError(f"actions {array.tolist()} are not in {space}")
    return codec.from_env(array)
