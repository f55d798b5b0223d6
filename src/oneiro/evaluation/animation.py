"""`Film`: frames that become an animated WebP or GIF of bounded size. Pillow only, no codec to install."""

import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

log = logging.getLogger("oneiro")

BUDGET = 1_500_000
"""Bytes of one film: a page of six stays under 10 MB."""
QUALITIES = (82, 65, 45)
"""WebP qualities tried in turn before frames are dropped."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """Pictures in time."""

    frames: np.ndarray
    """uint8 [T, H, W, 3]."""
    fps: float = 12.0
    hold: float = 1.5
    """Seconds the last frame stands before the film begins again."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(
                f"frames must be uint8 [T, H, W, 3], got {self.frames.dtype} {self.frames.shape}"
            )
        if not len(self.frames):
            raise ValueError("a film needs at least one frame")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frames.shape[2], self.frames.shape[1]

    def thinned(self, step: int) -> "Film":
        """Every `step`-th frame and the last one, at the same speed."""
        keep = np.unique(np.append(np.arange(0, len(self.frames), step), len(self.frames) - 1))
        return Film(frames=self.frames[keep], fps=self.fps / step, hold=self.hold)

    def encode(self, kind: str = "webp", budget: int = BUDGET) -> bytes:
        """The file's bytes: first the quality gives way to the budget, then every second frame.

        A film that is still too large at two frames is returned as it is, with a warning in the log.
        """
        film, qualities = self, QUALITIES if kind == "webp" else (0,)
        while True:
            data = b""
            for quality in qualities:
                data = film._encode(kind, quality)
                if len(data) <= budget:
                    return data
            if len(film.frames) <= 2:
                log.warning("a film of %d bytes exceeds its budget of %d", len(data), budget)
                return data
            qualities = qualities[-1:]
            film = film.thinned(2)

    def save(self, path: Path, budget: int = BUDGET) -> Path:
        """Write `path` (.webp or .gif), all or nothing."""
        kind = path.suffix.lstrip(".").lower()
        if kind not in ("webp", "gif"):
            raise ValueError(f"films are written as .webp or .gif, not {path.suffix!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(self.encode(kind, budget))
        os.replace(partial, path)
        return path

    def _encode(self, kind: str, quality: int) -> bytes:
        images = [Image.fromarray(frame) for frame in self.frames]
        each = max(20, round(1000 / self.fps))
        durations = [each] * (len(images) - 1) + [each + round(1000 * self.hold)]
        options = {"save_all": True, "append_images": images[1:], "duration": durations, "loop": 0}
        if kind == "gif":
            return _bytes(images, "GIF", **options)
        # Frames that equal the one before are merged by the encoder; minimize_size would cost 10x the time.
        return _bytes(images, "WEBP", quality=quality, method=1, **options)


def still(path: Path, at: float = 0.5) -> tuple[bytes, tuple[int, int]]:
    """One frame of a film as WebP, `at` a share of it, and its size: for readers who want no motion."""
    with Image.open(path) as film:
        film.seek(round(at * (getattr(film, "n_frames", 1) - 1)))
        return _bytes([film.convert("RGB")], "WEBP", quality=QUALITIES[0]), film.size


def _bytes(images: list[Image.Image], form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    images[0].save(stream, form, **options)
    return stream.getvalue()
