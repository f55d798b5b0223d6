"""`oneiro compare` on run folders that were written by hand."""

import sys

import numpy as np
import pytest
from calling import oneiro
from synthetic import RECIPES, make_run

from oneiro.evaluation.aggregate import normalise
from oneiro.evaluation.published import suites

OWN = ("--recipe", f"{RECIPES}:atari", f"{RECIPES}:toy")
ATARI = suites()["atari100k"]


def compare(*words):
    return oneiro("compare", *words, *OWN)


@pytest.fixture
def three_seeds(tmp_path):
    """Two games, three seeds each, evaluated and with training episodes."""
    paths = []
    for game, level in (("pong", 0.0), ("ms_pacman", 1000.0)):
        for seed in range(3):
            score = level + 10.0 * seed
            trained = [(50_000, -1.0), (98_000, score), (99_000, score + 2), (100_000, score + 4)]
            path = tmp_path / f"{game}-{seed}"
            make_run(path, "atari", seed=seed, evaluated=[score, score + 1], trained=trained, env__game=game)
            paths.append(path)
    return paths


def test_seeds_games_and_aggregates_against_published_columns(three_seeds):
    found = compare(*three_seeds, "--against", "iris", "DreamerV3 2024", "BBF", "--json").json
    assert found["readout"].startswith("separate evaluation")
    assert list(found["tasks"]) == ["atari100k/pong", "atari100k/ms_pacman"]
    task = found["tasks"]["atari100k/ms_pacman"]
    mine = task["runs"]["atari small"]
    assert mine["seeds"] == [0, 1, 2]
    assert mine["scores"] == [1000.5, 1010.5, 1020.5]
    assert mine["summary"]["mean"] == 1010.5
    assert mine["normalised"][0] == pytest.approx((1000.5 - 307.3) / (6951.6 - 307.3))
    assert task["published"]["DreamerV3-2024"]["score"] == pytest.approx(1521, abs=1)
    assert task["published"]["IRIS"]["score"] == pytest.approx(
        np.mean(ATARI.method("IRIS").runs["ms_pacman"])
    )
    every = found["aggregates"]["atari100k"]
    assert every["tasks"] == ["atari100k/pong", "atari100k/ms_pacman"]
    hns = [np.mean(found["tasks"][t]["runs"]["atari small"]["normalised"]) for t in every["tasks"]]
    assert every["atari small"]["mean"]["value"] == pytest.approx(np.mean(hns))
    assert every["IRIS"]["runs"] == 10
    iris = [
        normalise(x, ATARI.random[g], ATARI.human[g])
        for g in ("pong", "ms_pacman")
        for x in ATARI.method("IRIS").runs[g]
    ]
    assert every["IRIS"]["iqm"]["value"] == pytest.approx(np.mean(sorted(iris)[2:-2]))
    assert every["IRIS"]["probability_of_improvement_of_the_first"]["value"] <= 1
    assert every["BBF"]["iqm"] is None
    assert "need the score of every run" in every["BBF"]["absent"]
    assert found["left_out"] == []
    assert any("training episodes, sampling policy" in note for note in found["notes"])


def test_training_episodes_are_another_score(three_seeds):
    found = compare(*three_seeds, "--readout", "training", "--json").json
    assert found["readout"] == "training episodes, sampling policy, last 2.5 % of 400,000 frames"
    scores = found["tasks"]["atari100k/pong"]["runs"]["atari small"]["scores"]
    assert scores == [2.0, 12.0, 22.0]
    at = compare(*three_seeds, "--readout", "training", "--at", "200000", "--json").json
    assert at["tasks"]["atari100k/pong"]["runs"]["atari small"]["scores"] == [-1.0] * 3
    filled = compare(*three_seeds, "--readout", "training-2023", "--json").json
    assert filled["tasks"]["atari100k/pong"]["runs"]["atari small"]["scores"] == [-1.0] * 3  # filled forward


def test_the_table_says_what_a_score_is(three_seeds):
    out = compare(*three_seeds, "--against", "dreamerv3-2024").out
    for words in (
        "separate evaluation",
        "atari100k/pong",
        "2 of 26 tasks",
        "optimality gap",
        "DreamerV3-2024",
    ):
        assert words in " ".join(out.split()), words


def test_runs_that_are_not_scored_alike_are_refused(tmp_path):
    plain = make_run(tmp_path / "plain", "atari", seed=0, evaluated=[1.0, 2.0])
    sticky = make_run(tmp_path / "sticky", "atari", seed=1, evaluated=[1.0, 2.0], env__preset="storm")
    life = make_run(tmp_path / "life", "atari", seed=2, evaluated=[5.0], env__life="end", env__game="boxing")
    answer = compare(plain, sticky, life)
    assert answer.is_error(
        "not scored alike", "sticky: 0 in", "0.25 in", "life: ignore in", "end in", "--mixed"
    )
    mixed = compare(plain, sticky, "--mixed", "--json").json
    labels = list(mixed["tasks"]["atari100k/pong"]["runs"])
    assert len(labels) == 2
    assert "sticky=0" in labels[0] + labels[1]
    sampled = make_run(tmp_path / "sampled", "atari", seed=3, evaluated=[1.0], explore=True)
    assert compare(plain, sampled).is_error("actions_are: greedy in", "sampled in")


def test_how_a_game_is_shown_or_computed_does_not_matter(tmp_path):
    one = make_run(tmp_path / "one", "atari", seed=0, evaluated=[1.0], env__size=64, env__num=2)
    two = make_run(tmp_path / "two", "atari", seed=1, evaluated=[3.0], env__size=96, env__num=8)
    (cell,) = compare(one, two, "--json").json["tasks"]["atari100k/pong"]["runs"].values()
    assert cell["seeds"] == [0, 1]


def test_other_values_are_another_system(tmp_path):
    runs = [
        make_run(tmp_path / "a", "atari", seed=0, evaluated=[1.0]),
        make_run(tmp_path / "b", "atari", seed=0, evaluated=[2.0], world__z_dim=9),
        make_run(tmp_path / "c", "atari", seed=0, evaluated=[3.0], size="large"),
    ]
    found = compare(*runs, "--json").json["tasks"]["atari100k/pong"]["runs"]
    assert list(found) == ["atari small", "atari small [world.z_dim=9]", "atari large"]


def test_the_same_seed_twice_is_no_interval(tmp_path):
    runs = [make_run(tmp_path / n, "atari", seed=4, evaluated=[1.0]) for n in "ab"]
    assert compare(*runs).is_error("same seed 4", "leave one of them out")
    assert compare(runs[0], runs[0]).is_error("is named twice")


def test_unfinished_runs_are_left_out_and_named(tmp_path):
    done = make_run(tmp_path / "done", "atari", seed=0, trained=[(99_500, 5.0)])
    young = make_run(tmp_path / "young", "atari", seed=1, trained=[(20_000, 9.0)])
    silent = make_run(tmp_path / "silent", "atari", seed=2, trained=[(90_000, 1.0), (100_001, 2.0)])
    found = compare(done, young, silent, "--json").json
    assert found["tasks"]["atari100k/pong"]["runs"]["atari small"]["scores"] == [5.0]
    assert any("young: has seen 80,000 of 400,000 frames (--at 80000" in line for line in found["left_out"])
    assert any("silent: no episode ended in frames 390,000 to 400,000" in line for line in found["left_out"])
    assert compare(young).is_error("no run has a score yet", "80,000 of 400,000")


def test_a_run_without_evaluation_is_left_out_of_evaluations(tmp_path):
    done = make_run(tmp_path / "done", "atari", seed=0, evaluated=[3.0, 4.0])
    other = make_run(tmp_path / "other", "atari", seed=1, trained=[(99_500, 1.0)])
    answer = compare(other, done, "--readout", "evaluation", "--against", "iris", "--json").json
    assert answer["tasks"]["atari100k/pong"]["runs"]["atari small"]["seeds"] == [0]
    assert answer["left_out"] == [f"{other}: was not evaluated (oneiro evaluate --save)"]


def test_a_figure_of_another_budget_is_marked(tmp_path):
    young = make_run(tmp_path / "young", "atari", seed=0, evaluated=[3.0], trained=[(20_000, 9.0)])
    notes = compare(young, "--against", "storm-paper", "--json").json["notes"]
    assert any("young has seen 80,000 frames; published figures are those of 400,000" in n for n in notes)
    assert any("These runs on atari100k: " in n and "sticky 0.0" in n for n in notes)
    assert any("STORM-paper" in n and "sticky 0.25" in n for n in notes)
    at = compare(young, "--against", "iris", "--readout", "training", "--at", "80000", "--json").json
    assert "Read out at 80,000 frames; published are 400,000." in at["notes"]
    done = make_run(tmp_path / "done", "atari", seed=1, evaluated=[3.0], trained=[(110_000, 9.0)])
    assert not any("has seen" in n for n in compare(done, "--against", "iris", "--json").json["notes"])


def test_a_task_without_published_scores(tmp_path):
    runs = [
        make_run(tmp_path / f"toy-{s}", "toy", seed=s, trained=[(990, 4.0 + s)], random=[1.0, 2.0])
        for s in range(2)
    ]
    found = compare(*runs, "--json").json
    assert found["tasks"]["toy dodge"] == {
        "random": 1.5,
        "human": None,
        "runs": {
            "toy tiny": {
                "seeds": [0, 1],
                "scores": [4.0, 5.0],
                "normalised": [],
                "summary": found["tasks"]["toy dodge"]["runs"]["toy tiny"]["summary"],
            }
        },
        "published": {},
    }
    assert found["aggregates"] == {}
    assert "last 2.5 % of 1,000 frames" in found["readout"]
    assert compare(*runs, "--against", "iris").is_error("no published scores on these tasks")


def test_the_page_shows_curves_intervals_and_distributions(three_seeds, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    answer = compare(*three_seeds, "--against", "iris", "bbf", "--report", page)
    assert f"report: {page}" in answer.out.replace("\n", "")
    text = page.read_text()
    assert text.count("<svg") == 3
    assert "atari small, 3 runs" in text  # the legend of the curves, as text
    for words in ("IRIS, published", "optimality gap", "over 2 of 26 tasks", "share of runs above it"):
        assert words in text, words
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    assert compare(*three_seeds, "--report", tmp_path / "page.pdf").is_error("ends in .html")


def test_without_matplotlib_the_extra_is_named(three_seeds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert compare(*three_seeds, "--report", tmp_path / "page.html").is_error("pip install", "oneiro[plots]")


def test_bad_input(tmp_path, three_seeds):
    assert oneiro("compare").is_error("which runs?")
    assert compare(tmp_path / "nowhere").is_error("is not a run folder")
    assert oneiro("compare", three_seeds[0]).is_error("never runs code", "--recipe")
    assert compare(*three_seeds, "--against", "irys").is_error("Did you mean 'IRIS'")
    assert compare(*three_seeds, "--share", "0").is_error("--share")
    bare = make_run(tmp_path / "bare", "atari", seed=9)
    assert compare(*three_seeds, bare).is_error("no kind of score in common", "bare: no evaluation")
