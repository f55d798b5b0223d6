"""Pictures for worlds: crop, resize, colours first."""

import numpy as np
from PIL import Image


def shrink(frame: np.ndarray, size: int, rows: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 [H, W, 3] (or [H, W], [H, W, 1] grey) -> uint8 [3, size, size]; `rows` (first, last + 1) are kept.

    Bilinear with Pillow, whose filter widens when it shrinks, so that no pixel is skipped. No contrast stretch.
    """
    top, bottom = rows or (0, frame.shape[0])
    frame = frame[top:bottom]
    if frame.ndim == 2 or frame.shape[2] == 1:
        frame = np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)
    if frame.shape[:2] != (size, size):
        image = Image.fromarray(np.ascontiguousarray(frame[:, :, :3]))
        frame = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(frame[:, :, :3].transpose(2, 0, 1))
