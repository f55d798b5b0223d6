"""What is shown of a state, as uint8 [H, W, 3]: what the world draws, or its feature as a field of colours."""

import io
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from oneiro.errors import Undecodable
from oneiro.spaces import Spaces, to_uint8
from oneiro.types import State
from oneiro.world import WorldModel

View = Literal["image", "feature"]
CELL = 4
"""Pixels along a side of one number in the feature view."""
RAW_BYTES = 96 * 96 * 3
"""Pictures up to this size are sent as they are, larger ones as PNG."""


def picture_name(spaces: Spaces) -> str | None:
    """The modality that is a picture: "image" where there is one."""
    names = [name for name, shape in spaces.obs.items() if len(shape) == 3]
    return "image" if "image" in names else names[0] if names else None


def draw(world: WorldModel, state: State) -> np.ndarray:
    """What the world draws of the first row; Undecodable if it draws nothing."""
    name, obs = picture_name(world.spaces), world.decode(state)
    if name is None or name not in obs:
        raise Undecodable(f"{type(world).__name__} draws no pictures; use its feature view instead")
    return colours(to_uint8(obs[name][0].float()).cpu().numpy())


def colours(image: np.ndarray) -> np.ndarray:
    """uint8 [C, H, W] -> [H, W, 3]; of a stack of pictures the newest."""
    channels = len(image)
    kept = image[-3:] if channels % 3 == 0 else np.broadcast_to(image[-1:], (3, *image.shape[1:]))
    return np.ascontiguousarray(kept.transpose(1, 2, 0))


def feature_field(feature: Tensor) -> np.ndarray:
    """[D] -> a square field: blue below zero, orange above, paler towards +-2 and beyond."""
    x = torch.tanh(feature.detach().float().cpu() / 2).numpy()
    side = math.ceil(math.sqrt(len(x)))
    square = np.zeros(side * side, np.float32)
    square[: len(x)] = x
    strength = np.abs(square)[:, None]
    tone = np.where(square[:, None] < 0, np.array([110.0, 126.0, 255.0]), np.array([255.0, 156.0, 64.0]))
    ground = np.array([20.0, 22.0, 27.0])
    field = (ground + strength * (tone - ground)).astype(np.uint8).reshape(side, side, 3)
    return np.ascontiguousarray(field.repeat(CELL, 0).repeat(CELL, 1))


def observed(obs: Mapping[str, np.ndarray], spaces: Spaces) -> np.ndarray | None:
    """The picture among the modalities of one real row, if there is one."""
    name = picture_name(spaces)
    return None if name is None or name not in obs else colours(obs[name])


def encode(picture: np.ndarray) -> tuple[str, bytes]:
    """("rgb", the bytes themselves) or ("png", a file)."""
    if picture.nbytes <= RAW_BYTES:
        return "rgb", picture.tobytes()
    return "png", png(picture)


def png(picture: np.ndarray) -> bytes:
    """A PNG file, made quickly rather than small."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
