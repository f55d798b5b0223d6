"""diamond-video from a folder of videos to a dream that is played, at its smallest."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_runs import StopAfter, launch

from data.recordings import recordings

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from calling import oneiro

from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.data import csgo
from oneiro.data.store import EpisodeStore
from oneiro.envs.recorded import RecordedConfig
from oneiro.errors import OneiroError
from oneiro.play.keys import key_map
from oneiro.play.limits import Limits
from oneiro.play.played_run import PlayedRun
from oneiro.play.session import Session
from oneiro.play.starts import Wandered
from oneiro.recipes import find
from oneiro.recipes.dreams import dream_env
from oneiro.recipes.exported import export
from oneiro.recipes.saved import open_run
from oneiro.spaces import ActionCodec
from oneiro.training.estimate import estimate
from oneiro.training.log import read_metrics
from oneiro.training.recipe import tweak
from oneiro.training.run import Stopped, Trained, build_agent
from oneiro.training.run_folder import RunFolder
from oneiro.worlds.diamond_csgo import TwoStageConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig

OPTIONS = ("--env.fps", "10", "--env.actions", "none", "left", "right")
SETTINGS = {"env.fps": 10.0, "env.actions": ("none", "left", "right"), "log.tensorboard": False}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings(tmp_path_factory.mktemp("recorded") / "videos")


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by the command line; tests only read it."""
    path = tmp_path_factory.mktemp("trained") / "run"
    answer = oneiro(
        "train", "diamond-video", "--size", "smoke", "--env.videos", videos, *OPTIONS, "--run", path
    )
    assert answer.code == 0, answer.err
    return path


def test_it_learns_from_all_videos(run: Path) -> None:
    lines = read_metrics(run / "metrics.jsonl")
    (read,) = [line for line in lines if line["stage"] == "videos"]
    assert (read["import/episodes"], read["import/rows"]) == (3.0, 60.0)
    assert [line["stage"] for line in lines if "optim/grad_norm" in line] == ["dynamics", "upsampler"]
    with EpisodeStore(run / "replay", ram=1 << 24, mode="r") as store:
        assert [store.info(id)["source"] for id in range(3)] == [f"{id:06d}.mp4" for id in range(3)]
        assert store.column("image").shape == (3, 24, 32)


def test_a_stop_between_videos_loses_none_and_reads_none_twice(
    videos: Path, tmp_path: Path, run: Path
) -> None:
    recipe = tweak(find("diamond-video").build("smoke"), {"env.videos": str(videos), **SETTINGS})
    with pytest.raises(Stopped):
        launch(recipe, tmp_path / "run", StopAfter(1))
    with EpisodeStore(tmp_path / "run" / "replay", ram=1 << 24, mode="r") as store:
        assert 1 <= len(store) < 3
    launch(recipe, tmp_path / "run")
    stores = [EpisodeStore(path / "replay", ram=1 << 24, mode="r") for path in (tmp_path / "run", run)]
    for id in range(3):
        stopped, whole = (store.read(id) for store in stores)
        assert np.array_equal(stopped.obs["image"], whole.obs["image"])
        assert np.array_equal(stopped.action, whole.action)
    agents = [open_run(run).agent, Trained.load(recipe, RunFolder.read(tmp_path / "run")).agent]
    for one, other in zip(*(agent.parameters() for agent in agents), strict=True):
        assert one.equal(other)


def test_it_is_filmed_but_not_played(run: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.webp"
    words = ("dream", run, "--horizon", "6", "--episodes", "2", "--out", film, "--json")
    curves = oneiro(*words).json
    assert len(curves["psnr"]) == len(curves["held_psnr"]) == 7
    assert film.stat().st_size > 100
    assert oneiro("evaluate", run).is_error("no environment to play", "recorded video")


def test_a_person_plays_in_it(run: Path) -> None:
    played = PlayedRun.of(open_run(run))
    assert [(b.keys, b.label) for b in played.keys.bindings] == [
        (("ArrowLeft",), "left"),
        (("ArrowRight",), "right"),
    ]
    assert played.keys.idle == (0.0,)
    assert [knob.name for knob in played.knobs] == ["steps", "upsampler_steps", "fine"]
    assert not played.config.is_playable
    session = Session([played], Limits(), seed=0)
    session.start()
    session.change(temperature=0.5, knobs={"steps": 2.0})
    frame = session.step((1.0,))
    assert frame.lanes[0].picture.shape == (24, 32, 3)


@pytest.mark.parametrize("is_imported", [False, True])
def test_whoever_receives_it_dreams_without_the_videos(run: Path, tmp_path: Path, is_imported: bool) -> None:
    folder = tmp_path / "hub"
    answer = oneiro("export", run, folder, "--json")
    assert "replay/chunks/00000000.chunk" in answer.json["files"]
    if is_imported:
        assert oneiro("import", folder, "--run", tmp_path / "run2").code == 0
        folder = (tmp_path / "run2").rename(tmp_path / "run3")
    received, own = open_run(folder), open_run(run)
    assert received.store.lengths.tolist() == [17, 11, 5, 15, 9, 19, 13, 7]
    for k, id in enumerate(received.store.ids.tolist()):
        piece = received.store.read(id)
        source, row = (int(word.split()[1]) for word in piece.info["source"].split(","))
        whole = own.store.read(source, row, row + len(piece))
        assert np.array_equal(piece.obs["image"], whole.obs["image"]), k
        assert np.array_equal(piece.action[1:], whole.action[1:])
        assert not piece.action[0].any()
    session = Session([PlayedRun.of(received)], Limits(), seed=0)
    assert session.start().lanes[0].picture.shape == (24, 32, 3)
    assert session.step((1.0,)).number == 1
    env = dream_env(received, horizon=3)
    assert env.reset(seed=0)[0].shape == (1, 3, 24, 32)
    film = oneiro("dream", folder, "--context", 4, "--horizon", 5, "--out", tmp_path / "film.webp")
    assert film.code == 0, film.err


def test_what_cannot_begin_is_not_exported(videos: Path, tmp_path: Path) -> None:
    recipe = tweak(find("diamond-video").build("smoke"), {"env.videos": str(videos), **SETTINGS})
    record = {"recipe": "diamond-video", "size": "smoke", "values": {}}
    with RunFolder.open(tmp_path / "run", record, "test") as folder:
        (folder.replay / "chunks").mkdir(parents=True)
        with pytest.raises(OneiroError, match="no episode longer than 4 rows"):
            export(Trained(recipe, folder), tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_dream_from_an_empty_replay(videos: Path, tmp_path: Path) -> None:
    recipe = tweak(find("diamond-video").build("smoke"), {"env.videos": str(videos), **SETTINGS})
    with RunFolder.open(tmp_path / "run", {"recipe": "diamond-video"}, "test") as folder:
        (folder.replay / "chunks").mkdir(parents=True)
        with pytest.raises(OneiroError, match="has no replay, and recorded video cannot be played"):
            PlayedRun.of(Trained(recipe, folder))


def test_what_is_wrong_is_said_in_one_line(videos: Path, tmp_path: Path) -> None:
    words = ("train", "diamond-video", "--size", "smoke", "--run", tmp_path / "run")
    assert oneiro(*words).is_error("which videos?", "--env.videos")
    words = (*words[:-1], tmp_path / "other", "--env.videos", videos)
    assert oneiro(*words).is_error("recording.json says otherwise", "--env.fps 10", "--env.actions none left")


def test_the_published_size() -> None:
    recipe = find("diamond-video").build("csgo")
    with torch.device("meta"):
        agent = build_agent(recipe, recipe.env.spaces())
    counts = {
        part: sum(p.numel() for p in getattr(agent.world, part).parameters()) for part in agent.world.parts
    }
    assert counts == {"denoiser": 330_489_219, "upsampler": 51_149_187}
    assert agent.world.small == (3, 30, 56)
    assert recipe.env.spaces().action == csgo.CODEC
    schedule = recipe.schedule
    assert (schedule.dynamics.batch.size, schedule.dynamics.fit.pieces, schedule.dynamics.batch.length) == (
        128,
        8,
        9,
    )
    assert (schedule.upsampler.batch.size, schedule.upsampler.batch.length) == (32, 3)


@pytest.mark.slow
def test_the_published_size_is_counted_without_being_made() -> None:
    plan = estimate(find("diamond-video").build("csgo"))
    assert plan.parameters["world"] == 330_489_219 + 51_149_187
    assert plan.seconds is None
    assert "counted on shapes alone" in plan.notes[0]
    assert plan.ram_gib + plan.gpu_gib > 4 * 4 * 330_489_219 / 2**30  # weights, gradients, two running means


def test_keys_of_counter_strike() -> None:
    recipe = find("diamond-video").build("csgo")
    keys = key_map(recipe.env, recipe.env.spaces().action)
    assert keys.idle == tuple(csgo.encode().tolist())
    by_key = {binding.keys: binding for binding in keys.bindings}
    for pressed, key in (("w", "KeyW"), ("left", "ArrowLeft"), ("down", "ArrowDown"), ("space", "Space")):
        own = by_key[(key,)].action
        action = [old if new is None else new for old, new in zip(keys.idle, own, strict=True)]
        assert action == csgo.encode([pressed]).tolist(), pressed
    codes = [binding.keys[0] for binding in keys.bindings]
    assert len(set(codes)) == len(codes) == 11 + 2 + 4
    assert not {"KeyP", "KeyR", "KeyG", "Comma", "Period"} & set(codes)


def test_keys_of_counter_strike_that_contradict_each_other() -> None:
    recipe = find("diamond-video").build("csgo")
    keys = key_map(recipe.env, recipe.env.spaces().action)
    expected = "W S, A D, 1 2, 1 3, 2 3, ArrowUp ArrowDown, ArrowLeft ArrowRight"
    names = [
        " ".join(code.removeprefix("Key").removeprefix("Digit") for code in pair) for pair in keys.excludes
    ]
    assert ", ".join(names) == expected
    own = key_map(RecordedConfig(kind="switches", actions=("w", "s")), ActionCodec(2, (0.0,) * 2, (1.0,) * 2))
    assert ("KeyW", "KeyS") not in own.excludes, "in other recordings both may be pressed"


def test_switches_are_on_or_off() -> None:
    config = RecordedConfig(kind="switches", actions=("w", "a", "jump"), height=8, width=12)
    spaces = config.spaces()
    small = DenoiserConfig(context=1, channels=(8,), blocks=1, cond_dim=8)
    world = TwoStageConfig(factor=2, denoiser=small, upsampler=small).build(spaces)
    agent = Agent(world, HeldRandom(hold=(1,)).build(spaces, world.feature_dim))
    played = PlayedRun("video", agent, spaces, config, Wandered(config, spaces.action))
    assert played.action((1.0, 0.0, 1.0)).tolist() == [[1.0, 0.0, 1.0]]
    for wrong in (0.5, 2.0, -1.0):
        with pytest.raises(ValueError, match="switches are 0 or 1"):
            played.action((1.0, wrong, 0.0))


def test_oneiro_collect_films_what_it_plays(tmp_path: Path) -> None:
    words = ("collect", "--env", "toy:catch", "--episodes", "2", "--out", tmp_path / "a")
    folder = tmp_path / "videos"
    assert oneiro(*words, "--fps", "5").is_error("--videos")
    assert oneiro(*words, "--videos", folder).is_error("--fps", "steps a second")
    answer = oneiro(*words, "--videos", folder, "--fps", "5", "--json")
    assert answer.json["videos"] == str(folder)
    note = json.loads((folder / "recording.json").read_text())
    assert (note["fps"], note["kind"], len(note["actions"])) == (5.0, "choice", 3)
    assert sorted(p.name for p in folder.glob("0*")) == [
        f"{i:06d}.{kind}" for i in range(2) for kind in ("mp4", "npz")
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert oneiro(*words, "--videos", tmp_path / "mine", "--fps", "5").is_error("holds other files")
