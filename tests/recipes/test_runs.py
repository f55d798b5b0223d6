"""Runs: a stopped one goes on as if nothing had happened; a killed one loses nothing that was flushed."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oneiro.data.samplers import Streams, StreamSampler
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError
from oneiro.evaluation import stage
from oneiro.evaluation.episodes import Scores, evaluate
from oneiro.evaluation.stage import load_scores
from oneiro.recipes import find
from oneiro.recipes.vmc import MEMORY_ROWS
from oneiro.training.log import read_metrics
from oneiro.training.progress import Progress
from oneiro.training.recipe import Recipe, restore, to_json, tweak
from oneiro.training.run import Run, Stopped, Trained
from oneiro.training.run_folder import RunFolder
from oneiro.training.signals import Stop

TOY = f"{Path(__file__).parent / 'toy.py'}:vmc_dodge"
TIMES = {"time", "time/update", "evolve/seconds"}


class StopAfter(Stop):
    """Asks to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        super().__init__()

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    @requested.setter
    def requested(self, _: bool) -> None: ...


class Killed(Exception):
    """Nothing is saved any more, as after kill -9."""


class KillAfter(Progress):
    """Ends the run in the middle, when so many episodes of a stage are stored."""

    def __init__(self, stage: str, episodes: int) -> None:
        super().__init__("test", "cpu", quiet=True)
        self.wanted, self.left = stage, episodes
        self.now = ""

    def stage(self, name: str, index: int, count: int, total: int) -> None:
        self.now = name

    def advance(self, n: int = 0, *, metrics: Any = None, **_: Any) -> None:
        if self.now == self.wanted and metrics and "collect/score" in metrics:
            if not self.left:
                raise Killed
            self.left -= 1


def launch(recipe: Recipe, path: Path, stop: Stop | None = None, progress: Progress | None = None) -> Run:
    with RunFolder.open(path, {"values": to_json(recipe)}, "test") as folder:
        run = Run(recipe, folder, progress or Progress("test", "cpu", path, quiet=True), stop or Stop())
        run.train()
    return run


def timeless(path: Path) -> list[dict]:
    return [
        {k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(path / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def toy() -> Recipe:
    return find(TOY).build()


@pytest.fixture(scope="module")
def whole(toy: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    launch(toy, path)
    return path


def test_a_run_does_all_its_stages(whole: Path):
    lines = timeless(whole)
    assert [line["stage"] for line in lines if line["stage"] != "evaluate"] == (
        ["collect"] + ["vision"] * 5 + ["memory"] * 4 + ["evolve"] * 4
    )
    assert set(load_scores(whole)) == {"random", "dream", "real"}
    assert all(len(scores.score) == 4 for scores in load_scores(whole).values())


@pytest.mark.parametrize("looks", [3, 15, 31, 44, 60, 63])
def test_a_stopped_run_has_the_metrics_of_an_uninterrupted_one(
    toy: Recipe, whole: Path, tmp_path: Path, looks: int
):
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        launch(toy, path, StopAfter(looks))
    assert timeless(path) != timeless(whole)
    launch(toy, path)
    assert timeless(path) == timeless(whole)
    for name, scores in load_scores(whole).items():
        assert load_scores(path)[name].score == scores.score


@pytest.fixture(scope="module")
def streaming(toy: Recipe) -> Recipe:
    """M reads joined episodes in pieces and carries its state from one to the next, as the recipe of the paper."""
    memory = dataclasses.replace(
        toy.schedule.memory, batch=Streams(size=2, length=8, fields=MEMORY_ROWS), log_every=1
    )
    return dataclasses.replace(toy, schedule=dataclasses.replace(toy.schedule, memory=memory))


@pytest.fixture(scope="module")
def whole_stream(streaming: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    launch(streaming, path)
    return path


@pytest.mark.parametrize("looks", [51, 55, 61])
def test_a_run_stopped_in_a_stream_goes_on_with_the_state_it_carried(
    streaming: Recipe, whole_stream: Path, tmp_path: Path, looks: int
):
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        launch(streaming, path, StopAfter(looks))
    assert timeless(path)[-1]["stage"] == "memory"
    launch(streaming, path)
    assert timeless(path) == timeless(whole_stream)
    for name, scores in load_scores(whole_stream).items():
        assert load_scores(path)[name].score == scores.score


def test_a_stop_does_not_wait_for_the_episodes_of_a_policy(
    toy: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steps: list[int] = []

    class StopInEvaluation(Stop):
        @property
        def requested(self) -> bool:
            return len(steps) >= 2

        @requested.setter
        def requested(self, _: bool) -> None: ...

    def told(*arguments: Any, watch: Any, **options: Any) -> Scores:
        def count(made: int, episodes: int) -> None:
            steps.append(made)
            watch(made, episodes)

        return evaluate(*arguments, watch=count, **options)

    monkeypatch.setattr(stage, "evaluate", told)
    with pytest.raises(Stopped):
        launch(toy, tmp_path / "run", StopInEvaluation())
    assert len(steps) == 2
    assert not load_scores(tmp_path / "run")
    monkeypatch.undo()
    launch(toy, tmp_path / "run")
    assert timeless(tmp_path / "run") == timeless(whole)


def test_a_finished_run_has_nothing_left_to_do(toy: Recipe, whole: Path):
    before = timeless(whole)
    launch(toy, whole)
    assert timeless(whole) == before


def test_iterative_training_collects_with_the_evolved_controller(toy: Recipe, tmp_path: Path):
    recipe = tweak(toy, {"schedule.rounds": 2, "schedule.collect.episodes": 4})
    run = launch(recipe, tmp_path / "run")
    names = [name for name, _ in run.stages]
    assert names[6:8] == ["collect/2", "vision/2"]
    assert len(run.store) == 8
    first, later = (run.store.read(i).action[1:, 0] for i in (0, 4))
    held = abs(first[1:] - first[:-1]) < 1e-6
    assert held.any()  # the random policy holds its action
    assert not (abs(later[1:] - later[:-1]) < 1e-6).any()  # the controller follows what it sees


def test_a_trained_run_can_be_loaded(toy: Recipe, whole: Path):
    trained = Trained.load(toy, RunFolder.read(whole))
    weights = next(iter(trained.agent.behaviour.parameters()))
    assert weights.abs().sum() > 0


def test_values_survive_json(toy: Recipe):
    changed = tweak(toy, {"world.z_dim": 5, "schedule.evolve.cma.sigma": 0.7, "env.num": 3})
    assert restore(toy, json.loads(json.dumps(to_json(changed)))) == changed
    assert changed != toy


def test_unknown_options_are_answered_with_the_nearest(toy: Recipe):
    with pytest.raises(OneiroError, match="Did you mean 'z_dim'"):
        tweak(toy, {"world.zdim": 3})


def test_another_recipe_is_refused_in_the_same_folder(toy: Recipe, whole: Path):
    with pytest.raises(OneiroError, match=r"world\.z_dim.*8.*9"):
        launch(tweak(toy, {"world.z_dim": 9}), whole)


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "oneiro.cli", "train", TOY, "--run", str(path), *more]


def stored(path: Path) -> EpisodeStore | None:
    """Episodes on the disk, if there are any."""
    is_there = (path / "replay" / "chunks").exists()
    return EpisodeStore(path / "replay", ram=1 << 24, capacity=10_000, mode="r") if is_there else None


def kill(path: Path, whole: Path, wait: Callable[[], object]) -> None:
    """Start the run, kill -9 after `wait`; every episode flushed by then is there, and is that of `whole`."""
    process = subprocess.Popen(command(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait()
        flushed = set(found.ids.tolist()) if (found := stored(path)) else set()
    finally:
        process.kill()
        process.wait()
    kept, expected = stored(path), stored(whole)
    assert flushed <= (set(kept.ids.tolist()) if kept else set())
    for id in kept.ids.tolist() if kept and expected else ():
        ours, theirs = kept.read(id).columns(), expected.read(id).columns()
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_kill_at_twenty_random_moments(whole: Path, tmp_path: Path):
    """kill -9 while collecting, fitting, evolving, saving: the run resumes and ends like one never killed."""
    path = tmp_path / "run"
    random.seed(0)
    for _ in range(20):
        kill(path, whole, lambda: time.sleep(random.uniform(2.0, 8.0)))
    subprocess.run(command(path), check=True, timeout=120)
    assert timeless(path) == timeless(whole)


def test_kill_in_every_stage(whole: Path, tmp_path: Path):
    """The same, once while collecting, fitting V, fitting M and evolving."""
    path = tmp_path / "run"

    def wait(stage: str) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            log = path / "metrics.jsonl"
            if stage == "collect" and list((path / "replay").rglob("*.chunk")):
                return
            if log.exists() and f'"{stage}"' in log.read_text():
                return
            time.sleep(0.01)
        pytest.fail(f"the run did not reach {stage}")

    for reached in ("collect", "vision", "memory", "evolve"):
        kill(path, whole, lambda reached=reached: wait(reached))
    subprocess.run(command(path), check=True, timeout=120)
    assert timeless(path) == timeless(whole)


@pytest.mark.parametrize("stage", ["collect", "collect/2"])
def test_a_kill_between_flushes_and_the_first_checkpoint_stores_no_episode_twice(
    toy: Recipe, tmp_path: Path, stage: str
):
    recipe = tweak(toy, {"schedule.rounds": 2, "checkpoint.minutes": 5.0})
    path = tmp_path / "run"
    with pytest.raises(Killed):
        launch(recipe, path, progress=KillAfter(stage, 6))
    assert len(EpisodeStore(path / "replay", ram=1 << 24, mode="r")) == (6 if stage == "collect" else 16)
    run = launch(recipe, path)
    assert run.store.ids.tolist() == list(range(20))


def test_streams_go_on_after_a_bad_batch(toy: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the streams carry from one batch to the next must not hand the NaN on."""
    batch = StreamSampler._batch

    def spoilt(sampler: StreamSampler, k: int) -> Any:
        rows = batch(sampler, k)
        return dataclasses.replace(rows, action=rows.action * torch.nan) if k == 1 else rows

    monkeypatch.setattr(StreamSampler, "_batch", spoilt)
    streams = Streams(size=2, length=4, fields=MEMORY_ROWS)
    changed = {"vision.updates": 0, "memory.batch": streams, "memory.updates": 6, "memory.log_every": 1}
    changed |= {"evolve.generations": 0, "evaluate.dream": False, "evaluate.with_rivals": False}
    with pytest.warns(RuntimeWarning, match="update skipped"):
        launch(tweak(toy, {f"schedule.{name}": value for name, value in changed.items()}), tmp_path / "run")
    losses = [line["memory/loss"] for line in timeless(tmp_path / "run") if line["stage"] == "memory"]
    assert [loss == loss for loss in losses] == [True, False, True, True, True, True]


def test_episodes_that_made_room_are_not_played_again(toy: Recipe, tmp_path: Path):
    recipe = tweak(toy, {"data.capacity": 100, "checkpoint.minutes": 5.0, "schedule.collect.episodes": 30})
    path = tmp_path / "run"
    played = KillAfter("collect", 24)
    with pytest.raises(Killed):
        launch(recipe, path, progress=played)
    again = KillAfter("collect", 30)
    run = launch(recipe, path, progress=again)
    assert 30 - again.left <= 6 + 2  # what is missing, and what was under way at the kill
    assert 0 < run.store.rows <= 100
    assert run.store.ids[-1] == 29


def test_sigterm_saves_and_leaves(tmp_path: Path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        command(path, "--schedule.vision.updates", "100000"), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((path / "checkpoint").glob("0*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on from here" in errors


def test_two_processes_on_one_folder(toy: Recipe, tmp_path: Path):
    path = tmp_path / "run"
    with RunFolder.open(path, {"values": to_json(toy)}, "first"):
        second = subprocess.run(command(path), capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert f"process {os.getpid()}" in second.stderr


def test_capacity_smaller_than_a_window(toy: Recipe, tmp_path: Path):
    recipe = dataclasses.replace(toy, data=dataclasses.replace(toy.data, capacity=5))
    with pytest.raises(OneiroError, match="capacity"):
        launch(recipe, tmp_path / "run")


def test_a_run_can_begin_with_the_world_and_experience_of_another(toy: Recipe, whole: Path, tmp_path: Path):
    path = tmp_path / "run"
    done = subprocess.run(
        command(path, "--origin", str(whole), "--schedule.evolve.temperature", "0.5"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {line["stage"] for line in timeless(path)} == {"evolve", "evaluate"}
    theirs = Trained.load(toy, RunFolder.read(whole)).agent.world.state_dict()
    ours = Trained.load(toy, RunFolder.read(path)).agent.world.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (path / "replay").exists()
