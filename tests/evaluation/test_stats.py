import json
import math

import numpy as np
import pytest

from oneiro.evaluation.stats import Summary, iqm, median, summarize, t_quantile


@pytest.mark.parametrize(
    ("dof", "p", "value"),
    [
        (1, 0.975, 12.7062),
        (2, 0.975, 4.30265),
        (3, 0.975, 3.18245),
        (4, 0.95, 2.13185),
        (9, 0.975, 2.26216),
        (99, 0.975, 1.98422),
        (1000, 0.975, 1.96234),
        (9, 0.025, -2.26216),
    ],
)
def test_quantiles_of_t_are_those_of_the_tables(dof, p, value):
    assert t_quantile(p, dof) == pytest.approx(value, abs=2e-5)


def test_summary_of_known_scores():
    s = summarize([700, 800, 900])
    half = 4.302653 * 100 / math.sqrt(3)
    assert (s.mean, s.std, s.n) == (800, 100, 3)
    assert (s.low, s.high) == (pytest.approx(800 - half, abs=1e-3), pytest.approx(800 + half, abs=1e-3))
    assert str(s) == "800 ± 100 (95 % 552 to 1,048, n 3)"


def test_the_interval_contains_the_mean_in_95_of_100_experiments():
    rng = np.random.default_rng(0)
    found = [summarize(rng.normal(5, 2, 8)) for _ in range(2000)]
    assert np.mean([s.low <= 5 <= s.high for s in found]) == pytest.approx(0.95, abs=0.012)


def test_one_score_has_no_interval_and_survives_json():
    s = summarize([813.0])
    assert str(s) == "813 (n 1)"
    record = json.loads(json.dumps(s.to_json(), allow_nan=False))
    assert record == {"mean": 813.0, "std": None, "low": None, "high": None, "n": 1}
    assert math.isnan(Summary.from_json(record).low)


def test_small_numbers_keep_their_digits():
    assert str(summarize([0.1, 0.3])).startswith("0.200 ± 0.141")


def test_median_and_interquartile_mean():
    assert median([1, 9, 2]) == 2
    assert iqm([0, 1, 2, 3, 4, 5, 6, 1000]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm([1, 2, 30]) == 11  # a quarter of three is less than one
    assert iqm([9, 1, 2, 3, 1000]) == pytest.approx((2 + 3 + 9) / 3)
    assert iqm([7]) == 7


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [[1.0]]])
def test_what_is_not_a_list_of_numbers_is_refused(scores):
    with pytest.raises(ValueError, match="score"):
        summarize(scores)
