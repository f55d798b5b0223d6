"""Aggregates against the figures of the publications and of rliable."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from oneiro.envs.atari import AtariConfig
from oneiro.envs.crafter import CrafterConfig
from oneiro.envs.dmc import DMCConfig
from oneiro.envs.toy import ToyConfig
from oneiro.errors import OneiroError
from oneiro.evaluation.aggregate import (
    aggregate,
    aggregate_means,
    distribution,
    normalise,
    probability_of_improvement,
)
from oneiro.evaluation.comparison import _end
from oneiro.evaluation.published import lookup, require_methods, suites
from oneiro.evaluation.settings import task_of

ATARI = suites()["atari100k"]


def runs(name):
    method = ATARI.method(name)
    return {
        game: [normalise(x, ATARI.random[game], ATARI.human[game]) for x in scores]
        for game, scores in method.runs.items()
    }


def means(name):
    method = ATARI.method(name)
    return {g: normalise(method.mean(g), ATARI.random[g], ATARI.human[g]) for g in ATARI.tasks}


@pytest.mark.parametrize(
    ("name", "mean", "median", "iqm", "gap", "superhuman"),
    [
        ("IRIS", 1.046, 0.289, 0.501, 0.512, 10),
        ("SimPLe", 0.332, 0.134, 0.130, 0.729, 1),
        ("TWM", 0.956, 0.505, 0.459, 0.513, 8),
        ("STORM-released-runs", 1.222, 0.425, 0.561, 0.472, 9),
        ("DIAMOND", 1.459, 0.373, 0.641, 0.480, 11),
        ("REM", 1.222, 0.280, 0.673, 0.482, 12),
        ("Simulus", 1.645, 0.982, 0.990, 0.412, 13),
    ],
)
def test_published_aggregates_follow_from_the_released_runs(name, mean, median, iqm, gap, superhuman):
    found = aggregate(runs(name), draws=10)
    assert found.mean.value == pytest.approx(mean, abs=6e-4)
    assert found.median.value == pytest.approx(median, abs=6e-4)
    assert found.iqm.value == pytest.approx(iqm, abs=6e-4)
    assert found.optimality_gap.value == pytest.approx(gap, abs=6e-4)
    assert (found.superhuman, found.tasks, found.runs) == (superhuman, 26, 130)


@pytest.mark.parametrize(
    ("name", "mean", "median", "superhuman"),
    [
        ("DreamerV3-2024", 1.247, 0.494, 7),
        ("DreamerV3-2023", 1.124, 0.485, 9),
        ("EfficientZero", 1.943, 1.090, 14),
        ("BBF", 2.247, 0.917, 12),
        ("STORM-paper", 1.267, 0.582, 10),
    ],
)
def test_means_of_tasks_give_mean_and_median_and_nothing_else(name, mean, median, superhuman):
    found = aggregate_means(means(name))
    assert found.mean.value == pytest.approx(mean, abs=6e-4)
    assert found.median.value == pytest.approx(median, abs=6e-4)
    assert found.superhuman == superhuman
    assert found.iqm is None
    assert found.optimality_gap is None
    assert "need the score of every run" in found.absent


# rliable 1.2.0 (arch 7.2, 4,000 draws): lower and upper ends for mean, median, IQM, gap.
RLIABLE = {
    "IRIS": [(0.9648, 1.1276), (0.2502, 0.4141), (0.4415, 0.5647), (0.491, 0.5334)],
    "DIAMOND": [(1.3561, 1.5669), (0.3096, 0.4907), (0.5779, 0.708), (0.4648, 0.4961)],
    "SimPLe": [(0.2849, 0.3817), (0.0821, 0.1634), (0.0989, 0.1689), (0.6911, 0.7667)],
}


@pytest.mark.parametrize("name", RLIABLE)
def test_bootstrap_intervals_are_those_of_rliable(name):
    found = aggregate(runs(name))
    ours = [found.mean, found.median, found.iqm, found.optimality_gap]
    for estimate, (low, high) in zip(ours, RLIABLE[name], strict=True):
        width = high - low
        assert estimate.low == pytest.approx(low, abs=0.04 * width)  # two bootstraps of finite length
        assert estimate.high == pytest.approx(high, abs=0.04 * width)


def test_probability_of_improvement_is_that_of_rliable():
    found = probability_of_improvement(runs("DIAMOND"), runs("IRIS"))
    assert found.value == pytest.approx(0.66615, abs=1e-5)
    assert found.low == pytest.approx(0.6154, abs=0.008)
    assert found.high == pytest.approx(0.7138, abs=0.008)
    assert probability_of_improvement(runs("IRIS"), runs("IRIS")).value == pytest.approx(0.5)


def test_score_distribution_is_that_of_rliable():
    found = distribution(runs("DIAMOND"), [0, 0.5, 1, 2])
    assert [e.value for e in found] == pytest.approx([0.96923, 0.46154, 0.42308, 0.24615], abs=1e-5)
    assert found[1].low == pytest.approx(0.4462, abs=0.009)
    assert found[1].high == pytest.approx(0.4769, abs=0.009)


def test_the_interval_contains_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=8)
    hits = 0
    for k in range(150):
        sample = {str(g): m + rng.normal(size=8) for g, m in enumerate(truth)}
        found = aggregate(sample, draws=300, seed=k).mean
        hits += found.low <= truth.mean() <= found.high
    assert 0.86 <= hits / 150 <= 0.99  # somewhat narrow with eight runs, as bootstraps are


def test_unequal_numbers_of_runs_have_no_iqm():
    found = aggregate({"a": [0.5, 1.5, 1.0], "b": [0.2, 0.4]}, draws=50)
    assert found.iqm is None
    assert "between 2 and 3" in found.absent
    assert found.mean.value == pytest.approx(0.65)
    assert found.optimality_gap.value == pytest.approx(1 - (2.5 / 3 + 0.3) / 2)


def test_one_run_has_no_interval():
    found = aggregate({"a": [0.5], "b": [2.0]})
    assert np.isnan(found.mean.low)
    assert found.to_json()["mean"] == {"value": 1.25, "low": None, "high": None}
    assert str(found.mean) == "1.250"


RECORDED = json.loads((Path(__file__).parents[1] / "vectors" / "atari100k_scores.json").read_text())
RENAMED = {"DrQ(eps)": "DrQ-eps", "MuZero(100k)": "MuZero"}


def by_game(values):
    """{name of the game here: value}."""
    return {re.sub(r"(?<!^)(?=[A-Z])", "_", game).lower(): value for game, value in values.items()}


def test_shipped_scores_are_the_recorded_ones():
    assert by_game(RECORDED["random"]) == ATARI.random
    assert by_game(RECORDED["human"]) == ATARI.human
    assert list(by_game(dict.fromkeys(RECORDED["games"]))) == ATARI.tasks
    with_scores = {name for name, method in RECORDED["methods"].items() if "per_game" in method}
    assert {RENAMED.get(name, name) for name in with_scores} == set(ATARI.methods)


@pytest.mark.parametrize("name", [name for name, m in RECORDED["methods"].items() if "per_game" in m])
def test_shipped_methods_are_the_recorded_ones(name):
    recorded, method = RECORDED["methods"][name], ATARI.methods[RENAMED.get(name, name)]
    assert method.source == recorded["source"]
    assert method.status == recorded["status"]
    assert method.runs == by_game(recorded.get("runs", {}))
    for game, score in by_game(recorded["per_game"]).items():
        assert method.mean(game) == pytest.approx(score, abs=0.06, rel=1e-5)  # means are rounded
    assert method.published == recorded.get("published_aggregates", {})
    computed, found = recorded["computed_aggregates"], aggregate_means(means(method.name))
    assert found.mean.value == pytest.approx(computed["mean"], abs=1e-4)
    assert found.median.value == pytest.approx(computed["median"], abs=1e-4)
    assert found.superhuman == computed["superhuman_games"]
    if method.runs:
        found = aggregate(runs(method.name), draws=2)
        assert found.iqm.value == pytest.approx(computed["iqm"], abs=1e-4)
        assert found.optimality_gap.value == pytest.approx(computed["optimality_gap"], abs=1e-4)


@pytest.mark.parametrize("bad", [{}, {"a": []}, {"a": [1.0, float("nan")]}])
def test_what_cannot_be_aggregated_is_refused(bad):
    with pytest.raises(ValueError, match=r"task|run"):
        aggregate(bad)


def test_tasks_are_found_however_they_are_spelled():
    for spelling in ("ms_pacman", "MsPacman", "Ms Pacman"):
        suite, game = lookup(f"atari100k/{spelling}")
        assert (suite.name, game) == ("atari100k", "ms_pacman")
    suite, task = lookup("dmc-proprio/ball_in_cup_catch")
    assert suite.method("dreamerv3 2024").mean(task) == 960
    assert lookup("dmc-vision/walker_walk")[0].frames == 1_000_000
    assert lookup("atari100k/tetris") is None
    assert lookup("my_game") is None


@pytest.mark.parametrize(
    ("name", "mean", "median"), [("dmc-proprio", 757.5, 885.3), ("dmc-vision", 784.9, 862.1)]
)
def test_control_tables_give_the_published_aggregates(name, mean, median):
    suite = suites()[name]
    scores = [suite.method("DreamerV3-2024").mean(task) for task in suite.tasks]
    assert np.mean(scores) == pytest.approx(mean, abs=0.25)  # the table gives 785.1 for 784.9
    assert np.median(scores) == pytest.approx(median, abs=0.6)  # of rounded scores
    assert not suite.is_normalised


def test_an_unknown_method_gets_the_nearest():
    with pytest.raises(OneiroError, match="Did you mean 'DIAMOND'"):
        ATARI.method("DIAMONDS")
    with pytest.raises(OneiroError, match="Did you mean 'DreamerV3-202"):
        require_methods(["atari100k"], ["DreamerV3-2025"])
    with pytest.raises(OneiroError, match="no published scores on these tasks"):
        require_methods(["CartPole-v1"], ["IRIS"])
    require_methods(["atari100k", "CartPole-v1"], ["iris", "dreamerv3-2024"])


def test_environments_name_tasks_that_have_published_scores():
    named = {
        AtariConfig(game="ALE/MsPacman-v5"): ("atari100k", "ms_pacman"),
        DMCConfig(task="cartpole_swingup"): ("dmc-proprio", "cartpole_swingup"),
        DMCConfig(task="ball_in_cup_catch", shows="image"): ("dmc-vision", "cup_catch"),
        CrafterConfig(): ("crafter", "reward"),
    }
    for config, (suite, task) in named.items():
        found = lookup(task_of(config))
        assert found is not None, config
        assert (found[0].name, found[1]) == (suite, task)
    for other in (
        DMCConfig(shows="image", quality="fast"),
        CrafterConfig(reward=False),
        ToyConfig(id="dodge"),
    ):
        assert other.benchmark == ""


def test_a_run_of_200_million_frames_is_read_out_at_its_own_end():
    def end(task):
        return _end([SimpleNamespace(task=task, budget=204_000_000, frames=1000)], None)  # type: ignore[list-item]

    assert end("atari100k/pong") == 400_000
    assert end("atari200m/pong") == 204_000_000
