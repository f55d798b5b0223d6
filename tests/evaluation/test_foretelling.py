import numpy as np
import pytest
import torch
from ball_world import LIFE, Ball, episode

from oneiro.evaluation.foretelling import auc, class_score, foretelling


def test_precision_recall_and_f1_by_hand():
    foretold = np.array([True, True, True, False, False, False])
    true = np.array([True, False, False, True, False, False])
    score = class_score(foretold, true)
    assert (score.found, score.foretold, score.true) == (1, 3, 2)
    assert score.precision == pytest.approx(1 / 3)
    assert score.recall == 0.5
    assert score.f1 == pytest.approx(0.4)
    nothing = class_score(np.zeros(3, bool), np.zeros(3, bool))
    assert nothing.to_json() == {
        "rows": 0, "foretold": 0, "found": 0, "precision": None, "recall": None, "f1": None,
    }  # fmt: skip


def test_an_exact_world_foretells_everything():
    episodes = [episode(0), episode(1, length=5), episode(2)]
    found = foretelling(Ball(), episodes, batch=2)
    assert found.rows == LIFE + 5 + LIFE
    assert found.reward["positive"].f1 == 1
    assert found.reward["positive"].true == found.rows
    assert found.reward["zero"].true == found.reward["negative"].foretold == 0
    assert found.end is not None
    assert (found.end.found, found.end.foretold, found.end.true) == (2, 2, 2)
    assert found.end_auc == 1


def test_area_under_the_curve_by_hand():
    true = np.array([False, True, False, True])
    assert auc(np.array([0.1, 0.2, 0.3, 0.4]), true) == 0.75
    assert auc(np.array([0.1, 0.3, 0.3, 0.4]), true) == 0.875  # a tie counts half
    assert auc(-np.array([0.1, 0.5, 0.2, 0.4]), true) == 0
    assert np.isnan(auc(np.zeros(2), np.zeros(2, bool)))


def test_an_end_that_is_never_likely_may_yet_be_known():
    class Faint(Ball):
        def step(self, state, action, temperature=1.0):
            ahead = super().step(state, action, temperature)
            ahead.cont = 0.99 - 0.1 * (1 - ahead.cont)
            return ahead

    found = foretelling(Faint(), [episode(0), episode(1)])
    assert found.end is not None
    assert found.end.f1 == 0
    assert found.end_auc == 1


class Blind(Ball):
    """Never expects the end, and a reward only at even ages."""

    def step(self, state, action, temperature=1.0):
        ahead = super().step(state, action, temperature)
        ahead.reward = (ahead.state["age"] % 2 == 0).float()
        ahead.cont = torch.ones_like(ahead.cont)
        return ahead


def test_misses_are_counted():
    found = foretelling(Blind(), [episode(0)])
    assert found.reward["positive"].recall == 0.5
    assert found.reward["positive"].precision == 1
    assert found.reward["zero"].foretold == LIFE // 2
    assert found.end is not None
    assert found.end.recall == 0
    assert found.end.f1 == 0
    assert found.end_auc == 0.5


def test_no_episode_is_an_error():
    with pytest.raises(ValueError, match="no episode"):
        foretelling(Ball(), [])
