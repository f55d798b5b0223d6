"""The 51 bits of an action in DIAMOND's Counter-Strike: what is pressed, and how far the mouse moved in 1/16 s.

    0-10 keys w a s d space ctrl shift 1 2 3 r    11, 12 left and right button    13-35 mouse x    36-50 mouse y

Source: branch `csgo` of eloialonso/diamond; bins of Pearce & Zhu 2022, "Counter-Strike Deathmatch with Large-Scale
Behavioural Cloning" (arXiv 2104.04258).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from oneiro.spaces import ActionCodec

KEYS = ("w", "a", "s", "d", "space", "left ctrl", "left shift", "1", "2", "3", "r")
ARROWS = {"left": (0, -60), "right": (0, 60), "up": (1, -50), "down": (1, 50)}
"""Keys that replace the mouse: (axis, movement)."""
OPPOSITES = ("w s", "a d", "1 2", "1 3", "2 3", "up down", "left right")
_RIGHT = (2, 4, 10, 20, 30, 60, 100, 200, 300, 500, 1000)
_DOWN = (2, 4, 10, 20, 50, 100, 200)
MOUSE_X = (*(-x for x in reversed(_RIGHT)), 0, *_RIGHT)
MOUSE_Y = (*(-y for y in reversed(_DOWN)), 0, *_DOWN)
NAMES = (
    *KEYS,
    *("left button", "right button"),
    *(f"mouse x {moved}" for moved in MOUSE_X),
    *(f"mouse y {moved}" for moved in MOUSE_Y),
)
"""What each bit means."""
SIZE = len(KEYS) + 2 + len(MOUSE_X) + len(MOUSE_Y)
CODEC = ActionCodec(SIZE, (0.0,) * SIZE, (1.0,) * SIZE)
"""What a world takes: 51 numbers, each 0 or 1."""


def encode(
    keys: Iterable[str] = (),
    mouse: tuple[float, float] = (0.0, 0.0),
    *,
    left: bool = False,
    right: bool = False,
) -> Tensor:
    """float32 [51] of the keys that are held, in the order in which they were pressed, and the mouse."""
    held = kept_keys(keys)
    x, y = snap(held, mouse)
    bits = torch.zeros(SIZE)
    on = [KEYS.index(key) for key in held if key in KEYS]
    on += [len(KEYS)] * left + [len(KEYS) + 1] * right
    on += [len(KEYS) + 2 + MOUSE_X.index(x), len(KEYS) + 2 + len(MOUSE_X) + MOUSE_Y.index(y)]
    bits[on] = 1.0
    return bits


def kept_keys(keys: Iterable[str]) -> list[str]:
    """Known keys without those that contradict one pressed before them."""
    held: list[str] = []
    for key in keys:
        excluded = {other for pair in OPPOSITES for other in pair.split() if key in pair.split()} - {key}
        if (key in KEYS or key in ARROWS) and not excluded & set(held):
            held.append(key)
    return held


def snap(held: Sequence[str], mouse: tuple[float, float]) -> tuple[int, int]:
    """The nearest bins of a movement, or what the arrow keys say."""
    found = [
        min(bins, key=lambda b, moved=moved: abs(b - moved))
        for bins, moved in zip((MOUSE_X, MOUSE_Y), mouse, strict=True)
    ]
    for key in held:
        if key in ARROWS:
            axis, moved = ARROWS[key]
            found[axis] = moved
    return found[0], found[1]
