"""The stage `Epochs`: what it does and when, and that a stopped run goes on as if nothing had happened."""

from pathlib import Path

import pytest
import torch

from oneiro.recipes.diamond import diamond_atari
from oneiro.training.epochs import Epochs
from oneiro.training.log import LogConfig, read_metrics
from oneiro.training.recipe import CheckpointConfig, Recipe, tweak
from oneiro.training.run import Stopped
from recipes.test_runs import StopAfter, launch, timeless


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return tweak(
        diamond_atari("smoke"),
        {
            "checkpoint": CheckpointConfig(minutes=0.0001),
            "log": LogConfig(tensorboard=False),
            "schedule.evaluate.episodes": 1,
            "world.compute_dtype": "float32",
            "behaviour.compute_dtype": "float32",
        },
    )


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    launch(recipe, path)
    return path


def weights(path: Path, recipe: Recipe) -> dict[str, torch.Tensor]:
    return launch(recipe, path).agent.state_dict()


def test_epochs_collect_and_train_in_turn(whole: Path) -> None:
    lines = [line for line in read_metrics(whole / "metrics.jsonl") if line["stage"] == "epochs"]
    kinds = [
        next(k for k in ("collect/rows", "denoiser/loss", "reward/reward", "dream/return") if k in line)
        for line in lines
    ]
    assert kinds == ["collect/rows", "denoiser/loss", "reward/reward", "dream/return"] * 2
    assert [line["step"] for line in lines if "denoiser/loss" in line] == [3, 5]
    # catch lasts 14 steps: 30 are reached by four episodes, 60 by six
    assert [line["collect/rows"] for line in lines if "collect/rows" in line] == [60, 90]


def test_a_stopped_run_goes_on(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    path, stops = tmp_path / "run", 0
    while True:
        try:
            stopped = launch(recipe, path, StopAfter(4 + stops))
            break
        except Stopped:
            stops += 1
    assert stops > 2
    again = stopped.agent.state_dict()
    expected = weights(whole, recipe)
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    ours = [line for line in timeless(path) if "denoiser/loss" in line]
    theirs = [line for line in timeless(whole) if "denoiser/loss" in line]
    assert [line["denoiser/loss"] for line in ours] == [line["denoiser/loss"] for line in theirs]


def test_a_small_capacity_does_not_keep_it_collecting(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "run"
    tasks = tuple(tweak(task, {"first": 0, "updates": 0}) for task in recipe.schedule.epochs.tasks)
    small = {"data.capacity": 40, "schedule.epochs.tasks": tasks}
    run = launch(tweak(recipe, small), path)
    assert run.store.rows <= 40
    lines = [line for line in read_metrics(path / "metrics.jsonl") if "collect/rows" in line]
    assert [line["step"] for line in lines] == [56, 84]  # of 14 steps each, as without the limit


def test_impossible_settings_are_refused(recipe: Recipe) -> None:
    epochs: Epochs = recipe.schedule.epochs
    with pytest.raises(ValueError, match="one for each"):
        tweak(epochs, {"tasks": epochs.tasks[:2]})
    with pytest.raises(ValueError, match="total_steps"):
        tweak(epochs, {"total_steps": 3})
