"""Recorded video with actions, to and from episodes (extra `video`: PyAV).

    walk.mp4       frames 0 .. T-1
    walk.jsonl     line t: {"action": [..]}, optionally "reward" and "terminated"; or walk.npz, walk.csv

Line t holds the action that led to frame t, as rows of episodes do; that of frame 0 is not used.
"""

import csv
import json
import zipfile
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from oneiro.data.episode_reader import EpisodeReader
from oneiro.data.episodes import Episode
from oneiro.data.store import EpisodeStore
from oneiro.errors import MissingExtra, OneiroError
from oneiro.spaces import ActionCodec

FORMATS = (".jsonl", ".npz", ".csv")
Table = dict[str, np.ndarray]
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """What imported video becomes."""

    size: tuple[int, int]  # height and width of the stored frames
    fps: float  # frames per second, one for each action
    resample: bool = False  # take every k-th frame and action of a faster video, instead of refusing it
    fit: Literal["stretch", "crop"] = "stretch"  # crop: the middle, in the wanted proportions

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.fps <= 0:
            raise ValueError(f"size and fps must be positive, got {self.size} and {self.fps}")
        if self.fit not in ("stretch", "crop"):
            raise ValueError(f"fit must be stretch or crop, got {self.fit!r}")


def import_video(path: Path | str, store: EpisodeStore, codec: ActionCodec, format: VideoFormat) -> int:
    """Add the episode of one video and the actions beside it; returns its id. Durable after `store.flush`."""
    id = int(store.ids[-1]) + 1 if len(store) else 0
    store.add(read_episode(path, id, codec, format))
    return id


def read_episode(path: Path | str, id: int, codec: ActionCodec, format: VideoFormat) -> Episode:
    """One video and the actions beside it.

    OneiroError for another frame rate, missing actions, fewer actions than frames, or a frame that cannot be decoded.
    """
    path = Path(path)
    table = read_actions(path)
    frames, step = read_frames(path, format)
    table = {name: x[::step] for name, x in table.items()}
    count = len(table["action"])
    if count != len(frames):
        raise OneiroError(
            f"{path} has {len(frames)} frames but {count} actions; every frame needs one line, that of the action that "
            "led to it (the first is not used). Was the video cut short, or recorded longer than the actions?"
        )
    if step > 1 and {"reward", "terminated"} & table.keys():
        raise OneiroError(
            f"{path}: rewards and ends cannot be thinned out; leave resample off and give a video of {format.fps:g} fps"
        )
    action = known_actions(path, table["action"], codec)
    action[0] = 0
    reward = _numbers(path, "reward", table.get("reward", np.zeros(count))).astype(np.float32)
    reward[0] = 0
    terminated = _numbers(path, "terminated", table.get("terminated", np.zeros(count))).astype(np.bool_)
    if terminated[:-1].any():
        row = int(terminated[:-1].argmax())
        raise OneiroError(f"{path} goes on after its end at frame {row}; cut it into one video an episode")
    info = {"source": path.name, "truncated": not terminated[-1], "score": float(reward.sum())}
    return Episode(
        id=id, obs={"image": frames}, action=action, reward=reward, terminated=terminated, info=info
    )


def read_frames(path: Path, format: VideoFormat) -> tuple[np.ndarray, int]:
    """uint8 [T, 3, H, W], and k where only every k-th frame was taken."""
    av = _av()
    if not path.is_file():
        raise OneiroError(f"there is no video {path}")
    frames: list[np.ndarray] = []
    seen, before = 0, None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise OneiroError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # FFmpeg's threads let damaged slices pass, or lose the last frames
            rate = float(stream.average_rate or 0)
            step = _step(path, rate, format)
            for packet in container.demux(stream):
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise OneiroError(
                            f"{path}: frame {seen} is corrupt; record or convert the video again"
                        )
                    _require_gap(path, seen, (before, frame.time), rate, format)
                    before = frame.time
                    if seen % step == 0:
                        frames.append(_fitted(frame.to_ndarray(format="rgb24"), format))
                    seen += 1
    except av.FFmpegError as error:
        raise OneiroError(
            f"{path}: frame {seen} cannot be decoded ({error}); the file is corrupt or cut short, record or convert it "
            "again"
        ) from error
    if not frames:
        raise OneiroError(f"{path} holds no frame that can be decoded")
    return np.stack(frames), step


def _step(path: Path, rate: float, format: VideoFormat) -> int:
    if abs(rate - format.fps) <= 0.01 * format.fps:
        return 1
    step = round(rate / format.fps)
    if step > 1 and abs(rate / format.fps - step) <= 0.01 * step:
        if format.resample:
            return step
        remedy = f"take every frame number that {step} divides with resample, or set fps to {rate:g}"
    else:
        remedy = f"set fps to {rate:g}, or convert it: ffmpeg -i {path.name} -r {format.fps:g} new.mp4"
    raise OneiroError(f"{path} has {rate:g} frames a second, {format.fps:g} are wanted; {remedy}")


def _require_gap(
    path: Path, number: int, times: tuple[float | None, float | None], rate: float, format: VideoFormat
) -> None:
    """OneiroError if a frame does not follow the one before it by one step of the rate, within half a step."""
    before, now = times
    if before is None or now is None or abs((now - before) * rate - 1) <= 0.5:
        return
    raise OneiroError(
        f"{path}: frame {number} comes {now - before:.3f} seconds after the one before it; {rate:g} frames a second "
        f"are only its average. Record at a constant rate, or convert it (ffmpeg -i {path.name} -fps_mode cfr -r "
        f"{format.fps:g} new.mp4) and give one action for each frame of the new file"
    )


def _fitted(picture: np.ndarray, format: VideoFormat) -> np.ndarray:
    """uint8 [h, w, 3] -> [3, H, W], bicubic where the size differs."""
    height, width = format.size
    if format.fit == "crop":
        h, w = picture.shape[:2]
        keep_h, keep_w = min(h, round(w * height / width)), min(w, round(h * width / height))
        top, left = (h - keep_h) // 2, (w - keep_w) // 2
        picture = picture[top : top + keep_h, left : left + keep_w]
    if picture.shape[:2] != format.size:
        shrunk = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        picture = np.asarray(shrunk)
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def read_actions(video: Path) -> Table:
    """{"action": [T, ...], "reward": [T], "terminated": [T]} from the file beside a video; the last two optional."""
    found = [video.with_suffix(suffix) for suffix in FORMATS if video.with_suffix(suffix).is_file()]
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise OneiroError(
            f"{video} needs one file of actions beside it, {video.stem} with .jsonl, .npz or .csv; found: {names}"
        )
    try:
        table = {".jsonl": _jsonl, ".npz": _npz, ".csv": _csv}[found[0].suffix](found[0])
        lengths = {name: len(x) for name, x in table.items()}
        if "action" not in table or len(set(lengths.values())) != 1:
            raise ValueError(f"columns {lengths}; action is needed, and every column for every frame")
    except _UNREADABLE as error:
        raise OneiroError(f"{found[0]} cannot be read: {error or type(error).__name__}") from error
    return table


def known_actions(video: Path, values: np.ndarray, codec: ActionCodec) -> np.ndarray:
    """float32 [T, A] from actions as the world takes them, or as the environment does; that of frame 0 is not used.

    OneiroError that names the frame of an action which is none.
    """
    values = _numbers(video, "action", values)
    values[:1] = 0
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise OneiroError(f"{video}: the action of frame {row} is not a finite number")
    if values.ndim == 2 and values.shape[1] == codec.dim and not (codec.is_discrete and codec.dim == 1):
        _require_known(video, values, codec)
        return values.astype(np.float32)
    wanted = (len(codec.groups),) if len(codec.groups) > 1 else ()
    if not codec.is_discrete or values.shape[1:] != wanted:
        raise OneiroError(
            f"{video}: an action has the shape {values.shape[1:]}, {codec.dim} numbers are wanted"
            + (f" or one integer for each of the groups {codec.groups}" if codec.is_discrete else "")
        )
    outside = (values < 0) | (values >= np.array(codec.groups if wanted else codec.groups[:1]))
    outside |= values != np.floor(values)
    if outside.any():
        row = int(np.argwhere(outside)[0][0])
        raise OneiroError(f"{video}: the action {values[row]} of frame {row} is none of {codec.groups}")
    return codec.from_env(values.astype(np.int64)).numpy().astype(np.float32)


def _jsonl(path: Path) -> Table:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "action" not in row:
            raise ValueError(f'line {number + 1} has no "action"')
    if len(rows) > 1 and rows[0]["action"] is None:
        rows[0]["action"] = rows[1]["action"]  # it is not used
    names = [name for name in ("action", "reward", "terminated") if rows and name in rows[0]]
    return {name: np.array([row[name] for row in rows]) for name in names}


def _npz(path: Path) -> Table:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # closed whatever it holds
        return {name: file[name] for name in ("action", "reward", "terminated") if name in file.files}


def _csv(path: Path) -> Table:
    """Columns action, or action0, action1, ...; reward; terminated."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    actions = [name for name in names if name.startswith("action")]
    if not actions:
        raise ValueError("there is no column action (or action0, action1, ...)")
    rows[0] |= {
        name: rows[0][name] or "0" for name in actions
    }  # that of frame 0 is not used and may be empty
    table: dict[str, Any] = {"action": np.array([[float(row[name]) for name in actions] for row in rows])}
    if actions == ["action"]:
        table["action"] = table["action"][:, 0]
    return table | {
        n: np.array([float(row[n]) for row in rows]) for n in ("reward", "terminated") if n in names
    }


def _numbers(video: Path, name: str, values: np.ndarray) -> np.ndarray:
    """float64; OneiroError if there are others than numbers."""
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise OneiroError(f"{video}: {name} beside it has to be numbers ({error})") from error


def _require_known(path: Path, values: np.ndarray, codec: ActionCodec) -> None:
    """OneiroError unless actions [T, A] are what the world takes; that of frame 0 is not used and may be zeros."""
    if codec.is_discrete:
        starts = np.cumsum((0, *codec.groups[:-1]))
        wrong = (np.add.reduceat(values, starts, axis=1) != 1).any(1) | ((values != 0) & (values != 1)).any(1)
        wanted = f"a 1 and zeros in each of the groups {codec.groups}"
    else:
        wrong = ((values < np.array(codec.low)) | (values > np.array(codec.high))).any(1)
        wanted = f"numbers from {min(codec.low):g} to {max(codec.high):g}"
    wrong = np.flatnonzero(np.atleast_1d(wrong)[1:]) + 1
    if len(wrong):
        row = int(wrong[0])
        raise OneiroError(
            f"{path}: the action of frame {row} is {values[row].tolist()[:8]}, wanted are {wanted}"
        )


def export_video(store: EpisodeReader, folder: Path, fps: float) -> list[Path]:
    """Every episode of a store as NUMBER.mp4 (H.264, slightly lossy) and NUMBER.npz; returns the videos."""
    av = _av()
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for id in store.ids.tolist():
        episode = store.read(id, fields=("image", "action", "reward"))
        frames = episode.obs.get("image")
        if frames is None or frames.shape[1] != 3:
            raise OneiroError(f"{store.folder} holds no colour pictures, so there is nothing to film")
        path = folder / f"{id:06d}.mp4"
        part = path.with_suffix(".part")  # a name that is not read as a video
        with av.open(str(part), "w", format="mp4") as container:
            stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width = frames.shape[2:]
            # 4:4:4 keeps the colour of single pixels, and takes odd sizes too
            stream.pix_fmt, stream.options = "yuv444p", {"crf": "12"}
            for frame in frames:
                picture = np.ascontiguousarray(frame.transpose(1, 2, 0))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        np.savez_compressed(
            path.with_suffix(".npz"),
            action=episode.action,
            reward=episode.reward,
            terminated=episode.terminated,
        )
        part.replace(path)
        paths.append(path)
    return paths


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtra("av", "video") from None
    return av
