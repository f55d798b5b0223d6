"""Frames of a session as a film: WebP and GIF by Pillow, mp4 by PyAV (extra `video`)."""

import importlib.util
import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from oneiro.errors import MissingExtra
from oneiro.evaluation.animation import Film
from oneiro.play.history import Frame
from oneiro.play.messages import Kind

TARGET = 256
"""Pixels to which small pictures are enlarged, as far as whole factors go."""
GAP = 8
FILM_BYTES = 8_000_000


def kinds() -> tuple[Kind, ...]:
    """Those that can be made with what is installed."""
    return ("webp", "gif", "mp4") if importlib.util.find_spec("av") else ("webp", "gif")


def film(frames: Sequence[Frame], kind: Kind, fps: float) -> bytes:
    """The bytes of a file that shows all dreams of the frames, and the real game where it was played, side by side."""
    pictures = np.stack([side_by_side(frame) for frame in _alike(frames)])
    if kind == "mp4":
        return mp4(pictures, fps)
    return Film(frames=pictures, fps=min(fps, 50.0), hold=0.5).encode(kind, FILM_BYTES)


def side_by_side(frame: Frame) -> np.ndarray:
    """uint8 [H, W, 3], enlarged without blur."""
    pictures = [lane.picture for lane in frame.lanes]
    if frame.real is not None:
        pictures.append(frame.real.picture)
    scaled = [_enlarged(picture) for picture in pictures]
    high = max(len(picture) for picture in scaled)
    wide = sum(picture.shape[1] for picture in scaled) + GAP * (len(scaled) - 1)
    sheet = np.full((high + high % 2, wide + wide % 2, 3), 20, np.uint8)  # codecs want even sides
    x = 0
    for picture in scaled:
        sheet[: len(picture), x : x + picture.shape[1]] = picture
        x += picture.shape[1] + GAP
    return sheet


def mp4(pictures: np.ndarray, fps: float) -> bytes:
    """H.264 [T, H, W, 3] -> file; MissingExtra without PyAV."""
    try:
        import av
    except ImportError:
        raise MissingExtra("av", "video") from None
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        video.height, video.width = pictures.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.options = {"crf": "18", "preset": "veryfast"}
        video.codec_context.thread_count = 1
        for picture in pictures:
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in video.encode():
            container.mux(packet)
    return stream.getvalue()


def _enlarged(picture: np.ndarray) -> np.ndarray:
    scale = max(1, TARGET // max(picture.shape[:2]))
    return picture.repeat(scale, 0).repeat(scale, 1)


def _alike(frames: Sequence[Frame]) -> list[Frame]:
    """The frames with as many pictures, of the same sizes, as the last."""

    def form(frame: Frame) -> list[tuple[int, ...]]:
        real = [] if frame.real is None else [frame.real.picture.shape]
        return [lane.picture.shape for lane in frame.lanes] + real

    return [frame for frame in frames if form(frame) == form(frames[-1])]
