"""`oneiro train`: what it refuses before anything begins, what it begins with, what it prints."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from calling import TOY, oneiro

from oneiro.data.store import EpisodeStore
from oneiro.training.log import read_metrics

SHORT = (
    *(
        "--schedule.vision.updates",
        "2",
        "--schedule.memory.updates",
        "2",
        "--schedule.evolve.generations",
        "1",
    ),
    *("--schedule.evaluate.episodes", "2", "--schedule.evaluate.with-rivals", "False"),
)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("collected") / "dodge"
    command = ("collect", "--env", "toy:dodge", "--hold", "4", "--env.num", "3", "--episodes", "6")
    assert oneiro(*command, "--out", path).code == 0
    return path


def actions(folder: Path) -> dict[int, np.ndarray]:
    return {e.id: e.action for e in EpisodeStore(folder, ram=1 << 24, mode="r").episodes()}


def stages(run: Path) -> list[str]:
    return list(dict.fromkeys(line["stage"] for line in read_metrics(run / "metrics.jsonl")))


def test_collected_episodes_are_the_experience_of_a_run(collected: Path, tmp_path: Path):
    command = ("train", TOY, "--run", tmp_path / "run", "--origin", collected, *SHORT, "--json")
    result = oneiro(*command).json
    assert result["run"] == str(tmp_path / "run")
    assert set(result["scores"]) == {"dream", "real"}
    assert result["scores"]["real"]["summary"]["n"] == 2
    assert stages(tmp_path / "run") == ["vision", "memory", "evolve", "evaluate"]
    given = actions(collected)
    kept = actions(tmp_path / "run" / "replay")
    assert kept.keys() == given.keys() == set(range(6))
    assert all(np.array_equal(kept[id], given[id]) for id in given)
    assert EpisodeStore(collected, ram=1 << 24, mode="r").memos == ()  # V's memo is the run's own
    assert oneiro(*command).json == result
    oneiro("train", TOY, "--run", tmp_path / "run", *SHORT).is_error("another recipe", "origin")


def test_more_may_be_collected_beside_what_is_given(collected: Path, tmp_path: Path):
    more = ("--schedule.collect.episodes", "3", "--env.num", "2", "--data.capacity", "9000")
    command = ("train", TOY, "--run", tmp_path / "run", "--origin", collected, *SHORT, *more)
    answer = oneiro(*command, "--origin-stage", "collect")
    assert answer.code == 0, answer.err
    assert set(actions(tmp_path / "run" / "replay")) == set(range(9))
    assert set(actions(collected)) == set(range(6))


def test_what_cannot_be_given(collected: Path, tmp_path: Path):
    run = ("--run", tmp_path / "run", *SHORT)
    origin = ("--origin", collected)
    oneiro("train", TOY, *origin, *run, "--origin-parts", "vision").is_error("no world", "--origin-parts")
    oneiro("train", TOY, *origin, *run, "--origin-stage", "memroy").is_error("Did you mean 'memory'")
    oneiro("train", TOY, *run, "--origin-stage", "memory").is_error("--origin", "leave them out")
    oneiro("train", TOY, *run, "--origin-parts", "vision").is_error("--origin", "leave them out")
    oneiro("train", TOY, "--run", collected).is_error("not a run folder", "--origin")
    other = tmp_path / "counter"
    assert oneiro("collect", "--env", "toy:counter", "--episodes", "2", "--out", other).code == 0
    answer = oneiro("train", TOY, "--origin", other, *run)
    answer.is_error("could not have made", "obs/vector", "None here")
    assert not list((tmp_path / "run").glob("replay/chunks/*"))


def test_missing_extras_are_told_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "cma" else find(name, *a)
    )
    oneiro("train", TOY, "--run", tmp_path / "run").is_error("pip install 'oneiro[evolve]'")
    assert not (tmp_path / "run").exists()


def test_too_small_a_capacity_is_told_before_anything_is_done(tmp_path: Path):
    command = ("train", TOY, "--run", tmp_path / "run", "--data.capacity", "15")
    oneiro(*command).is_error("Windows needs 16 rows", "data.capacity")
    assert not (tmp_path / "run").exists()


def test_a_dream_without_reward_is_refused(collected: Path, tmp_path: Path):
    world = ("--world.step-reward", "0", "--world.predicts-end", "False")
    command = ("train", TOY, "--run", tmp_path / "run", "--origin", collected, *SHORT, *world)
    oneiro(*command).is_error("predicts no reward", "world.step_reward")
    assert stages(tmp_path / "run") == ["vision", "memory"]
