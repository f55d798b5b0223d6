"""The stage `Epochs`: what it does and when, and that a stopped run goes on as if nothing had happened."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from oneiro.data.episodes import Episode
from oneiro.data.store import EpisodeStore
from oneiro.recipes.diamond import diamond_atari
from oneiro.training.epochs import Epochs, _rare
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


def rewarded(folder: Path, *rewards: list[float]) -> EpisodeStore:
    """Episodes with these rewards after their reset rows."""
    store = EpisodeStore(folder, ram=1 << 24)
    for id, given in enumerate(rewards):
        reward = np.array([0.0, *given], np.float32)
        blank = np.zeros((len(reward), 1), np.float32)
        ends = np.zeros(len(reward), bool)
        store.add(Episode(id=id, obs={"vector": blank}, action=blank, reward=reward, terminated=ends))
    return store


@pytest.mark.parametrize(
    ("rewards", "rare"),
    [
        ([[0, 0, 0, 5, -1], [0, 0.5]], 3),
        ([[-1, -4, -1, 0], [-2, 9, 9]], 3),
        ([[2, 3, 1], [1]], 0),
        ([[0], [0], [0]], 0),
    ],
)
def test_rare_rewards(tmp_path: Path, rewards: list[list[float]], rare: int) -> None:
    """Those of another sign than most, reset rows not counted."""
    with rewarded(tmp_path, *rewards) as store:
        assert _rare(store) == rare


def test_when_more_is_collected(recipe: Recipe, tmp_path: Path) -> None:
    """First to `first_steps`, and on until ten rewards are rare or `most_first_steps` are reached."""
    epochs = replace(
        recipe.schedule.epochs,
        first_steps=50,
        most_first_steps=100,
        steps=10,
        total_steps=120,
        rare_rewards=10,
    )
    nine, ten = ([[1.0] * n + [0.0] * 40] for n in (9, 10))

    def is_due(epoch: int, collected: int, store: EpisodeStore) -> bool:
        run: Any = SimpleNamespace(done={"epoch": epoch, "collected": collected}, collected=store)
        return epochs._is_due(run)

    with rewarded(tmp_path / "nine", *nine) as few, rewarded(tmp_path / "ten", *ten) as enough:
        assert [is_due(0, n, enough) for n in (0, 49, 50, 99)] == [True, True, False, False]
        assert [is_due(0, n, few) for n in (0, 49, 50, 99, 100)] == [True, True, True, True, False]
        # later the first steps are 50 again, whatever was collected
        assert [is_due(1, n, few) for n in (50, 59, 60, 100)] == [True, True, False, False]
        assert [is_due(9, n, few) for n in (119, 120, 130)] == [True, False, False]
