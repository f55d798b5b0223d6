import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stream_rows import fill, memo_of

from oneiro.data import stream_folder
from oneiro.data.replay import Replay
from oneiro.data.replay_feed import Feed
from oneiro.data.replayed import Replayed
from oneiro.errors import OneiroError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dreamerv3_replay.json").read_text())


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(stream_folder, "LARGEST", 32)


def test_new_items_are_served_once_in_the_official_order(tmp_path):
    """Official replay, one stream of 20 rows, items of 5: 16 starts, three new items from row 1 on."""
    vector = VECTORS["replay_online"]
    replay = Replay(tmp_path, streams=1)
    sampler = Replayed(size=1, length=4).build(replay, seed=0)
    fill(replay, 20)
    assert sampler.items == vector["items"]
    for sample in vector["online_samples"]:
        ((_, row),) = sampler.draw().tolist()
        assert list(range(row, row + 5)) == sample["t"]
    drawn = {tuple(sampler.draw()[0].tolist()) for _ in range(400)}
    assert drawn == {(0, row) for row in range(16)}


def test_new_items_say_where_episodes_begin_and_end(tmp_path):
    """As recorded, but row 0 of an item is context: the code calls it first, whether it is or not."""
    replay = Replay(tmp_path, streams=1)
    sampler = Replayed(size=1, length=4).build(replay, seed=0)
    for t in range(20):
        row = {"obs/vector": np.full((1, 1), t, np.float32), "action": np.zeros((1, 1), np.float32)}
        row["reward"] = np.zeros(1, np.float32)
        first, last = np.array([t in (0, 7)]), np.array([t in (6, 19)])
        replay.append(row, first, np.zeros(1, np.bool_), last)
    for sample in VECTORS["replay_online"]["online_samples"]:
        ((stream, row),) = sampler.draw().tolist()
        rows = replay.read(replay.locate(np.array([[stream, row]]), 6 if row < 15 else 5))
        first = rows.is_first[0].tolist()
        assert rows.obs["vector"][0, :5, 0].tolist() == sample["t"]
        assert first[1:5] == sample["is_first"][1:]
        assert sample["is_first"][0]
        assert first[0] == (sample["t"][0] == 7)
        assert first[1:6] == sample["is_last"][: len(first) - 1]


def test_new_items_of_all_streams_come_first(tmp_path):
    replay = Replay(tmp_path, streams=3)
    sampler = Replayed(size=2, length=9).build(replay, seed=0)
    served = []
    for _ in range(70):
        fill(replay, 1)
        if replay.rows >= 36:
            served += sampler.draw().tolist()
    for stream in range(3):
        assert {row for s, row in served if s == stream} >= {1, 11, 21, 31, 41, 51}
    assert served[:2] == [[0, 1], [1, 1]]


def test_draws_are_uniform_over_the_starts_of_all_streams(tmp_path):
    replay = Replay(tmp_path, streams=2, capacity=300)
    sampler = Replayed(size=50, length=9, online=False).build(replay, seed=3)
    fill(replay, 200)
    first = replay.spans[:, 0]
    assert first.min() > 0
    places = np.concatenate([sampler.draw() for _ in range(400)])
    starts = 200 - first - 9
    for stream in range(2):
        rows = places[places[:, 0] == stream, 1]
        assert rows.min() == first[stream]
        assert rows.max() == 190
        counts = np.bincount(rows - first[stream])
        expected = len(places) / starts.sum()
        assert len(counts) == starts[stream]
        assert abs(counts - expected).max() < 5.5 * expected**0.5
        assert abs(len(rows) / len(places) - starts[stream] / starts.sum()) < 0.02


def test_a_batch_is_the_context_and_the_rows_after_it(tmp_path):
    replay = Replay(tmp_path, streams=2)
    feed = Feed(Replayed(size=4, length=12), replay, seed=0)
    fill(replay, 60)
    for _ in range(20):
        batch = feed.take()
        shown = batch.rows.obs["vector"]
        assert shown.shape == (4, 12, 4)
        for b in range(4):
            stream, row = int(shown[b, 0, 0]), int(shown[b, 0, 1])
            assert shown[b, :, 1].tolist() == list(range(row, row + 12))
            assert batch.rows.is_first[b].tolist() == (shown[b, :, 3] == 0).tolist()
            expected = memo_of([(stream, row - 1)])
            assert all(torch.equal(batch.context[k][b], expected[k][0]) for k in expected)
    feed.close()


def test_items_that_begin_blank_have_no_context(tmp_path):
    """They begin with row 0 too, and their first row counts as the first of an episode."""
    replay = Replay(tmp_path, streams=2)
    feed = Feed(Replayed(size=4, length=12, begin="blank", online=False), replay, seed=0)
    fill(replay, 60)
    assert feed.sampler.items == 2 * 49
    begun = set()
    for _ in range(100):
        batch = feed.take()
        shown = batch.rows.obs["vector"]
        assert batch.context == {}
        for b in range(4):
            stream, row = int(shown[b, 0, 0]), int(shown[b, 0, 1])
            begun.add((stream, row))
            assert shown[b, :, 1].tolist() == list(range(row, row + 12))
            assert batch.rows.is_first[b].tolist() == [t == 0 or shown[b, t, 3] == 0 for t in range(12)]
    assert begun <= {(stream, row) for stream in range(2) for row in range(49)}
    assert {(stream, row) for stream in range(2) for row in (0, 48)} <= begun
    feed.close()


def test_new_items_that_begin_blank_lie_end_to_end(tmp_path):
    replay = Replay(tmp_path, streams=1)
    sampler = Replayed(size=1, length=5, begin="blank").build(replay, seed=0)
    fill(replay, 20)
    assert [sampler.draw().tolist() for _ in range(4)] == [[[0, row]] for row in (0, 5, 10, 15)]


def test_latents_that_were_written_back_are_the_next_context(tmp_path):
    replay = Replay(tmp_path, streams=1)
    feed = Feed(Replayed(size=16, length=8, online=False), replay, seed=0)
    fill(replay, 40)
    newest = {row: row % 200 for row in range(40)}
    for k in range(1, 30):
        batch = feed.take()
        rows = batch.rows.obs["vector"][..., 1].long()
        assert batch.context["stoch"][:, 0].tolist() == [newest[r - 1] for r in rows[:, 0].tolist()]
        mark = 200 + k
        feed.write_back(
            batch,
            {
                "deter": torch.zeros(16, 8, 3).bfloat16(),
                "stoch": torch.full((16, 8, 2), mark, dtype=torch.uint8),
            },
        )
        newest |= dict.fromkeys(rows.flatten().tolist(), mark)
    feed.close()


def test_a_feed_goes_on_from_its_state(tmp_path):
    replay = Replay(tmp_path, streams=2)
    feed = Feed(Replayed(size=3, length=6), replay, seed=5)
    fill(replay, 50)
    for _ in range(3):
        feed.take()
    state = json.loads(json.dumps(feed.state()))
    other = Feed(Replayed(size=3, length=6), replay, seed=5)
    other.load_state(state)
    for _ in range(30):
        a, b = feed.take(), other.take()
        assert torch.equal(a.rows.obs["vector"], b.rows.obs["vector"])
        assert torch.equal(a.context["stoch"], b.context["stoch"])
    feed.close()
    other.close()


def test_a_feed_whose_rows_were_lost_draws_anew(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 20)
    replay.flush()
    before = replay.state()
    feed = Feed(Replayed(size=8, length=6), replay, seed=5)
    fill(replay, 60)
    feed.take()
    state = feed.state()
    feed.close()
    assert max(row for _, row in state["ahead"]) + 7 > 20
    replay.restore(before)  # as after a power cut that took what the checkpoint still counts on
    feed = Feed(Replayed(size=8, length=6), replay, seed=5)
    feed.load_state(state)
    assert int(feed.take().rows.obs["vector"][..., 1].max()) < 20
    feed.close()


def test_what_cannot_work_is_refused(tmp_path):
    replay = Replay(tmp_path, streams=2, capacity=200)
    with pytest.raises(OneiroError, match=r"data\.capacity to at least 260"):
        Replayed(size=1, length=64).build(replay, seed=0)
    sampler = Replayed(size=1, length=4).build(replay, seed=0)
    with pytest.raises(OneiroError, match="no stream"):
        sampler.draw()
    with pytest.raises(ValueError, match=r"Replayed\.length is 0"):
        Replayed(length=0)
    with pytest.raises(ValueError, match=r"Replayed\.begin = 'zero'"):
        Replayed(begin="zero")  # type: ignore[arg-type]
