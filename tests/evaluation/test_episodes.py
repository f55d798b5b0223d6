import numpy as np
import pytest
import torch
from ball_world import LIFE, Ball, Right, begin, episode

from oneiro.agent import Agent
from oneiro.behaviours.explore import HeldRandom
from oneiro.envs.toy import ToyConfig
from oneiro.errors import OneiroError
from oneiro.evaluation import episodes
from oneiro.evaluation.episodes import Scores, dream_scores, evaluate


def played(crashed=()):
    """A stand-in for `play` whose episodes arrive in another order than their ids."""

    def play(env, agent, ids, *, seed, explore, record, on_step):
        assert not agent.training
        for id in reversed(list(ids)):
            one = episode(id, 3 + id)
            one.info["crashed"] = id in crashed
            yield one

    return play


def test_scores_are_in_the_order_of_ids_and_keep_the_protocol(monkeypatch, tmp_path):
    monkeypatch.setattr(episodes, "play", played())
    scores = evaluate(None, Agent(Ball(), Right()), episodes=4, seed=5, about={"env": "ball"})
    assert scores.ids == [0, 1, 2, 3]
    assert scores.score == [3, 4, 5, 6]
    assert scores.length == [3, 4, 5, 6]
    assert scores.protocol == {"kind": "real", "seed": 5, "episodes": 4, "explore": False, "env": "ball"}
    assert scores.typical() in (1, 2)
    scores.save(tmp_path / "deep" / "real.json")
    assert Scores.load(tmp_path / "deep" / "real.json") == scores
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["real.json"]


def test_crashed_episodes_are_counted_not_averaged(monkeypatch):
    monkeypatch.setattr(episodes, "play", played(crashed=(0, 3)))
    scores = evaluate(None, Agent(Ball(), Right()), episodes=4, seed=0)
    assert (scores.ids, scores.score, scores.crashed) == ([1, 2], [4, 5], 2)
    monkeypatch.setattr(episodes, "play", played(crashed=range(4)))
    with pytest.raises(OneiroError, match="none of 4 episodes"):
        evaluate(None, Agent(Ball(), Right()), episodes=4, seed=0)


def test_a_file_that_holds_no_scores_is_refused(tmp_path):
    path = tmp_path / "real.json"
    for text in ("{", "[]", '{"score": [1], "other": 2}'):
        path.write_text(text)
        with pytest.raises(OneiroError, match=r"real\.json holds no scores"):
            Scores.load(path)


def test_dream_scores_of_an_exact_world():
    agent, starts = Agent(Ball(), Right()), begin(3)
    starts.state["age"] += torch.tensor([0, 2, 5])
    scores = dream_scores(agent, starts, 100)
    assert scores.score == [LIFE, LIFE - 2, LIFE - 5]
    assert scores.length == [12, 10, 7]
    assert scores.protocol["temperature"] == 1.0
    assert (starts.state["age"] == torch.tensor([0, 2, 5])).all()  # not consumed
    more = dream_scores(agent, starts, 100, episodes=5)
    assert more.score == [12, 10, 7, 12, 10]
    assert dream_scores(agent, starts, 4).score == [4, 4, 4]


def test_a_dream_ends_with_its_probability_and_the_seed_repeats_it():
    class Risky(Ball):
        def step(self, state, action, temperature=1.0):
            prediction = super().step(state, action, temperature)
            prediction.cont = torch.full_like(prediction.cont, 0.8)
            return prediction

    agent = Agent(Risky(), Right())
    a, b, c = (dream_scores(agent, begin(1), 1000, episodes=2000, seed=s) for s in (0, 0, 1))
    assert np.mean(a.score) == pytest.approx(5, abs=0.4)  # geometric, mean 1 / 0.2
    assert a == b
    assert a.score != c.score


def test_policies_meet_the_same_episodes_whatever_the_number_of_slots():
    def score(num, seed=0):
        config = ToyConfig(id="dodge")
        env = config.make(num)
        try:
            policy = HeldRandom(hold=(3,)).build(config.spaces())
            return evaluate(env, Agent(Ball(), policy), episodes=7, seed=seed, explore=True)
        finally:
            env.close()

    one, three = score(1), score(3)
    assert one == three
    assert len(set(one.score)) > 1
    assert score(3, seed=1).score != one.score
