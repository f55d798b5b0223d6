"""Verbs on run folders: trained ones, foreign ones, damaged ones."""

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from calling import TOY, oneiro

import oneiro as package
from oneiro.recipes import find
from oneiro.training.recipe import to_json


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoint").iterdir())


def evaluate(run: Path, *more: str):
    return oneiro("evaluate", run, "--recipe", TOY, "--episodes", "3", *more)


def test_a_recipe_of_ones_own_trains_evaluates_dreams_and_reports(trained: Path, tmp_path: Path):
    scores = evaluate(trained, "--dream", "--json").json
    assert set(scores) == {"real", "dream"}
    assert scores["real"]["summary"]["n"] == 3
    assert scores["real"]["protocol"]["action_repeat"] == 1
    assert scores["real"]["score"] == evaluate(trained, "--json").json["real"]["score"]
    table = evaluate(trained).out
    assert "1 frame" in table
    assert table.count("toy dodge: image 3 x 64 x 64") == 1
    film = oneiro(
        "dream", trained, "--recipe", TOY, "--horizon", "5", "--out", tmp_path / "film.webp", "--json"
    ).json
    assert Path(film["film"]).stat().st_size > 500
    assert len(film["psnr"]) == 6


def test_the_protocol_is_kept_beside_the_scores(copy: Path):
    before = (copy / "scores" / "real.json").read_text()
    assert evaluate(copy, "--sample").out.count("actions sampled") == 1
    assert (copy / "scores" / "real.json").read_text() == before
    assert evaluate(copy, "--sample", "--save").code == 0
    protocol = json.loads((copy / "scores" / "real.json").read_text())["protocol"]
    assert (protocol["explore"], protocol["episodes"], protocol["task"]) == (True, 3, "toy dodge")
    assert protocol["settings"] == {}  # nothing of a toy can be set that would change its scores
    assert evaluate(copy, "--greedy", "--json").json["real"]["protocol"]["explore"] is False
    assert evaluate(copy, "--greedy", "--sample").is_error("exclude each other")


def test_code_that_a_run_folder_names_is_not_run(copy: Path, tmp_path: Path):
    planted = tmp_path / "planted.py"
    planted.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    note = json.loads((copy / "recipe.json").read_text())
    note["recipe"]["recipe"] = f"{planted}:recipe"
    (copy / "recipe.json").write_text(json.dumps(note))
    for verb in ("evaluate", "dream", "report"):
        assert oneiro(verb, copy).is_error("never runs code", f"--recipe {planted}:recipe")
    assert oneiro("collect", "--run", copy, "--out", tmp_path / "out").is_error("never runs code")
    with pytest.raises(package.OneiroError, match="never runs code"):
        package.load(copy)
    assert not (tmp_path / "executed").exists()
    assert evaluate(copy).code == 0


@pytest.mark.parametrize(
    "env",
    [
        {"id": "planted_module:Planted-v0"},
        {"id": "oneiro/Dream-v0", "options": ["run=planted", "recipe=planted_module.py:recipe"]},
    ],
)
def test_code_that_an_environment_of_a_run_folder_names_is_not_run(
    env, copy: Path, tmp_path: Path, monkeypatch
):
    (tmp_path / "planted_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    values = json.loads(json.dumps(to_json(find("dreamerv3-gym").build("smoke"))))
    values["env"] |= env
    note = json.loads((copy / "recipe.json").read_text())
    note["recipe"] = {"recipe": "dreamerv3-gym", "size": "smoke", "values": values}
    (copy / "recipe.json").write_text(json.dumps(note))
    assert oneiro("evaluate", copy).is_error("never runs code", "--recipe dreamerv3-gym", env["id"])
    with pytest.raises(package.OneiroError, match="never runs code"):
        package.load(copy)
    assert not (tmp_path / "executed").exists()


def test_folders_that_are_no_runs(copy: Path, tmp_path: Path):
    assert oneiro("evaluate", tmp_path / "nowhere").is_error("is not a run folder", "does not exist")
    assert oneiro("report", tmp_path).is_error("has no recipe.json")
    assert oneiro("train", TOY, "--run", tmp_path).is_error("is not a run folder", "copy")
    assert oneiro("train", TOY, "--run", copy, "--world.z-dim", "9").is_error(
        "another recipe", "world.z_dim: 8 there, 9 now", "--run"
    )
    assert oneiro("train", "vmc-takecover", "--run", copy).is_error("another recipe")
    note = json.loads((copy / "recipe.json").read_text())
    (copy / "recipe.json").write_text(json.dumps(note | {"format": 99}))
    for answer in (evaluate(copy), oneiro("train", TOY, "--run", copy)):
        assert answer.is_error("newer oneiro", "format 99", "pip install --upgrade oneiro")
    (copy / "recipe.json").write_text("{")
    assert evaluate(copy).is_error("recipe.json is damaged")
    (copy / "recipe.json").write_text(json.dumps(note | {"recipe": {"something": 1}}))
    assert evaluate(copy).is_error("holds no recipe")


def test_a_run_without_a_checkpoint(copy: Path):
    shutil.rmtree(copy / "checkpoint")
    assert evaluate(copy).is_error("has no checkpoint yet", "train it first")


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def disguise(file: Path) -> None:
    """A pickle under the name of the weights, with a checksum that fits."""
    file.write_bytes(pickle.dumps(Payload(file.parents[2] / "executed")))
    sums = json.loads((file.parent / "checksums.json").read_text())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    sums["files"][file.name] = {"bytes": file.stat().st_size, "sha256": digest}
    (file.parent / "checksums.json").write_text(json.dumps(sums))


@pytest.mark.parametrize("damage", [truncate, flip, disguise])
def test_damaged_checkpoints(copy: Path, damage):
    *older, newest = checkpoints(copy)
    assert older
    damage(newest / "weights.safetensors")
    answer = evaluate(copy, "--json")
    assert answer.json
    assert "warning: damaged checkpoint skipped" in answer.err
    assert newest.name in answer.err
    for checkpoint in older:
        damage(checkpoint / "weights.safetensors")
    for answer in (evaluate(copy), oneiro("train", TOY, "--run", copy)):
        assert answer.is_error(
            "none of the checkpoints", "weights.safetensors", "Copy one back from a backup"
        )
    assert not (copy / "executed").exists()


def test_training_goes_on_from_the_checkpoint_before(copy: Path):
    scores = (copy / "scores" / "real.json").read_text()
    flip(checkpoints(copy)[-1] / "state.json")
    answer = oneiro("train", TOY, "--run", copy)
    assert answer.code == 0
    assert "damaged checkpoint skipped" in answer.err
    assert (copy / "scores" / "real.json").read_text() == scores


def test_looking_at_a_run_changes_nothing_in_its_replay(copy: Path):
    left = copy / "replay" / "chunks" / "00000099.chunk.tmp"  # being written by a run that goes on
    left.write_bytes(b"half")
    assert evaluate(copy, "--dream").code == 0
    assert left.exists()


def test_a_loaded_agent_acts_as_in_the_evaluation(trained: Path):
    player = package.load(trained, recipe=TOY)
    env = player.env()
    obs, _ = env.reset(seed=3)
    over, score = False, 0.0
    while not over:
        action = player.act(obs)
        assert action.shape == (1,)
        assert env.action_space.contains(action)
        obs, reward, terminated, truncated, _ = env.step(action)
        over, score = terminated or truncated, score + reward
    assert score >= 1
    picture = obs["image"]
    player.reset()
    assert player.act(np.stack([picture] * 3)).shape == (3, 1)
    player.reset(rows=[True, False, False])
    player.act({"image": np.stack([picture] * 3)}, reward=[0.0, 1.0, 1.0])
    for bad, word in (
        (picture[:, :60], "shape"),
        (picture / 255, "uint8"),
        (picture, "reset"),
        ({}, "missing"),
    ):
        with pytest.raises(ValueError, match=word):
            player.act(bad)
