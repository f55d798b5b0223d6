"""A folder of videos becomes the replay of a run, and what is wrong with it is said before anything is decoded."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from data.recordings import ACTIONS, FPS, HEIGHT, WIDTH, episode, recordings
from oneiro.data.store import EpisodeStore
from oneiro.data.video import VideoFormat, import_video
from oneiro.data.video_note import VideoNote
from oneiro.envs.recorded import RecordedConfig
from oneiro.errors import OneiroError
from oneiro.spaces import ActionCodec
from oneiro.training.importing import Import, checked

FORMAT = VideoFormat(size=(HEIGHT, WIDTH), fps=FPS)


def config(folder: Path | str, **other) -> RecordedConfig:
    options = {"height": HEIGHT, "width": WIDTH, "fps": FPS, "actions": ACTIONS} | other
    return RecordedConfig(videos=str(folder), **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings(tmp_path_factory.mktemp("made") / "videos")


@pytest.fixture
def videos(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "videos")


def refused(folder: Path | str, *words: str, **other) -> None:
    with pytest.raises(OneiroError) as error:
        checked(config(folder, **other), 16)
    for word in words:
        assert word in str(error.value)


def test_all_videos_in_order(videos: Path) -> None:
    assert [path.name for path in checked(config(videos), 16)] == [f"{i:06d}.mp4" for i in range(3)]


def test_no_videos(tmp_path: Path) -> None:
    refused("", "which videos?", "--env.videos", "oneiro collect --videos")
    refused(tmp_path / "nowhere", "there is no folder", "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path, "holds no videos", ".mp4")


def test_actions_are_missing_or_two(videos: Path) -> None:
    (videos / "000001.csv").write_text("action\n0\n")
    refused(videos, "000001.mp4 needs one file of actions", "000001.npz, 000001.csv")
    (videos / "000001.csv").unlink()
    (videos / "000001.npz").unlink()
    refused(videos, "000001.mp4 needs one file of actions", "none")


def test_actions_that_are_no_actions(videos: Path) -> None:
    path = videos / "000002.npz"
    for broken in (b"PK no zip", b"", path.read_bytes()[:-30]):
        path.write_bytes(broken)
        refused(videos, "000002.npz cannot be read")
    np.savez(videos / "000002.npz", action=np.array([{"a": 1}], dtype=object))
    refused(videos, "000002.npz cannot be read", "allow_pickle")
    np.savez(path, action=np.array(["left"] * 20))
    refused(videos, "000002.mp4: action beside it has to be numbers", "left")


@pytest.mark.parametrize("wrong", [3.0, -1.0, 1.7, np.nan])
def test_an_action_that_is_none_is_found_before_anything_is_decoded(videos: Path, wrong: float) -> None:
    action = np.ones(20)
    action[5] = wrong
    np.savez(videos / "000002.npz", action=action)
    (videos / "000000.mp4").write_bytes(b"no video")
    refused(videos, "000002.mp4", "of frame 5 is")


@pytest.mark.parametrize("suffix", [".npz", ".jsonl", ".csv"])
def test_the_action_of_frame_0_may_be_anything(videos: Path, tmp_path: Path, suffix: str) -> None:
    path = videos / "000000.npz"
    np.savez(path, action=np.array([np.nan] + [2.0] * 19))
    if suffix == ".jsonl":
        lines = ['{"action": null}'] + ['{"action": 2}'] * 19
    else:
        lines = ["action,reward", ",0"] + ["2,0"] * 19
    if suffix != ".npz":
        path.unlink()
        path.with_suffix(suffix).write_text("\n".join(lines))
    assert len(checked(config(videos), 16)) == 3
    with EpisodeStore(tmp_path / "store") as store:
        id = import_video(path.with_suffix(".mp4"), store, ActionCodec(3), FORMAT)
        assert store.read(id).action.sum(0).tolist() == [0, 0, 19]


def test_too_short(videos: Path) -> None:
    np.savez(videos / "000000.npz", action=np.zeros(9))
    refused(videos, "000000.mp4 has 9 frames, at least 16", "--schedule.videos.shortest")


def test_a_video_that_is_too_short_after_thinning_out_is_not_stored(videos: Path, tmp_path: Path) -> None:
    options = config(videos, fps=FPS / 2, resample=True)
    np.savez(videos / "000000.npz", action=np.zeros(20))
    with EpisodeStore(tmp_path / "store") as store:
        run = SimpleNamespace(
            recipe=SimpleNamespace(env=options), collected=store, spaces=options.spaces(), progress=None
        )
        with pytest.raises(OneiroError, match=r"000000\.mp4 has 10 frames, at least 16"):
            Import().run(run)  # pyright: ignore[reportArgumentType]
        assert len(store) == 0


def test_the_note_says_otherwise(videos: Path) -> None:
    refused(videos, "recording.json says otherwise", "fps: 10.0 there, 16.0 here", "--env.fps 10", fps=16.0)
    refused(videos, "--env.actions none left right", actions=("none", "go left", "go right"))
    note = VideoNote(fps=29.97002997002997, kind="choice", actions=ACTIONS)
    note.write(videos)
    refused(videos, "--env.fps 29.97002997002997")
    (videos / "recording.json").write_text("{")
    refused(videos, "recording.json is damaged")
    (videos / "recording.json").unlink()
    assert len(checked(config(videos, actions=("a", "b", "c")), 16)) == 3


def test_two_videos_of_one_name(videos: Path) -> None:
    shutil.copy(videos / "000000.mp4", videos / "000000.mkv")
    refused(videos, "more than one video called 000000")


@pytest.mark.parametrize(
    ("count", "words"), [(17, "20 frames but 17 actions"), (30, "20 frames but 30 actions")]
)
def test_fewer_or_more_actions_than_frames(videos: Path, tmp_path: Path, count: int, words: str) -> None:
    np.savez(videos / "000000.npz", action=np.zeros(count))
    with EpisodeStore(tmp_path / "store") as store, pytest.raises(OneiroError, match=words):
        import_video(videos / "000000.mp4", store, ActionCodec(3), FORMAT)


def test_a_video_that_was_cut_short(videos: Path, tmp_path: Path) -> None:
    """With its index at the front it can be opened, and ends early."""
    rows = 60
    path = tmp_path / "cut.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv444p"
        for frame in episode(0, rows).obs["image"]:
            noisy = frame ^ np.random.default_rng(0).integers(64, size=frame.shape, dtype=np.uint8)
            shown = np.ascontiguousarray(noisy.transpose(1, 2, 0))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        out.mux(stream.encode())
    np.savez(tmp_path / "cut.npz", action=np.zeros(rows))
    with EpisodeStore(tmp_path / "store") as store:
        assert store.length(import_video(path, store, ActionCodec(3), FORMAT)) == rows
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(OneiroError, match=r"cut\.mp4.*(frames but 60 actions|cannot be decoded|corrupt)"):
            import_video(path, store, ActionCodec(3), FORMAT)
        assert len(store) == 1


def test_actions_as_the_world_takes_them_are_checked(videos: Path, tmp_path: Path) -> None:
    path, rows = videos / "000000.mp4", 20
    switches = ActionCodec(2, (0.0, 0.0), (1.0, 1.0))
    cases = [
        (ActionCodec(3), np.zeros((rows, 3)), r"frame 1 is \[0.0, 0.0, 0.0\], wanted are a 1 and zeros"),
        (switches, np.full((rows, 2), 2.0), r"frame 1 is \[2.0, 2.0\], wanted are numbers from 0 to 1"),
    ]
    with EpisodeStore(tmp_path / "store") as store:
        for codec, action, words in cases:
            np.savez(path.with_suffix(".npz"), action=action)
            with pytest.raises(OneiroError, match=words):
                import_video(path, store, codec, FORMAT)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num": 4}, "num has no effect"),
        ({"actions": ()}, "a name for each action"),
        ({"kind": "numbers"}, "low and high need 3 values"),
        ({"low": (0.0,)}, "low and high need 0 values"),
        ({"fps": 0.0}, "must be positive"),
    ],
)
def test_options_that_make_no_sense(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config("x", **options)


def test_kinds_of_actions() -> None:
    assert config("x").spaces().action == ActionCodec(3)
    assert config("x", kind="switches").spaces().action == ActionCodec(3, (0.0,) * 3, (1.0,) * 3)
    numbers = config("x", kind="numbers", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 1.0)).spaces()
    assert numbers.action == ActionCodec(3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert numbers.obs == {"image": (3, HEIGHT, WIDTH)}
    for play in (config("x").env, config("x").make):
        with pytest.raises(OneiroError, match="no environment to play"):
            play()
