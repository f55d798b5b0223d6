import numpy as np
import pytest

from oneiro.evaluation.learning_curve import band
from oneiro.evaluation.stats import t_quantile
from oneiro.evaluation.training_episodes import read_training_episodes


def episodes(*pairs):
    return read_training_episodes([{"step": s, "episode/score": x} for s, x in pairs])


def test_the_band_is_mean_and_interval_of_filled_bins():
    found = band(
        [episodes((10, 1.0), (25, 3.0), (40, 5.0)), episodes((8, 3.0), (18, 5.0), (39, 9.0))], 40, bins=4
    )
    assert found.frame == [10, 20, 30, 40]
    assert found.mean == [2.0, 3.0, 4.0, 7.0]  # filled: 1, 1, 3, 5 and 3, 5, 5, 9
    half = t_quantile(0.975, 1) * np.std([5, 9], ddof=1) / np.sqrt(2)
    assert found.high[-1] == pytest.approx(7 + half)
    assert found.low[-1] == pytest.approx(7 - half)


def test_a_band_covers_what_every_run_has_reached():
    found = band([episodes((12, 1.0), (40, 2.0)), episodes((25, 3.0))], 40, bins=4)
    assert found.frame == [30]  # the first has no value before 20, the second none after 30
    assert band([episodes(), episodes((1, 1.0))], 40).frame == []


def test_one_run_has_a_line_and_no_interval():
    found = band([episodes((10, 1.0), (20, 2.0))], 20, bins=2)
    assert found.mean == found.low == found.high == [1.0, 2.0]
    assert found.to_json() == {
        "runs": 1,
        "frame": [10.0, 20.0],
        "mean": [1.0, 2.0],
        "low": [1.0, 2.0],
        "high": [1.0, 2.0],
    }
