"""The table of `oneiro evaluate`, where the task has published scores and where it has none."""

import pytest

from oneiro.cli.runs import print_table
from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.published import suites

ATARI = suites()["atari100k"]


def scores(task: str, mean: float) -> dict[str, Scores]:
    facts = {"policy": "real", "env": "x", "task": task}
    played = Scores(score=[mean - 1, mean + 1], length=[9, 9], ids=[0, 1], protocol=facts)
    return {"real": played}


def test_a_known_task_is_normalised_and_has_the_published_means(capsys: pytest.CaptureFixture[str]):
    half = (ATARI.human["pong"] + ATARI.random["pong"]) / 2
    print_table(scores("atari100k/pong", half), "run")
    text = capsys.readouterr().out
    assert "human-norm." in text
    assert "0.500" in text
    name, method = next((k, m) for k, m in ATARI.methods.items() if m.mean("pong") is not None)
    assert f"{name} {method.mean('pong'):,.5g}" in text.split("published on atari100k/pong")[1]


def test_an_unknown_task_has_neither(capsys: pytest.CaptureFixture[str]):
    print_table(scores("CartPole-v1", 20.0), "run")
    text = capsys.readouterr().out
    assert "human-norm." not in text
    assert "published" not in text
