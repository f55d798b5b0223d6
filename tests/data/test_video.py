"""Video with actions becomes episodes, and what is wrong with it is said."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oneiro.data.episodes import Episode
from oneiro.data.store import EpisodeStore
from oneiro.data.video import VideoFormat, export_video, import_video, read_frames
from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec

pytest.importorskip("av")
CODEC = ActionCodec(3)
FORMAT = VideoFormat(size=(32, 48), fps=10)
T = 8


def pictures() -> np.ndarray:
    """A bright bar that moves; smooth, so that a codec keeps it."""
    frames = np.full((T, 3, 32, 48), 40, np.uint8)
    for t in range(T):
        frames[t, t % 3, :, 4 * t : 4 * t + 8] = 220
    return frames


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """000000.mp4 with 000000.npz."""
    with EpisodeStore(tmp_path / "from") as store:
        action = np.eye(3, dtype=np.float32)[np.arange(T) % 3]
        action[0] = 0
        reward = np.arange(T, dtype=np.float32)
        ends = np.arange(T) == T - 1
        obs = {"image": pictures()}
        store.add(Episode(id=0, obs=obs, action=action, reward=reward, terminated=ends))
        store.flush()
        return export_video(store, tmp_path / "film", fps=10)[0]


def imported(video: Path, format: VideoFormat = FORMAT) -> Episode:
    with EpisodeStore(video.parent / "store") as store:
        id = import_video(video, store, CODEC, format)
        store.flush()
        return store.read(id, fields=("image", "action", "reward"))


def test_there_and_back(video: Path) -> None:
    episode = imported(video)
    error = np.abs(episode.obs["image"].astype(int) - pictures())
    assert error.mean() < 3  # H.264 at quality 12
    assert episode.action.argmax(-1).tolist()[1:] == [t % 3 for t in range(1, T)]
    assert episode.reward.tolist() == list(range(T))
    assert episode.terminated.tolist() == [False] * (T - 1) + [True]
    assert not episode.action[0].any()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_actions_are_read_from_text(video: Path, suffix: str) -> None:
    video.with_suffix(".npz").unlink()
    numbers = [t % 3 for t in range(T)]
    lines = (
        [json.dumps({"action": a}) for a in numbers] if suffix == ".jsonl" else ["action", *map(str, numbers)]
    )
    video.with_suffix(suffix).write_text("\n".join(lines))
    episode = imported(video)
    assert episode.action.argmax(-1).tolist()[1:] == numbers[1:]
    assert not episode.reward.any()
    assert not episode.terminated.any()


def test_frame_rate(video: Path) -> None:
    with pytest.raises(OneiroError, match="10 frames a second, 16 are wanted; set fps to 10"):
        imported(video, VideoFormat(size=(32, 48), fps=16))
    half = VideoFormat(size=(32, 48), fps=5)
    with pytest.raises(OneiroError, match="resample"):
        imported(video, half)
    action = np.arange(T) % 3
    np.savez(video.with_suffix(".npz"), action=action)
    episode = imported(video, VideoFormat(size=(32, 48), fps=5, resample=True))
    assert len(episode) == T // 2
    assert episode.action.argmax(-1).tolist()[1:] == action[::2].tolist()[1:]
    assert np.abs(episode.obs["image"].astype(int) - pictures()[::2]).mean() < 3


def test_size_and_crop(video: Path) -> None:
    assert imported(video, VideoFormat(size=(16, 16), fps=10)).obs["image"].shape == (T, 3, 16, 16)


def test_crop_keeps_the_middle(video: Path) -> None:
    middle = imported(video, VideoFormat(size=(32, 32), fps=10, fit="crop")).obs["image"]
    assert np.abs(middle.astype(int) - pictures()[..., 8:40]).mean() < 3


def test_bad_actions(video: Path) -> None:
    beside = video.with_suffix(".npz")
    np.savez(beside, action=np.zeros(T - 2))
    with pytest.raises(OneiroError, match=f"{T} frames but {T - 2} actions"):
        imported(video)
    np.savez(beside, action=np.full(T, 3))
    with pytest.raises(OneiroError, match=r"action 3.0 of frame 1 is none"):
        imported(video)
    np.savez(beside, action=np.full(T, np.nan))
    with pytest.raises(OneiroError, match="frame 1 is not a finite"):
        imported(video)
    beside.unlink()
    with pytest.raises(OneiroError, match="needs one file of actions"):
        imported(video)


def test_corrupt_video(video: Path) -> None:
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(OneiroError, match=r"frame 0 cannot be decoded"):
        imported(video)
    video.write_bytes(b"no video")
    with pytest.raises(OneiroError, match="cannot be decoded"):
        imported(video)


def filmed(path: Path, at: Sequence[int], size: tuple[int, int], **options: str) -> Path:
    """A noisy picture that moves, with frames at these times (hundredths of a second)."""
    import av

    picture = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.height, stream.width = size
        stream.pix_fmt, stream.options = "yuv420p", options
        stream.codec_context.time_base = Fraction(1, 100)
        for t, time in enumerate(at):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, t, 1), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_bytes_overwritten_in_mid_stream(tmp_path: Path) -> None:
    """Of pictures in slices, as hardware encodes them, one slice may be damaged."""
    import av

    options = {"crf": "20", "x264-params": "slices=4:bframes=0"}
    video = filmed(tmp_path / "sliced.mp4", range(0, 240, 10), (96, 128), **options)
    whole, format = video.read_bytes(), VideoFormat(size=(96, 128), fps=10)
    assert len(read_frames(video, format)[0]) == 24
    with av.open(str(video)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for number, (pos, size) in enumerate(packets):
        assert pos is not None
        middle, damage = pos + size // 2, np.random.default_rng(number).bytes(40)
        video.write_bytes(whole[:middle] + damage + whole[middle + 40 :])
        with pytest.raises(OneiroError, match=r"frame \d+ (is corrupt|cannot be decoded)"):
            read_frames(video, format)


@pytest.mark.parametrize("first", [60, 57])
def test_uneven_frames(tmp_path: Path, first: int) -> None:
    """One frame is missing, or comes late and the others after it; the average rate hides it."""
    even = filmed(tmp_path / "even.mp4", range(0, 1000, 10), (32, 48))
    assert len(read_frames(even, FORMAT)[0]) == 100
    video = filmed(tmp_path / "uneven.mp4", [*range(0, 50, 10), *range(first, 1000, 10)], (32, 48))
    with pytest.raises(
        OneiroError, match=r"frame 5 comes 0\.\d+ seconds after .*ffmpeg -i uneven.mp4 .*-r 10 new"
    ):
        read_frames(video, FORMAT)
