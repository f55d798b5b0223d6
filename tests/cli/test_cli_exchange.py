"""Runs leave as a folder for a model hub and come back; DIAMOND's released weights become a run."""

import json
from pathlib import Path

import pytest
import torch
from calling import TOY, oneiro
from safetensors.torch import load_file

import oneiro as library
from oneiro.errors import OneiroError
from oneiro.recipes import find
from oneiro.recipes.diamond_weights import PREFIXES
from oneiro.recipes.imported import import_exported
from oneiro.recipes.saved import open_run
from oneiro.training.recipe import tweak
from oneiro.training.run import build_agent


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "dodge"
    answer = oneiro("export", trained, folder, "--licence", "mit", "--recipe", TOY)
    assert answer.code == 0, answer.err
    return folder


def test_an_exported_folder_holds_weights_recipe_scores_and_card(trained: Path, exported: Path) -> None:
    assert {p.name for p in exported.iterdir()} == {
        *("model.safetensors", "config.json", "scores.json", "README.md")
    }
    own = open_run(trained, TOY).agent.state_dict()
    kept = load_file(exported / "model.safetensors")
    assert kept.keys() == own.keys()
    assert all(torch.equal(kept[name], own[name]) for name in own)
    config = json.loads((exported / "config.json").read_text())
    assert config["licence"] == "mit"
    assert config["actions"]["dim"] >= 1
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert f"| world | {config['parameters']['world']:,} |" in card
    scores = json.loads((exported / "scores.json").read_text())
    assert scores
    assert all(f"| {name} |" in card for name in scores)
    assert str(trained) not in json.dumps(config)


def test_an_exported_folder_acts_and_comes_back_as_a_run(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    assert library.load(exported, recipe=TOY).agent.state_dict().keys()
    answer = oneiro("import", exported, "--run", tmp_path / "run", "--episodes", 2, "--recipe", TOY, "--json")
    assert answer.json["parameters"] == sum(p.numel() for p in open_run(trained, TOY).agent.parameters())
    same = ("--episodes", 3, "--recipe", TOY, "--json")
    scores = [
        oneiro("evaluate", x, *same).json["real"]["score"] for x in (trained, exported, tmp_path / "run")
    ]
    assert scores[0] == scores[1] == scores[2]
    film = oneiro("dream", tmp_path / "run", "--context", 1, "--horizon", 3, "--recipe", TOY)
    assert film.code == 0, film.err
    again = oneiro("import", exported, "--run", tmp_path / "run", "--recipe", TOY)
    again.is_error("is not empty", "--run")
    oneiro("export", trained, exported, "--recipe", TOY).is_error("is not empty")


def test_an_import_that_fails_leaves_nothing(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OneiroError("the game has crashed")

    monkeypatch.setattr("oneiro.recipes.imported.play", fails)
    with pytest.raises(OneiroError, match="crashed"):
        import_exported(exported, tmp_path / "run", "test", episodes=1, recipe=TOY)
    assert not (tmp_path / "run").exists()


def test_code_of_others_is_not_run(exported: Path, tmp_path: Path) -> None:
    oneiro("import", exported, "--run", tmp_path / "run").is_error("Loading never runs code", "--recipe")


def test_damaged_folders_are_named(exported: Path, tmp_path: Path) -> None:
    weights = (exported / "model.safetensors").read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "config.json").write_bytes((exported / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    target = ("--run", tmp_path / "run", "--recipe", TOY)
    oneiro("import", folder, *target).is_error("damaged or cut short")
    (folder / "config.json").write_text("{")
    oneiro("import", folder, *target).is_error("config.json", "is damaged")
    oneiro("import", tmp_path, *target).is_error("no exported run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under names of another library, in the released order, for Breakout."""
    pytest.importorskip("ale_py")
    recipe = tweak(find("diamond-atari").build("cpu"), {"env.game": "breakout"})
    torch.manual_seed(1)
    agent = build_agent(recipe, recipe.env.spaces())
    tensors = {
        f"{prefix}.layer.{k}": x.clone()
        for prefix, address in PREFIXES.items()
        for k, x in enumerate(agent.get_submodule(address).state_dict().values())
    }
    path = tmp_path_factory.mktemp("released") / "Breakout.pt"
    torch.save(tensors, path)
    return path


def test_released_weights_become_a_run(released: Path, tmp_path: Path) -> None:
    made = ("--game", "breakout", "--size", "cpu", "--episodes", 0, "--run", tmp_path / "run")
    answer = oneiro("import", "diamond", released, *made)
    assert answer.code == 0, answer.err
    run = open_run(tmp_path / "run")
    assert run.recipe.env.game == "breakout"
    assert run.recipe.schedule.evaluate.env.game == "breakout"
    theirs = torch.load(released, weights_only=True)
    for prefix, address in PREFIXES.items():
        for k, x in enumerate(run.agent.get_submodule(address).state_dict().values()):
            assert torch.equal(x, theirs[f"{prefix}.layer.{k}"]), (address, k)


def test_weights_that_cannot_be_are_refused(released: Path, tmp_path: Path) -> None:
    rest = ("--size", "cpu", "--run", tmp_path / "run")
    oneiro("import", "diamond", released, "--game", "pong", *rest).is_error(
        "4 actions", "pong has 6", "--game"
    )
    oneiro("import", "diamond", released, "--game", "breakout", "--run", tmp_path / "run").is_error(
        "denoiser.layer.0 is 1x64, our world.denoiser.net.noise.weight 1x128",
        "actor_critic has",
        "has no counterpart",
    )
    cut = tmp_path / "cut.pt"
    cut.write_bytes(released.read_bytes()[:1000])
    oneiro("import", "diamond", cut, "--game", "breakout", *rest).is_error("no file of weights only")
    oneiro("import", "diamond", tmp_path / "no.pt", "--game", "breakout", *rest).is_error("no.pt")
    assert not (tmp_path / "run").exists()
