import numpy as np
import pytest
from counter_episodes import LENGTHS, counter_episode, counter_memo, same

from oneiro.data import columns
from oneiro.data.columns import Column
from oneiro.data.episodes import Episode
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_BYTES", 192 * 8)  # 8 frames of 3 x 8 x 8


def fill(folder, lengths=LENGTHS, flush_every=3, **options):
    store = EpisodeStore(folder, **options)
    for id, rows in enumerate(lengths):
        store.add(counter_episode(id, rows))
        if id % flush_every == flush_every - 1:
            store.flush()
    return store


@pytest.mark.parametrize("compress", [True, False])
def test_round_trip_before_and_after_reopening(tmp_path, compress):
    store = fill(tmp_path, compress=compress)
    for opened in (store, None):
        if opened is None:
            store.close()
            opened = EpisodeStore(tmp_path, mode="r")
        assert opened.ids.tolist() == list(range(len(LENGTHS)))
        assert opened.lengths.tolist() == list(LENGTHS)
        assert opened.rows == sum(LENGTHS)
        for episode, rows in zip(opened.episodes(), LENGTHS, strict=True):
            assert same(episode, counter_episode(episode.id, rows))
        assert opened.info(3) == counter_episode(3, 1).info


def test_pieces(tmp_path):
    store, whole = fill(tmp_path), counter_episode(5, 64)
    for start, stop in [(0, 64), (0, 1), (63, 64), (7, 9), (8, 16), (5, 50), (10, 10)]:
        piece = store.read(5, start, stop, fields=("image",))
        assert np.array_equal(piece.obs["image"], whole.obs["image"][start:stop])
        assert np.array_equal(piece.reward, whole.reward[start:stop])
        assert np.array_equal(piece.terminated, whole.terminated[start:stop])
        assert np.array_equal(piece.is_first, np.arange(start, stop) == 0)
    assert store.read(5, fields=()).obs == {}
    with pytest.raises(OneiroError, match="rows 0 to 64"):
        store.read(5, 60, 65)
    with pytest.raises(OneiroError, match="no episode 99"):
        store.read(99)


def test_ids_give_the_order_whatever_came_first(tmp_path):
    store = EpisodeStore(tmp_path)
    for id in (3, 0, 2):
        store.add(counter_episode(id, 4))
    store.flush()
    store.add(counter_episode(1, 4))
    assert [e.id for e in store.episodes()] == [0, 1, 2, 3]
    store.close()
    assert EpisodeStore(tmp_path, mode="r").ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("flush_every", [1, 3, 100])
def test_capacity_drops_the_oldest_and_deletes_whole_files(tmp_path, flush_every):
    store = EpisodeStore(tmp_path, capacity=100)
    for id in range(60):
        store.add(counter_episode(id, 30))
        assert store.rows <= 100
        if id % flush_every == 0:
            store.flush()
    store.close()
    assert store.ids.tolist() == [57, 58, 59]
    again = EpisodeStore(tmp_path, capacity=100)
    assert again.ids.tolist() == [57, 58, 59]
    assert all(same(e, counter_episode(e.id, 30)) for e in again.episodes())
    if flush_every == 1:
        assert len(list((tmp_path / "chunks").iterdir())) == 3
    assert EpisodeStore(tmp_path, capacity=40).ids.tolist() == [59]


def test_what_has_made_room_is_not_missed(tmp_path):
    store = EpisodeStore(tmp_path, capacity=100)
    for id in (1, 2):
        store.add(counter_episode(id, 10))
    assert store.missing(range(4)) == [0, 3]  # episode 0 is still under way
    store.flush()
    assert EpisodeStore(tmp_path, capacity=100).missing(range(4)) == [0, 3]
    for id in range(3, 40):
        store.add(counter_episode(id, 10))
        store.flush()
        assert store.missing(range(45)) == list(range(id + 1, 45)) if id > 10 else 0 in store.missing([0])
    for capacity in (100, 1000):
        assert EpisodeStore(tmp_path, capacity=capacity).missing(range(45)) == list(range(40, 45))


def test_capacity_smaller_than_an_episode(tmp_path):
    store = fill(tmp_path, (5, 30))
    with pytest.raises(OneiroError, match=r"data\.capacity to at least 200"):
        EpisodeStore(tmp_path / "b", capacity=100).add(counter_episode(0, 200))
    store.close()
    with pytest.raises(OneiroError, match=r"data\.capacity to at least 30"):
        EpisodeStore(tmp_path, capacity=10)
    assert len(EpisodeStore(tmp_path)) == 2


def test_refused_episodes_leave_the_store_as_it_was(tmp_path):
    store = fill(tmp_path, (5, 5))
    nan = counter_episode(2, 5)
    nan.reward = np.array([0, 1, np.nan, 1, 1], np.float32)
    short = counter_episode(2, 5)
    short.action = short.action[:4]
    double = counter_episode(2, 5)
    double.reward = double.reward.astype(np.float64)
    piece = store.read(1, 2, 4)
    piece.id = 2
    empty = counter_episode(2, 1)
    empty = Episode(
        id=2, obs={}, action=empty.action[:0], reward=empty.reward[:0], terminated=empty.terminated[:0]
    )
    for episode, words in [
        (nan, "not finite at row 2"),
        (short, "'action' has 4 rows"),
        (double, "convert it to float32"),
        (piece, "is a piece from row 2"),
        (empty, "no rows"),
        (counter_episode(1, 5), "stored already"),
        (counter_episode(2, 5, size=16), "one store is for one environment"),
    ]:
        with pytest.raises(OneiroError, match=words):
            store.add(episode)
    assert store.rows == 10
    assert len(store) == 2


def test_reading_mode_writes_nothing(tmp_path):
    with pytest.raises(OneiroError, match="holds no episodes"):
        EpisodeStore(tmp_path / "nothing", mode="r")
    assert not (tmp_path / "nothing").exists()
    fill(tmp_path).close()
    store = EpisodeStore(tmp_path, mode="r")
    for write in (lambda: store.add(counter_episode(90, 3)), store.flush):
        with pytest.raises(OneiroError, match="opened for reading"):
            write()


def test_cache_stays_within_its_limit(tmp_path):
    store = EpisodeStore(tmp_path, ram=4 << 20)
    for id in range(20):
        store.add(counter_episode(id, 2000))
    store.flush()
    for _ in store.episodes():
        assert store._cache.nbytes <= store._cache.limit < 4 << 20
    assert store._cache.nbytes == sum(block.nbytes for block in store._cache._blocks.values())
    assert store.rows * 192 > 1.5 * store._cache.limit


@pytest.mark.parametrize("shape", [(), (5,), (3, 7, 9), (1, 4, 4), (4, 64, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16, np.int64])
@pytest.mark.parametrize("compress", [True, False])
def test_columns_pack_without_loss(shape, dtype, compress):
    array = np.random.default_rng(0).integers(0, 256, (21, *shape)).astype(dtype)
    column = Column.of(array, compress)
    assert Column.from_json(column.to_json()) == column
    packed = column.pack(array)
    assert len(packed) == column.blocks(21)
    rows = [min(column.block, 21 - i * column.block) for i in range(len(packed))]
    unpacked = [column.unpack(data, n) for data, n in zip(packed, rows, strict=True)]
    assert np.array_equal(np.concatenate(unpacked), array)


def test_memo_is_beside_its_rows_and_is_replaced_as_a_whole(tmp_path):
    store = fill(tmp_path)
    assert not store.has_memo("mu")
    for offset in (0.0, 100.0):
        store.attach((e.id, counter_memo(e.id, len(e), offset)) for e in store.episodes(("image",)))
        for opened in (store, EpisodeStore(tmp_path, mode="r")):
            assert opened.memos == ("mu", "logvar")
            for episode in opened.episodes():
                for name, column in counter_memo(episode.id, len(episode), offset).items():
                    assert np.array_equal(episode.memo[name], column)
            assert opened.read(5, 10, 13, fields=("mu",)).memo["mu"][:, 1].tolist() == [
                10 + offset,
                11 + offset,
                12 + offset,
            ]
        assert len(list((tmp_path / "memo").iterdir())) == 1
    store.add(counter_episode(50, 4))
    assert not store.has_memo("mu")
    assert store.without_memo("mu") == [50]
    with pytest.raises(OneiroError, match="missing for 1 of 9 episodes"):
        store.column("mu")
    store.attach([(50, counter_memo(50, 4))])
    assert store.has_memo("mu")


def test_interrupted_memo_leaves_the_old_one(tmp_path):
    store = fill(tmp_path)
    store.attach((e.id, counter_memo(e.id, len(e))) for e in store.episodes())

    def interrupted():
        for id in store.ids[:4].tolist():
            yield id, counter_memo(id, LENGTHS[id], 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.attach(interrupted())
    with pytest.raises(OneiroError, match="has 3 rows, the episode has 5"):
        store.attach([(0, counter_memo(0, 3))])
    with pytest.raises(OneiroError, match="field of that name"):
        store.attach([(0, {"image": np.zeros(5)})])
    with pytest.raises(OneiroError, match="same columns"):
        store.attach([(0, counter_memo(0, 5)), (1, {"mu": counter_memo(1, 40)["mu"]})])
    for opened in (store, EpisodeStore(tmp_path)):
        assert np.array_equal(opened.read(2).memo["mu"], counter_memo(2, LENGTHS[2])["mu"])
    assert len(list((tmp_path / "memo").iterdir())) == 1


def test_memo_of_lost_episodes_is_forgotten(tmp_path):
    store = EpisodeStore(tmp_path, capacity=100)
    for id in range(3):
        store.add(counter_episode(id, 30))
    store.attach((e.id, counter_memo(e.id, 30)) for e in store.episodes())
    for id in range(3, 6):
        store.add(counter_episode(id, 30))
    assert store.without_memo("mu") == [3, 4, 5]
    store.close()
    assert EpisodeStore(tmp_path, capacity=100).memos == ()
    assert list((tmp_path / "memo").iterdir()) == []
