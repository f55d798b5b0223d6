"""Draws one frame of a film: panels side by side, pixels enlarged without blur, labels beneath.

+--------+ +--------+
| truth  | | dream  |   title
| ###### | | ###### |   picture, each pixel `scale` x `scale`
| <- 12  | | <- 12  |   action and notes
| ====-- | | ===--- |   bar: probability of going on
+--------+ +--------+
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, MUTED, RAIL = "#14161b", "#f2f0eb", "#9a9da6", "#2c2f38"
COLORS = {"dream": "#9aa5ff", "real": "#f2a65a", "plain": "#c9cad1"}
"""What is dreamed is blue and what is real orange, here and in the report."""
GAP, TITLE, NOTE, BAR = 12, 26, 24, 10


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture with what belongs to it."""

    image: np.ndarray
    """uint8 [C, H, W] with 1 or 3 channels."""
    title: str = ""
    tone: str = "plain"
    """Key of COLORS."""
    action: str | None = None
    """"left", "right", "up", "down", "none": a drawn arrow or dot; any other word is written out."""
    note: str = ""
    bar: float | None = None
    """0..1, drawn as a filled rail."""
    dimmed: str = ""
    """If set the picture is darkened and this is written over it."""


def draw(grid: Sequence[Sequence[Panel]], scale: int = 3, *, has_bar: bool = True) -> np.ndarray:
    """uint8 [H, W, 3] of rows of panels; all pictures have one size. Without bars their line is saved."""
    _, height, width = grid[0][0].image.shape
    wide, high = width * scale, height * scale
    tall = TITLE + high + NOTE + BAR * has_bar
    columns = max(len(row) for row in grid)
    sheet = Image.new("RGB", (GAP + columns * (wide + GAP), GAP + len(grid) * (tall + GAP)), PAPER)
    for i, row in enumerate(grid):
        for j, panel in enumerate(row):
            _panel(sheet, panel, (GAP + j * (wide + GAP), GAP + i * (tall + GAP)), (wide, high))
    return np.asarray(sheet)


def difference(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """uint8 [.., 3, H, W]: brightness of the absolute error, doubled, from black over orange to white."""
    error = np.abs(image.astype(np.float32) - truth).mean(-3) / 255
    heat = np.clip(error * 2, 0, 1)[..., None, :, :]
    ramp = np.array([3.0, 1.6, 0.8], np.float32).reshape(3, 1, 1)
    return (np.clip(heat * ramp, 0, 1) * 255).astype(np.uint8)


def action_name(action: np.ndarray, names: Sequence[str]) -> str:
    """A word for an action [A]: the arg-max's name, the third's of a scalar in -1..1, or the numbers."""
    if len(names) == len(action) > 1:
        return names[int(action.argmax())]
    if len(action) == 1 and len(names) == 3:
        return names[0 if action[0] < -1 / 3 else 2 if action[0] > 1 / 3 else 1]
    return " ".join(f"{value:+.1f}" for value in action[:4])


def _panel(sheet: Image.Image, panel: Panel, at: tuple[int, int], size: tuple[int, int]) -> None:
    pen, (x, y), (wide, high) = ImageDraw.Draw(sheet), at, size
    pen.text((x, y + 9), panel.title, COLORS[panel.tone], _font(16), anchor="lm")
    y += TITLE
    sheet.paste(_enlarged(panel, size), (x, y))
    if panel.dimmed:
        pen.text((x + wide // 2, y + high // 2), panel.dimmed, INK, _font(18), anchor="mm", align="center")
    y += high
    middle = y + NOTE // 2 + 2
    if panel.action is not None:
        _arrow(pen, panel.action, x, middle)
    pen.text((x + wide, middle), panel.note, MUTED, _font(15), anchor="rm")
    y += NOTE
    if panel.bar is not None:
        filled = round((wide - 1) * min(max(panel.bar, 0.0), 1.0))
        pen.rounded_rectangle((x, y + 3, x + wide - 1, y + 7), 2, RAIL)
        if filled > 3:
            pen.rounded_rectangle((x, y + 3, x + filled, y + 7), 2, COLORS[panel.tone])


def _enlarged(panel: Panel, size: tuple[int, int]) -> Image.Image:
    image = panel.image.transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    picture = picture.resize(size, Image.Resampling.NEAREST)
    if panel.dimmed:
        picture = Image.blend(picture, Image.new("RGB", size, PAPER), 0.7)
    return picture


def _arrow(pen: ImageDraw.ImageDraw, action: str, x: int, y: int) -> None:
    """A 18-pixel arrow, a dot for "none", or the word."""
    corners = {
        "left": [(0, 0), (9, -8), (9, -3), (19, -3), (19, 3), (9, 3), (9, 8)],
        "up": [(9, -9), (17, 0), (12, 0), (12, 9), (6, 9), (6, 0), (1, 0)],
    }
    corners["right"] = [(19 - a, b) for a, b in corners["left"]]
    corners["down"] = [(a, -b) for a, b in corners["up"]]
    if action in corners:
        pen.polygon([(x + a, y + b) for a, b in corners[action]], INK)
    elif action == "none":
        pen.ellipse((x + 6, y - 3, x + 12, y + 3), MUTED)
    else:
        pen.text((x, y), action, INK, _font(13), anchor="lm")


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
