import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ball_world import Ball, Right, episode

from oneiro import tree
from oneiro.agent import Agent
from oneiro.errors import OneiroError
from oneiro.evaluation import film, run_report
from oneiro.evaluation.episodes import Scores
from oneiro.evaluation.learning_section import learning_of
from oneiro.evaluation.open_loop import rows
from oneiro.evaluation.run_report import facts, lines, stage_seconds, write_report_of
from oneiro.evaluation.stage import Evaluate
from oneiro.training.evolve import Evolve


class BallConfig:
    def describe(self):
        return "Ball, a decision every step, score = steps rolled"

    def make(self, num):
        return SimpleNamespace(close=lambda: None)


class Store:
    def __init__(self, length):
        self.episodes = [episode(i, length) for i in range(6)]
        self.ids, self.lengths = np.arange(6), np.full(6, length + 1)

    def __len__(self):
        return len(self.episodes)

    def read(self, id, start, stop, fields):
        assert fields == ["image"]
        return self.episodes[id]


def scores(policy, values, **protocol):
    ids = list(range(len(values)))
    return Scores(score=values, length=[1] * len(values), ids=ids, protocol={"policy": policy, **protocol})


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "CONTEXT", 2)
    monkeypatch.setattr(run_report, "HORIZON", 6)
    store = Store(12)

    def first_rows(store, starts, seed, device):
        if not len(store):
            raise OneiroError("no stored episode, so no dream can begin")
        return tree.stack([rows(e, 0, starts.context) for e in store.episodes])

    def play(env, agent, ids, *, seed, explore, record):
        assert (seed, explore) == (77, False)
        return iter([episode(ids[0])])

    monkeypatch.setattr(run_report, "first_rows", first_rows)
    monkeypatch.setattr(film, "play", play)
    about = BallConfig().describe()
    scores("real", [9.0, 11.0, 10.0], env=about, seed=77).save(tmp_path / "scores" / "real.json")
    scores("random", [3.0, 5.0, 4.0], env=about).save(tmp_path / "scores" / "random.json")
    scores("dream", [8.0, 12.0], temperature=1.15).save(tmp_path / "scores" / "dream.json")
    (tmp_path / "metrics.jsonl").write_text(
        '{"stage": "vision", "step": 1, "time": 5.0, "vision/kl": 2.0}\n'
        '{"stage": "evolve", "step": 1, "time": 9.0, "evolve/best": 2.0, "evolve/mean": 1.0}\n'
    )
    world = Ball()
    launch = {"command": "oneiro train ball", "cpus": 2, "platform": "Linux", "torch": "2.13.0"}
    folder = SimpleNamespace(
        path=tmp_path,
        video=tmp_path / "video",
        metrics=tmp_path / "metrics.jsonl",
        launches=[launch],
        recipe={"recipe": "ball", "size": "demo"},
    )
    return SimpleNamespace(
        folder=folder,
        recipe=SimpleNamespace(env=BallConfig(), seed=3),
        stages=[("vision", None), ("evolve", Evolve(horizon=20)), ("evaluate", Evaluate())],
        spaces=world.spaces,
        agent=Agent(world, Right()),
        store=store,
        device=torch.device("cpu"),
    )


def test_a_run_becomes_a_report_and_its_films(run, caplog):
    with caplog.at_level(logging.WARNING, "oneiro"):
        path = write_report_of(run, Evolve(horizon=20))
    assert caplog.text == ""
    text = path.read_text(encoding="utf-8")
    assert {p.name for p in run.folder.video.iterdir()} == {
        f"{name}.webp" for name in ("real", "dream", "open_loop", "temperature")
    }
    for wanted in (
        "Ball, learned in a dream",
        "watched 6 episodes of Ball",
        "<b>10.0</b>",
        "2.5 times",
        "steps rolled",
        "a decision every step",
        "temperature 1.15",
        "oneiro train ball",
        "How long the dream stays true",
        "One agent, other dreams (it was trained at 1.15)",
        "C learns to act, in the dream",
        "vision <b>5.0 s</b>",
        "&quot;size&quot;: &quot;demo&quot;",
    ):
        assert wanted in text, wanted


def test_without_stored_episodes_the_rest_is_still_written(run, caplog):
    run.store.episodes, run.store.ids, run.store.lengths = [], np.zeros(0, int), np.zeros(0, int)
    (run.folder.video).mkdir()
    (run.folder.video / "dream.webp").write_bytes(b"of an older report")
    with caplog.at_level(logging.WARNING, "oneiro"):
        text = write_report_of(run, Evolve(horizon=20)).read_text(encoding="utf-8")
    assert "no dream can begin" in caplog.text
    assert "Film “In its own dream.” was not made" in text
    assert "No dreams at other temperatures were measured" in text
    assert text.count("data:image/webp") == 2  # the real game and its still


def test_a_controller_trained_in_the_real_environment_is_not_said_to_have_dreamed(run):
    run.stages[1] = ("evolve", Evolve(where="env"))
    text = write_report_of(run, Evolve(where="env", horizon=5)).read_text(encoding="utf-8")
    assert "Ball, seen through a world model" in text
    assert "C learns to act, in the real environment" in text
    assert "it was trained at" not in text


def test_a_run_that_learns_while_it_plays_shows_its_training_episodes(run):
    events = "".join(
        f'{{"stage": "online", "step": {step}, "time": 1.0, "episode/score": {step / 100}}}\n'
        for step in range(50, 1001, 50)
    )
    update = '{"stage": "online", "step": 1000, "time": 2.0, "dream/return": 3.0, "world/kl": 1.0}\n'
    run.folder.metrics.write_text(events + update)
    run.stages = [("online", None), ("evaluate", Evaluate(dream=False))]
    text = write_report_of(run, Evolve()).read_text(encoding="utf-8")
    for wanted in (
        "While it played 20 episodes of Ball",
        "Score as it learned to play",
        "random policy: 4.0",
        "20 training episodes, mean of each 25 frames",
        "Last 2.5% of the frames: 10.0 (n 1)",
        "What it hopes for",
    ):
        assert wanted in text, wanted
    for unwanted in ("V learns to see", "vision/kl", "What temperature does", "controller of", "first time"):
        assert unwanted not in text, unwanted


def test_published_figures_of_the_same_system_are_drawn_beside():
    env = SimpleNamespace(benchmark="atari100k/MsPacman", frames_per_step=4)
    metrics = [{"step": 5, "episode/score": 300.0}]
    found = learning_of("dreamerv3-atari100k", env, metrics, {})
    assert found.episodes.frame.tolist() == [20]
    assert found.marks["random policy, published"] == 307.3
    assert found.marks["DreamerV3-2024, published, 400k frames"] == pytest.approx(1521, abs=1)
    assert not any(name.startswith("IRIS") for name in found.marks)
    assert "frames 390k to 400k" in found.note
    assert learning_of("dreamerv3-atari100k", env, [{"step": 5, "vision/kl": 1.0}], {}) is None


def test_rivals_come_first_and_the_real_score_last():
    found = lines(
        {
            "real": scores("real", [9.0], env="Ball, a decision every 4 tics, score = tics"),
            "dream": scores("dream", [8.0], temperature=0.5),
            "b": scores("random, same hold", [5.0], env="x"),
            "a": scores("random", [4.0], env="x"),
        }
    )
    assert [(line.name, line.tone, line.note) for line in found] == [
        ("Random policy", "chance", ""),
        ("Random policy, same hold", "chance", ""),
        ("In the dream", "dream", "temperature 0.5"),
        ("In the real game", "real", "a decision every 4 tics"),
    ]


def test_stages_without_lines_count_with_the_next():
    metrics = [{"stage": s, "time": t} for s, t in (("collect", 20.0), ("memory", 50.0), ("memory", 80.0))]
    names = ["collect", "encode", "memory", "evaluate"]
    assert stage_seconds(metrics, names) == {"collect": 20.0, "encode + memory": 60.0}


def test_facts_leave_out_what_is_unknown():
    assert facts({}, "Ball", 3, "cpu") == {
        "Seed": "3",
        "Protocol": "Ball",
        "Hardware": "? CPU cores, device cpu, ",
    }
