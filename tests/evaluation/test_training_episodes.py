import json

import numpy as np
import pytest

from oneiro.evaluation.training_episodes import read_training_episodes


def log(path, rows):
    """(step, score) of ended episodes, with other lines between."""
    lines = [{"step": 1, "time": 0.0, "stage": "online", "world/kl": 1.0}]
    for step, score in rows:
        event = {"step": step, "time": 1.0, "stage": "online", "episode/score": score, "episode/length": 7}
        lines += [event, {"step": step, "time": 1.0, "stage": "online", "world/kl": 0.5}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_last_bin_is_open_below_and_closed_above(tmp_path):
    path = log(tmp_path / "metrics.jsonl", [(97_500, 1.0), (97_501, 10.0), (100_000, 20.0), (100_001, 99.0)])
    episodes = read_training_episodes(path, frames_per_step=4)
    assert episodes.frame.tolist() == [390_000, 390_004, 400_000, 400_004]
    assert episodes.final(400_000) == 15.0
    assert episodes.final(300_000) is None
    assert episodes.final(390_000) == 1.0
    assert episodes.length.tolist() == [7] * 4


def test_frames_that_were_logged_go_before_the_product():
    events = [{"step": 10, "episode/score": 1.0, "episode/frames": 33}]
    assert read_training_episodes(events, frames_per_step=4).frame.tolist() == [33]


def test_bins_and_filling():
    rows = [(15, 2.0), (19, 4.0), (40, 8.0), (41, 16.0)]
    episodes = read_training_episodes([{"step": s, "episode/score": x} for s, x in rows])
    assert np.array_equal(episodes.bins(60, width=10), [np.nan, 3, np.nan, 8, 16, np.nan], equal_nan=True)
    assert np.array_equal(episodes.bins(60, width=10, fill=True), [np.nan, 3, 3, 8, 16, 16], equal_nan=True)


def test_the_readout_of_2023_fills_and_leaves_the_last_bin_out():
    rows = [(350_000, 5.0), (375_000, 7.0), (399_000, 100.0)]
    episodes = read_training_episodes([{"step": s, "episode/score": x} for s, x in rows])
    assert episodes.final_2023(400_000) == 7.0  # (7 + 7 filled) / 2
    assert episodes.final(400_000) == 100.0
    assert read_training_episodes(
        [{"step": 360_001, "episode/score": 5.0}, {"step": 381_000, "episode/score": 9.0}]
    ).final_2023(400_000) == pytest.approx((5 + 9) / 2)


def test_a_run_without_training_episodes_is_empty(tmp_path):
    assert len(read_training_episodes(tmp_path / "metrics.jsonl")) == 0
    empty = read_training_episodes(log(tmp_path / "metrics.jsonl", []))
    assert (len(empty), empty.final(100), empty.final_2023(100)) == (0, None, None)
