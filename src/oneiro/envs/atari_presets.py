"""How Atari was shown and scored in each published system.

Read from the official codes; where papers and codes differ, the code counts. `-test` is the variant with which final
scores were measured, where it differs from the one for training.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything about an Atari environment but the game. Frames are those of the emulator, 60 a second."""

    skip: int = 4  # frames a decision lasts
    pool: int = 2  # a picture is the maximum of so many last frames
    pool_first: bool = True  # maximum and then resize, or the other way round
    sticky: float = 0.0  # probability that a frame repeats the last frame's action instead
    noops: tuple[int, int] = (0, 30)  # frames without action at the start, uniform between (and with) these
    fire: Literal["never", "start", "life"] = (
        "never"  # where the game has FIRE, press it at the start (and lives)
    )
    actions: Literal["minimal", "full"] = "minimal"  # those the game uses, or all 18
    colour: Literal["rgb", "luma", "gray"] = "rgb"  # luma: of the resized RGB; gray: the emulator's own
    size: int = 64  # side of the picture, pixels
    stack: int = 1  # pictures shown at once, the newest last
    resize: Literal["bilinear", "area"] = "bilinear"  # Pillow's bilinear, or OpenCV's area
    life: Literal["ignore", "flag", "end"] = (
        "ignore"  # a lost life: nothing, a terminated row, the episode's end
    )
    after_life: Literal["noop", "same"] = (
        "noop"  # life "end": the next episode begins one step on, or right there
    )
    limit: int = 108_000  # frames after which the game is stopped; 0 = never
    limit_is_terminal: bool = False  # the stop counts as the end of the game, not as a truncation
    reward: Literal["raw", "sign", "tanh"] = "raw"  # game points as they are, or transformed

    def __post_init__(self) -> None:
        for name in ("skip", "pool", "size", "stack"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.sticky < 1:
            raise ValueError(f"sticky is a probability below 1, got {self.sticky}")
        if len(self.noops) != 2 or not 0 <= self.noops[0] <= self.noops[1]:
            raise ValueError(f"noops must be (fewest, most) frames, got {self.noops}")
        if self.limit < 0:
            raise ValueError(f"limit must be a number of frames, or 0 for none, got {self.limit}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def describe(self) -> str:
        """All of it in one line."""
        shown = f"the last {self.pool} frames"
        shown = (
            f"maximum of {shown}, resized" if self.pool_first else f"maximum of {shown}, each resized before"
        )
        low, high = self.noops
        fire = {"never": "", "start": ", FIRE at the start", "life": ", FIRE at the start of every life"}
        after = "one no-op later" if self.after_life == "noop" else "right there"
        life = {
            "ignore": "lives ignored",
            "flag": "a lost life is a terminated row, the game goes on",
            "end": f"a lost life ends the episode, the next begins {after}",
        }
        stop = " (counts as its end)" if self.limit_is_terminal else ""
        parts = (
            f"{self.skip} frames a decision",
            shown if self.pool > 1 else "last frame, resized",
            f"sticky {self.sticky:g}" if self.sticky else "not sticky",
            (f"{low} to {high} no-ops" if low < high else f"{low} no-ops") + fire[self.fire],
            f"{self.actions} actions",
            f"{self.size}x{self.size} {self.colour} {self.resize}" + f" x {self.stack}" * (self.stack > 1),
            life[self.life],
            f"at most {self.limit:,} frames{stop}" if self.limit else "no frame limit",
            f"score = sum of {'points' if self.reward == 'raw' else self.reward + ' of points'}",
        )
        return ", ".join(parts)


CHOICES = {
    "fire": ("never", "start", "life"),
    "actions": ("minimal", "full"),
    "colour": ("rgb", "luma", "gray"),
    "resize": ("bilinear", "area"),
    "life": ("ignore", "flag", "end"),
    "after_life": ("noop", "same"),
    "reward": ("raw", "sign", "tanh"),
}

PRESETS: dict[str, Protocol] = {
    # DreamerV3, current code, Atari 100k
    "dreamer": Protocol(limit_is_terminal=True),
    # DreamerV3, current code, 200M frames
    "dreamer-200m": Protocol(sticky=0.25, actions="full", colour="luma", size=96, limit_is_terminal=True),
    # DreamerV3, code of the 2023 preprint, Atari 100k
    "dreamer-2023": Protocol(noops=(0, 29), resize="area", limit_is_terminal=True),
    # DreamerV2, 200M frames; its tanh of rewards is inside the model
    "dreamerv2": Protocol(sticky=0.25, noops=(1, 30), colour="gray", resize="area"),
    # IRIS, Delta-IRIS, REM; the limit counts frames of all lives
    "iris": Protocol(pool_first=False, noops=(1, 30), life="end", limit=20_000),
    "iris-test": Protocol(pool_first=False, noops=(1, 1)),
    # TWM; its tanh of rewards is inside the model
    "twm": Protocol(
        noops=(1, 30), fire="life", colour="gray", stack=4, resize="area", life="end", after_life="same"
    ),
    "twm-test": Protocol(noops=(0, 0), fire="life", colour="gray", stack=4, resize="area"),
    # DIAMOND
    "diamond": Protocol(noops=(1, 30), resize="area", life="end", after_life="same", limit=0),
    "diamond-test": Protocol(noops=(1, 30), resize="area"),
    # STORM, training and test; sticky, so its scores do not compare with the others'
    "storm": Protocol(sticky=0.25, noops=(0, 0), resize="area", life="flag"),
}

OF_200M = ("dreamer-200m", "dreamerv2")
"""Presets of the benchmark of 200 million frames; the others are those of Atari 100k."""
