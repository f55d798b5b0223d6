import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stream_rows import episode_of, fill, memo_of, whole

from oneiro.data import stream_folder
from oneiro.data.batches import Stretch, gather
from oneiro.data.replay import Replay
from oneiro.data.replay_episodes import ReplayEpisodes
from oneiro.errors import OneiroError


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(stream_folder, "LARGEST", 32)


def at(*places):
    return np.array(places, np.int64)


@pytest.mark.parametrize("compress", [True, False])
def test_rows_come_back_from_memory_from_disk_and_after_reopening(tmp_path, compress):
    replay = Replay(tmp_path, streams=3, compress=compress)
    fill(replay, 150)
    for opened in (replay, None):
        if opened is None:
            replay.close()
            opened = Replay(tmp_path, mode="r")
        assert opened.spans.tolist() == [[0, 150]] * 3
        for stream in range(3):
            assert whole(opened, stream) == list(range(150))
        rows = opened.read(opened.locate(at((0, 7), (1, 60), (2, 149 - 20)), 20))
        for b, (stream, start) in enumerate([(0, 7), (1, 60), (2, 129)]):
            for t in range(20):
                which, step, length = episode_of(stream, start + t)
                assert rows.is_first[b, t] == (step == 0)
                assert rows.terminated[b, t] == (step == length - 1 and which % 2 == 0)
                assert rows.action[b, t].tolist() == ([stream, start + t] if step else [0, 0])
        memo = opened.memo(opened.locate(at((1, 25), (2, 60)), 10))
        expected = memo_of([(1, 25 + t) for t in range(10)] + [(2, 60 + t) for t in range(10)])
        assert all(torch.equal(memo[k].flatten(0, 1), expected[k]) for k in expected)
        assert memo["deter"].dtype == torch.bfloat16


def test_rows_can_be_read_as_soon_as_they_are_appended(tmp_path):
    replay = Replay(tmp_path, streams=2)
    for rows in range(1, 80):
        fill(replay, 1)
        newest = replay.read(replay.locate(at((0, rows - 1), (1, rows - 1)), 1))
        assert newest.obs["vector"][:, 0, 1].tolist() == [rows - 1] * 2


def test_latents_are_replaced_in_place(tmp_path):
    replay = Replay(tmp_path, streams=2)
    fill(replay, 70)
    places = [(1, 25), (0, 31)]
    pieces = replay.locate(at(*places), 12)
    new = memo_of([(s, r + t) for s, r in places for t in range(12)], offset=5)
    replay.put_memo(pieces, {k: x.reshape(2, 12, -1) for k, x in new.items()})
    replay.close()
    again = Replay(tmp_path, mode="r")
    found = again.memo(again.locate(at((1, 20)), 25))["deter"][0, :, 0]
    assert found.tolist() == [1.0] * 5 + [6.0] * 12 + [1.0] * 8


def test_rows_without_latents_recall_zeros(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 10, memo=False)
    assert replay.memo(replay.locate(at((0, 3)), 2)) == {}
    fill(replay, 10)
    memo = replay.memo(replay.locate(at((0, 8)), 4))["stoch"]
    assert memo[0, :, 0].tolist() == [0, 0, 10, 11]


def test_a_restored_replay_ends_where_the_checkpoint_was(tmp_path):
    replay = Replay(tmp_path, streams=3)
    fill(replay, 75)
    replay.flush()
    state = replay.state()
    fill(replay, 60)  # lost: full segments and growing ones, some of them on the disk
    replay.flush()
    fill(replay, 3)
    again = Replay(tmp_path, streams=3)
    again.restore(state)
    assert again.state() == state
    assert [whole(again, s) for s in range(3)] == [list(range(75))] * 3
    with pytest.raises(ValueError, match="is_first False"):
        again.append(*_row(again, first=False))
    memo = again.memo(again.locate(at((0, 60)), 15))
    assert torch.equal(memo["stoch"][0], memo_of([(0, 60 + t) for t in range(15)])["stoch"])
    fill(again, 60)
    rows = again.read(again.locate(at((0, 70), (1, 70), (2, 70)), 20))
    assert rows.is_first[:, 5].all()
    assert not rows.terminated[:, 4].any()  # cut off, not terminal
    assert [whole(again, s) for s in range(3)] == [list(range(135))] * 3
    assert again.begun == state["begun"] + (again.begun - state["begun"])
    ids = ReplayEpisodes(again).ids
    assert len(set(ids.tolist())) == len(ids)


def test_latents_of_rows_that_were_given_up_are_gone(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 10)
    replay.flush()
    state = replay.state()
    fill(replay, 10)
    again = Replay(tmp_path, streams=1)
    again.restore(state)
    fill(again, 10, memo=False)
    assert again.memo(again.locate(at((0, 8)), 4))["stoch"][0, :, 0].tolist() == [8, 9, 0, 0]


def test_without_a_checkpoint_a_replay_begins_anew(tmp_path):
    replay = Replay(tmp_path, streams=2)
    fill(replay, 50)
    replay.close()
    again = Replay(tmp_path, streams=2)
    again.restore(None)
    assert again.rows == 0
    assert again.begun == 0
    assert not list(tmp_path.rglob("*.rows"))
    fill(again, 5)
    assert whole(again, 1) == list(range(5))


def test_a_torn_newest_segment_is_dropped(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 40)
    replay.flush()
    fill(replay, 10)
    replay.close()
    newest = max(tmp_path.rglob("*.rows"))
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="cut short"):
        again = Replay(tmp_path, streams=1)
    assert whole(again, 0) == list(range(40))  # the file of the flush before is still there
    oldest = min(tmp_path.rglob("*.rows"))
    oldest.write_bytes(oldest.read_bytes()[:-10])
    with pytest.raises(OneiroError, match="older in this stream"):
        Replay(tmp_path, streams=1)


def test_a_damaged_newest_segment_is_refused(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 40)
    replay.close()
    newest = max(tmp_path.rglob("*.rows"))
    data = bytearray(newest.read_bytes())
    data[-3] ^= 255
    newest.write_bytes(data)
    with pytest.raises(OneiroError, match="damaged"):
        Replay(tmp_path, streams=1)


def test_capacity_drops_the_oldest_of_all_streams(tmp_path):
    replay = Replay(tmp_path, streams=3, capacity=600)
    fill(replay, 400)
    assert 600 - 3 * 32 <= replay.rows <= 600
    spans = replay.spans
    assert (spans[:, 1] == 400).all()
    assert np.ptp(spans[:, 0]) <= 32
    for stream in range(3):
        assert whole(replay, stream) == list(range(spans[stream, 0], 400))
    replay.flush()
    replay.flush()
    replay.flush()
    kept = {path.name.partition("-")[0] for path in (tmp_path / "streams" / "0000").glob("*.rows")}
    assert kept == {f"{number:08d}" for number in replay.streams[0].segments}
    again = Replay(tmp_path, streams=3, capacity=600, mode="r")
    assert again.spans.tolist() == spans.tolist()


def test_files_that_a_checkpoint_needs_outlive_one_flush(tmp_path):
    replay = Replay(tmp_path, streams=1, capacity=300)
    fill(replay, 300)
    replay.flush()
    state = replay.state()
    fill(replay, 100)
    replay.flush()
    again = Replay(tmp_path, streams=1, capacity=300)
    again.restore(state)
    assert whole(again, 0) == list(range(300))


def test_streams_can_be_added_but_not_taken_away(tmp_path):
    replay = Replay(tmp_path, streams=2)
    fill(replay, 40)
    replay.close()
    more = Replay(tmp_path, streams=3)
    more.restore(replay.state())
    fill(more, 40)
    assert more.spans.tolist() == [[0, 80], [0, 80], [0, 40]]
    more.close()
    with pytest.raises(OneiroError, match=r"env\.num to 3 or more"):
        Replay(tmp_path, streams=2)
    with pytest.raises(ValueError, match="there are 3"):
        Replay(tmp_path).append(*_row(replay, first=True))


def test_finished_episodes_are_read_like_those_of_a_store(tmp_path):
    replay = Replay(tmp_path, streams=2)
    fill(replay, 100)
    state = replay.state()
    replay.flush()
    view = ReplayEpisodes(replay)
    expected = {}
    for stream in range(2):
        row = 0
        while row + episode_of(stream, row)[2] <= 100:
            expected[stream, row] = episode_of(stream, row)[2]
            row += episode_of(stream, row)[2]
    assert len(view) == len(expected)
    assert sorted(view.ids.tolist()) == view.ids.tolist()
    found = {}
    for episode in view.episodes():
        stream, row = (int(x) for x in episode.obs["vector"][0, :2])
        found[stream, row] = len(episode)
        which = episode_of(stream, row)[0]
        assert episode.obs["vector"][:, 1].tolist() == list(range(row, row + len(episode)))
        assert episode.terminated.tolist() == [False] * (len(episode) - 1) + [which % 2 == 0]
        assert episode.info["truncated"] == (which % 2 == 1)
        episode.check()
    assert found == expected
    first = int(view.ids[0])
    piece = view.read(first, 1, 4, fields=("vector",))
    assert set(piece.obs) == {"vector"}
    batch = gather(view, ("image", "action"), 1, 4, [Stretch(0, 0, first, 0, 4)])
    assert batch.is_first.tolist() == [[True, False, False, False]]
    with pytest.raises(OneiroError, match="no finished episode 99999"):
        view.read(99999)
    with pytest.raises(OneiroError, match="no field 'imag'"):
        view.column("imag")
    replay.restore(state)  # the episodes that were being played are abandoned
    fill(replay, 30)
    infos = [view.info(int(id)) for id in view.ids]
    assert sum("abandoned" in info for info in infos) == 2
    assert all(info["truncated"] for info in infos if "abandoned" in info)


def test_episodes_dropped_in_part_are_not_listed(tmp_path):
    replay = Replay(tmp_path, streams=1, capacity=200)
    fill(replay, 400)
    view = ReplayEpisodes(replay)
    assert view.read(int(view.ids[0])).obs["vector"][0, 3] == 0
    assert view.rows <= replay.rows


def test_a_row_may_be_terminal_while_the_episode_goes_on(tmp_path):
    """A lost life that is learnt as an end."""
    replay = Replay(tmp_path, streams=1)
    for first, terminal, last in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]:
        rows, *_ = _row(replay, first=False)
        replay.append(rows, *(np.array([bool(x)]) for x in (first, terminal, last)))
    rows = replay.read(replay.locate(at((0, 0)), 4))
    assert rows.terminated[0].tolist() == [False, True, False, False]
    assert rows.is_first[0].tolist() == [True, False, False, True]
    episode = ReplayEpisodes(replay).read(0)
    assert episode.terminated.tolist() == [False, True, False]
    assert episode.info["truncated"]


def test_a_row_that_was_lost_begins_an_episode_next(tmp_path):
    replay = Replay(tmp_path, streams=2)
    fill(replay, 3)
    rows, *flags = _row(replay, first=False)
    replay.append(rows, *flags, where=np.array([True, False]))
    assert replay.spans[:, 1].tolist() == [4, 3]
    rows, first, *ends = _row(replay, first=False)
    with pytest.raises(ValueError, match="stream 1 has is_first False"):
        replay.append(rows, first, *ends)
    replay.append(rows, np.array([False, True]), *ends)
    assert replay.begun == 3


def test_rows_of_another_environment_are_refused(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 3)
    rows, *flags = _row(replay, first=False)
    with pytest.raises(OneiroError, match=r"obs/image \|u1\[3, 4, 4\].*another folder"):
        replay.append({k: v for k, v in rows.items() if k != "obs/image"}, *flags)
    with pytest.raises(OneiroError, match=r"deter bfloat16\[4\].*deter bfloat16\[3\]"):
        replay.append(rows, *flags, memo={"deter": torch.zeros(1, 4).bfloat16()})


def test_a_folder_of_another_environment_is_refused(tmp_path):
    replay = Replay(tmp_path, streams=1, env={"environment": "A", "level": 1})
    fill(replay, 3)
    replay.close()
    for mode in ("a", "r"):
        with pytest.raises(OneiroError, match=r"level: 1 there, 2 now.*another run folder"):
            Replay(tmp_path, streams=1, env={"environment": "A", "level": 2}, mode=mode)
    with pytest.raises(OneiroError, match="environment: 'A' there, 'B' now"):
        Replay(tmp_path, streams=1, env={"environment": "B"})
    added = Replay(tmp_path, streams=1, env={"environment": "A", "level": 1, "new": 0})
    assert whole(added, 0) == list(range(3))


def test_a_folder_of_before_does_not_say_its_environment(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 3)
    replay.close()
    note = json.loads((tmp_path / "replay.json").read_text())
    del note["env"]
    (tmp_path / "replay.json").write_text(json.dumps(note))
    assert whole(Replay(tmp_path, streams=1, env={"environment": "A"}), 0) == list(range(3))


def test_too_little_ram_or_capacity_is_refused(tmp_path):
    with pytest.raises(OneiroError, match="4 segments of 16 rows"):
        fill(Replay(tmp_path / "a", streams=4, capacity=100), 1)
    with pytest.raises(OneiroError, match=r"data.ram is .* need at least"):
        fill(Replay(tmp_path / "b", streams=64, ram=1 << 22), 1, image=128)
    with pytest.raises(OneiroError, match="at least"):
        Replay(tmp_path / "c", ram=1000)
    with pytest.raises(OneiroError, match="no replay"):
        Replay(tmp_path / "d", mode="r")


def test_a_full_disk_is_reported_and_nothing_is_lost(tmp_path, monkeypatch):
    import errno
    import os

    replay = Replay(tmp_path, streams=1)
    fill(replay, 40)
    replay.flush()
    state = replay.state()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OneiroError, match="disk is full"):
            fill(replay, 30)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OneiroError, match="disk is full"):
            replay.put_memo(
                replay.locate(at((0, 3)), 2), {k: x[None] for k, x in memo_of([(0, 3), (0, 4)]).items()}
            )
    again = Replay(tmp_path, streams=1)
    again.restore(state)
    assert whole(again, 0) == list(range(40))


def test_memory_stays_bounded(tmp_path):
    """32,000 rows of 3 kB and 64 bytes of latents (100 MB) with 32 MiB for the replay."""
    program = Path(__file__).with_name("fill_replay.py")
    out = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], capture_output=True, text=True, check=True
    )
    first, last = map(float, out.stdout.split())
    assert last - first < 40


def _row(replay, first):
    count = len(replay.streams)
    rows = {
        "obs/vector": np.zeros((count, 4), np.float32),
        "obs/image": np.zeros((count, 3, 4, 4), np.uint8),
        "action": np.zeros((count, 2), np.float32),
        "reward": np.zeros(count, np.float32),
    }
    none = np.zeros(count, np.bool_)
    return rows, np.full(count, first), none, none


def some(replay, slots, ids, first, last):
    """A row for each of `slots`."""
    rows = {"action": np.array(slots, np.float32)[:, None], "reward": np.zeros(len(slots), np.float32)}
    flags = [np.array(x) for x in (first, [False] * len(slots), last)]
    replay.append(rows, *flags, slots=np.array(slots), ids=np.array(ids))


def test_rows_of_some_streams_leave_the_others_as_they_are(tmp_path):
    replay = Replay(tmp_path, streams=4)
    some(replay, [0, 2], [4, 6], [True, True], [False, True])
    some(replay, [1, 3], [5, 7], [True, True], [False, False])
    some(replay, [0, 2], [4, 8], [False, True], [False, False])
    assert replay.spans[:, 1].tolist() == [2, 1, 2, 1]
    assert replay.begun == 9
    assert [s.segments[s.number(0)].firsts for s in replay.streams] == [
        [(0, 4)],
        [(0, 5)],
        [(0, 6), (1, 8)],
        [(0, 7)],
    ]
    replay.cut_off([3])
    with pytest.raises(
        ValueError, match=r"row 1 of stream 3 has is_first False, but the episode before it has ended"
    ):
        some(replay, [3], [7], [False], [False])
    some(replay, [3], [11], [True], [False])
    episodes = ReplayEpisodes(replay)
    assert {id: "abandoned" in episodes.info(id) for id in episodes.ids.tolist()} == {6: False, 7: True}
    assert replay.read(replay.locate(at((2, 0)), 2)).action[0, :, 0].tolist() == [2, 2]
    replay.close()
    assert Replay(tmp_path, streams=4).begun == 12


def test_a_stream_that_stands_still_does_not_keep_the_others_from_being_dropped(tmp_path):
    replay = Replay(tmp_path, streams=2, capacity=300)
    for row in range(3):
        some(replay, [0, 1], [0, 1], [row == 0] * 2, [False] * 2)
    for _ in range(497):
        some(replay, [1], [1], [False], [False])
    assert replay.rows <= 300 + 32
    assert replay.spans[0].tolist() == [0, 3]
    assert replay.spans[1, 1] == 500
