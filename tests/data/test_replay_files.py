"""Which files of a replay stay and which are deleted."""

import pytest
from stream_rows import fill, whole

from oneiro.data import stream_folder
from oneiro.data.replay import Replay


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(stream_folder, "LARGEST", 32)


def test_a_file_that_is_written_again_after_it_was_superseded_is_kept(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 10)
    replay.flush()
    state = replay.state()
    fill(replay, 40)  # the segment is full: its file of 10 rows is superseded, but still there
    again = Replay(tmp_path, streams=1)
    again.restore(state)
    for _ in range(3):
        again.flush()
    last = Replay(tmp_path, streams=1)
    last.restore(state)
    assert whole(last, 0) == list(range(10))


def test_a_file_that_is_written_again_after_it_was_torn_is_kept(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 10)
    replay.flush()
    fill(replay, 5)
    replay.flush()
    newest = max(tmp_path.rglob("*.rows"))
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="cut short"):
        again = Replay(tmp_path, streams=1)
    again.flush()
    fill(again, 5)
    again.flush()  # writes the name that this flush would delete
    assert newest.exists()
    assert whole(Replay(tmp_path, mode="r"), 0) == list(range(15))


def test_what_is_of_no_use_any_more_is_deleted(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 100)
    replay.close()
    files = sorted(tmp_path.rglob("*.rows"))
    files[1].unlink()  # as the message about a damaged file says
    files[2].with_name(f"{files[2].name}.tmp").write_bytes(b"a kill while it was written")
    again = Replay(tmp_path, streams=1)
    start = int(again.spans[0, 0])
    assert start > 0
    for _ in range(2):
        again.flush()
    kept = {path.name.partition("-")[0].partition(".")[0] for path in (tmp_path / "streams").rglob("*.*")}
    assert kept == {file.name.partition("-")[0] for file in files[2:]}
    assert not list(tmp_path.rglob("*.tmp"))
    assert whole(again, 0) == list(range(start, 100))


def test_reading_deletes_nothing(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 100)
    replay.close()
    extra = min(tmp_path.rglob("*.rows")).with_suffix(".tmp")
    extra.write_bytes(b"it is being written")
    Replay(tmp_path, mode="r")
    assert extra.exists()


def test_a_stream_that_ends_before_its_checkpoint_is_reported(tmp_path):
    replay = Replay(tmp_path, streams=1)
    fill(replay, 10)
    replay.flush()
    state = replay.state()
    for file in tmp_path.rglob("*.rows"):
        file.unlink()
    again = Replay(tmp_path, streams=1)
    with pytest.warns(UserWarning, match="ends at row 0, but the checkpoint was saved at row 10"):
        again.restore(state)
    assert again.spans.tolist() == [[0, 0]]
