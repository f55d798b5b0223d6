"""`oneiro collect`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from calling import FAULTS, TOY, oneiro

from oneiro.data.store import EpisodeStore


def read(path: Path) -> dict[int, np.ndarray]:
    return {e.id: e.action for e in EpisodeStore(path, ram=1 << 24, mode="r").episodes()}


def test_episodes_are_added_to_those_already_there(tmp_path: Path):
    command = ("collect", "--env", "toy:dodge", "--hold", "2", "8", "--json", "--out")
    assert oneiro(*command, tmp_path / "a", "--episodes", "3").json["episodes"] == 3
    first = read(tmp_path / "a")
    grown = oneiro(*command, tmp_path / "a", "--episodes", "6").json
    assert grown["episodes"] == 6
    assert grown["score"]["n"] == 6
    assert grown["rows"] == sum(map(len, read(tmp_path / "a").values()))
    once = oneiro(*command, tmp_path / "b", "--episodes", "6", "--env.num", "3").json
    assert {k: once[k] for k in ("rows", "score")} == {k: grown[k] for k in ("rows", "score")}
    for id, action in read(tmp_path / "b").items():
        assert np.array_equal(action, read(tmp_path / "a")[id])
        assert id not in first or np.array_equal(action, first[id])
    assert oneiro(*command, tmp_path / "a", "--seed", "1").is_error("another source", "seed: 0 there, 1 now")
    assert oneiro("collect", "--env", "toy:catch", "--out", tmp_path / "a").is_error("another source")
    table = oneiro(
        "collect", "--env", "toy:dodge", "--hold", "2", "8", "--episodes", "6", "--out", tmp_path / "a"
    )
    assert f"{grown['rows']:,}" in table.out
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("x")
    assert oneiro(*command, tmp_path / "c").is_error("thesis.txt")


def test_options_of_the_environment(tmp_path: Path):
    answer = oneiro(
        *("collect", "--env", "CartPole-v1", "--env.max_steps", "5", "--env.workers", "sync"),
        *("--episodes", "2", "--json", "--out", tmp_path / "a"),
    )
    assert answer.json["rows"] == 12
    assert oneiro("collect", "--env", "takecover", "--env.skill", "7", "--out", tmp_path / "b").is_error(
        "skill"
    )
    text = oneiro("collect", "--env", "takecover", "--help").out
    assert "--env.action-repeat" in text
    assert "Example: oneiro collect" in text


def test_a_run_plays(trained: Path, tmp_path: Path):
    command = ("collect", "--run", trained, "--recipe", TOY, "--episodes", "3", "--json", "--out")
    facts = oneiro(*command, tmp_path / "a").json
    assert facts["episodes"] == 3
    assert facts["source"]["policy"]["checkpoint"]
    assert oneiro(*command, trained / "replay").is_error("was not made by `oneiro collect`")


def test_a_small_capacity_keeps_the_newest(tmp_path: Path):
    command = ("collect", "--env", "toy:catch", "--episodes", "6", "--json", "--out")
    for _ in range(2):
        facts = oneiro(*command, tmp_path / "a", "--capacity", "45").json
        assert (facts["episodes"], facts["rows"]) == (3, 45)
    assert {3, 4, 5} <= set(read(tmp_path / "a")) <= set(range(6))  # in a file until all of it is old
    assert oneiro(*command, tmp_path / "b", "--capacity", "10").is_error("capacity")


@pytest.mark.parametrize(("fault", "words"), [("Broken", "NaN"), ("Outside", "vector"), ("Reward", "inf")])
def test_what_an_environment_returns_is_checked_and_what_came_before_is_kept(tmp_path: Path, fault, words):
    command = (
        "collect",
        "--env",
        f"{FAULTS}:{fault}",
        "--env.num",
        "1",
        "--seed",
        "3",
        "--out",
        tmp_path / "a",
    )
    assert oneiro(*command).is_error(words, "step 2")
    assert len(read(tmp_path / "a")) > 0


def test_minari_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    made = oneiro(
        *("collect", "--env", "toy:catch", "--episodes", "2", "--json"),
        *("--minari", "toy/catch-v0", "--out", tmp_path / "a"),
    ).json
    command = ("collect", "--from-minari", "toy/catch-v0", "--json", "--out", tmp_path / "b")
    found = oneiro(*command).json
    assert {k: found[k] for k in ("rows", "score")} == {k: made[k] for k in ("rows", "score")}
    assert oneiro(*command).is_error("holds 2 episodes already")
    assert oneiro("collect", "--from-minari", "toy/none-v0", "--out", tmp_path / "c").is_error("toy/none-v0")


def test_an_interrupt_keeps_what_is_stored(tmp_path: Path):
    path = tmp_path / "a"
    command = [sys.executable, "-m", "oneiro.cli", "collect", "--env", "toy:dodge", "--env.num", "1"]
    command += ["--episodes", "100000", "--out", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while "stage 1/1" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(1.0)
        assert oneiro("collect", "--env", "toy:dodge", "--out", path).is_error("in use by another process")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in err
    assert len(read(path)) == json.loads(out)["episodes"] > 0
