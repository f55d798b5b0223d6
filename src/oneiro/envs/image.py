"""Pictures for worlds: crop, resize, colours first."""

from functools import cache

import numpy as np
from PIL import Image


def shrink(
    frame: np.ndarray, size: int, rows: tuple[int, int] | None = None, *, width: int = 0
) -> np.ndarray:
    """uint8 [H, W, 3] (or [H, W], [H, W, 1] grey) -> uint8 [3, size, width or size]; `rows` (first, last + 1) are kept.

    Bilinear with Pillow, whose filter widens when it shrinks, so that no pixel is skipped. No contrast stretch.
    """
    top, bottom = rows or (0, frame.shape[0])
    frame = frame[top:bottom]
    if frame.ndim == 2 or frame.shape[2] == 1:
        frame = np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(bilinear(frame[:, :, :3], size, width).transpose(2, 0, 1))


def bilinear(frame: np.ndarray, size: int, width: int = 0) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] -> the same with H = size, W = width or size, as Pillow does it."""
    width = width or size
    if frame.shape[:2] == (size, width):
        return frame
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((width, size), Image.Resampling.BILINEAR))


def area(frame: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W] or [H, W, C] -> the same with H = W = size: a pixel is the mean of the area it covers.

    Bit for bit OpenCV's INTER_AREA where that shrinks; it cannot enlarge.
    """
    height, width = frame.shape[:2]
    if (height, width) == (size, size):
        return frame
    if height < size or width < size:
        raise ValueError(f"area cannot enlarge {height} x {width} to {size}; use bilinear")
    x = frame.reshape(height, -1).astype(np.float32)
    x = (_shares(height, size) @ x).reshape(size, width, -1)
    x = np.matmul(_shares(width, size), x)
    return np.rint(x).astype(np.uint8).reshape(size, size, *frame.shape[2:])


@cache
def _shares(old: int, new: int) -> np.ndarray:
    """[new, old]: which part of each new pixel an old one covers."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    covered = np.maximum(covered, 0)
    return (covered / covered.sum(1, keepdims=True)).astype(np.float32)
