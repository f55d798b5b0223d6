import sys
import threading
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from counter_episodes import LENGTHS, counter_episode, counter_memo, decode

from oneiro import tree
from oneiro.data import columns
from oneiro.data.samplers import Frames, Streams, Windows, prefetch
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError

TOTAL = sum(LENGTHS)
CONFIGS = [
    Frames(size=7, pool=32),
    Windows(size=5, length=12),
    Windows(size=5, length=12, at="start", pad="left"),
    Streams(size=3, length=10, overlap=1),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_BYTES", 192 * 8)


@pytest.fixture
def store(tmp_path):
    store = EpisodeStore(tmp_path / "store")
    for id, rows in enumerate(LENGTHS):
        store.add(counter_episode(id, rows))
    store.attach((e.id, counter_memo(e.id, len(e))) for e in store.episodes())
    return store


def places(batch):
    """(id [B T], t [B T]) from the frames, after checking that every other field tells the same."""
    id, t = decode(batch.obs["image"].numpy())
    mask = batch.mask.numpy()
    rows = np.array(LENGTHS)[id]
    assert (t < rows)[mask].all()
    assert np.array_equal(batch.is_first.numpy(), (t == 0) & mask)
    assert np.array_equal(batch.terminated.numpy(), (t == rows - 1) & (id % 2 == 0) & mask)
    if batch.reward is not None:
        moved = mask & (t > 0)
        assert np.array_equal(batch.reward.numpy(), (id * 1000 + t) * moved)
        assert np.array_equal(batch.action.numpy(), np.stack([id, t], -1) * moved[..., None])
    if batch.memo:
        assert np.array_equal(batch.memo["mu"].numpy(), np.stack([id, t], -1) * mask[..., None])
        assert np.array_equal(batch.memo["logvar"].numpy(), -batch.memo["mu"].numpy())
    return id, t, mask


EVERYTHING = ("image", "action", "reward", "mu", "logvar")


@pytest.mark.parametrize("config", CONFIGS)
def test_batches_depend_on_seed_k_and_content_only(store, config):
    one, two, other = config.build(store, 3), config.build(store, 3), config.build(store, 4)
    order = [9, 0, 5, 5, 1]
    first = [one.batch(k) for k in order]
    for k, batch in reversed(list(zip(order, first, strict=True))):
        assert all(
            torch.equal(a, b) for a, b in zip(tree.leaves(batch), tree.leaves(two.batch(k)), strict=True)
        )
    again = config.build(EpisodeStore(store.folder, mode="r", ram=5 << 20), 3)
    assert torch.equal(again.batch(9).obs["image"], first[0].obs["image"])
    assert not torch.equal(other.batch(9).obs["image"], first[0].obs["image"])


@pytest.mark.parametrize("config", CONFIGS)
def test_types_and_shapes(store, config):
    batch = type(config)(**(vars(config) | {"fields": EVERYTHING})).build(store, 0).batch(0)
    lead = (config.size, getattr(config, "length", 1))
    expected = {
        "image": (batch.obs["image"], (3, 8, 8), torch.uint8),
        "action": (batch.action, (2,), torch.float32),
        "reward": (batch.reward, (), torch.float32),
        "mu": (batch.memo["mu"], (2,), torch.float32),
        "mask": (batch.mask, (), torch.bool),
        "first": (batch.is_first, (), torch.bool),
        "terminated": (batch.terminated, (), torch.bool),
    }
    for tensor, shape, dtype in expected.values():
        assert tensor.shape == (*lead, *shape)
        assert tensor.dtype == dtype


def test_fields(store):
    batch = Frames(size=4).build(store, 0).batch(0)
    assert (batch.action, batch.reward, batch.memo, list(batch.obs)) == (None, None, {}, ["image"])
    batch = Windows(size=4, length=3).build(store, 0).batch(0)
    assert batch.action is not None
    assert (batch.memo, list(batch.obs)) == ({}, ["image"])
    batch = Windows(size=4, length=3, fields=("mu", "terminated")).build(store, 0).batch(0)
    assert (batch.action, batch.obs, list(batch.memo)) == (None, {}, ["mu"])


@pytest.mark.parametrize("pool", [8, 32, 8192])
def test_frames_give_every_row_once_per_epoch(store, pool):
    sampler = Frames(size=10, pool=pool, fields=EVERYTHING).build(store, 0)
    assert sampler.batches_per_epoch == TOTAL // 10
    found = []
    for k in range(TOTAL):  # ten epochs exactly: batches straddle them
        id, t, mask = places(sampler.batch(k))
        assert mask.all()
        found += list(zip(id[:, 0].tolist(), t[:, 0].tolist(), strict=True))
    epochs = [found[start : start + TOTAL] for start in range(0, len(found), TOTAL)]
    everything = {(id, t) for id, rows in enumerate(LENGTHS) for t in range(rows)}
    assert all(set(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10


def test_frames_are_well_mixed(tmp_path):
    store = EpisodeStore(tmp_path)
    for id in range(40):
        store.add(counter_episode(id, 100))
    sampler = Frames(size=20, pool=1024).build(store, 0)
    distinct = []
    for k in range(200):
        id, _ = decode(sampler.batch(k).obs["image"].numpy())
        distinct.append(len(set(id[:, 0].tolist())))
    # 20 independent draws from 40 episodes hit 40 (1 - (39/40)^20) = 15.9 of them.
    assert np.mean(distinct) > 15.2


def test_windows_anywhere_are_uniform_over_positions(store):
    sampler = Windows(size=50, length=12, fields=EVERYTHING).build(store, 0)
    seen = Counter()
    for k in range(80):
        id, t, mask = places(sampler.batch(k))
        rows = np.minimum(np.array(LENGTHS)[id[:, 0]], 12)
        assert np.array_equal(mask.sum(1), rows)
        assert np.array_equal(mask, np.arange(12) < rows[:, None])
        assert (id == id[:, :1])[mask].all()
        assert (np.diff(t, axis=1) == 1)[mask[:, 1:]].all()
        seen.update(zip(id[:, 0].tolist(), t[:, 0].tolist(), strict=True))
    possible = [(id, start) for id, rows in enumerate(LENGTHS) for start in range(max(rows - 12, 0) + 1)]
    assert set(seen) == set(possible)
    mean = 80 * 50 / len(possible)
    assert all(0.4 * mean < seen[place] < 1.8 * mean for place in possible)


@pytest.mark.parametrize("pad", ["right", "left"])
def test_windows_from_the_start(store, pad):
    sampler = Windows(size=4, length=12, at="start", pad=pad, fields=EVERYTHING).build(store, 0)
    assert sampler.batches_per_epoch == 2
    for epoch in range(3):
        seen = []
        for k in (2 * epoch, 2 * epoch + 1):
            id, t, mask = places(sampler.batch(k))
            for b in range(4):
                inside = np.flatnonzero(mask[b])
                assert t[b, inside].tolist() == list(range(len(inside)))
                assert len(inside) == min(LENGTHS[id[b, inside[0]]], 12)
                assert inside[0] == (12 - len(inside) if pad == "left" else 0)
                seen.append(int(id[b, inside[0]]))
        assert sorted(seen) == list(range(len(LENGTHS)))


def test_padding_is_zero(store):
    batch = Windows(size=20, length=60, fields=EVERYTHING).build(store, 0).batch(0)
    outside = ~batch.mask
    assert outside.any()
    for tensor in (batch.obs["image"], batch.action, batch.reward, batch.memo["mu"], batch.memo["logvar"]):
        assert not tensor[outside].any()
    assert not batch.is_first[outside].any()


def test_min_length_leaves_short_episodes_out(store):
    sampler = Windows(size=40, length=12, min_length=20, fields=EVERYTHING).build(store, 0)
    id, _, mask = places(sampler.batch(0))
    assert mask.all()
    assert set(id[:, 0].tolist()) <= {1, 4, 5, 7}
    with pytest.raises(OneiroError, match="longest has 64"):
        Windows(min_length=65).build(store, 0)


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_streams_are_the_episodes_end_to_end(store, overlap):
    config = Streams(size=3, length=10, overlap=overlap, fields=EVERYTHING)
    sampler, stream = config.build(store, 0), TOTAL // 3
    count = sampler.batches_per_epoch
    assert count == 1 + (stream - 10) // (10 - overlap)
    joined = []
    for epoch in range(2):
        pieces = [places(sampler.batch(epoch * count + piece)) for piece in range(count)]
        assert all(mask.all() for _, _, mask in pieces)
        for before, after in pairwise(pieces):
            for x, y in zip(before[:2], after[:2], strict=True):
                assert np.array_equal(x[:, 10 - overlap :], y[:, :overlap])
        id, t = (np.concatenate([pieces[0][i], *(p[i][:, overlap:] for p in pieces[1:])], 1) for i in (0, 1))
        for b in range(3):
            for n in range(1, id.shape[1]):
                begins = t[b, n] == 0
                if begins:
                    assert t[b, n - 1] == LENGTHS[id[b, n - 1]] - 1
                else:
                    assert (id[b, n], t[b, n]) == (id[b, n - 1], t[b, n - 1] + 1)
        rows = list(zip(id.ravel().tolist(), t.ravel().tolist(), strict=True))
        assert len(set(rows)) == len(rows) == 3 * (10 + (count - 1) * (10 - overlap))
        joined.append(rows)
        assert [sampler.starts_epoch(epoch * count + piece) for piece in range(count)] == [True] + [False] * (
            count - 1
        )
    assert joined[0] != joined[1]


@pytest.mark.parametrize("config", CONFIGS)
def test_new_episodes_are_sampled_at_once(store, config):
    sampler = config.build(store, 0)
    sampler.batch(0)
    store.add(counter_episode(100, 2000))
    assert any((decode(sampler.batch(k).obs["image"].numpy())[0] == 100).any() for k in range(20))


def test_refusals(tmp_path, store):
    empty = EpisodeStore(tmp_path / "empty")
    for config in CONFIGS:
        with pytest.raises(OneiroError, match="no episodes in"):
            config.build(empty, 0)
    with pytest.raises(OneiroError, match=r"no field 'imgae'\. Did you mean 'image'"):
        Frames(fields=("imgae",)).build(store, 0)
    with pytest.raises(OneiroError, match="Known: action, image, logvar, mu, reward"):
        Windows(fields=("zzz",)).build(store, 0)
    with pytest.raises(OneiroError, match="do not fill one piece of 100 streams x 500 rows"):
        Streams().build(store, 0)
    small = EpisodeStore(tmp_path / "small", capacity=100)
    small.add(counter_episode(0, 100))
    with pytest.raises(OneiroError, match=r"Windows needs 101 rows but the capacity of the store is 100"):
        Windows(length=101).build(small, 0)
    with pytest.raises(OneiroError, match=r"Streams needs 101 rows but the capacity of the store is 100"):
        Streams(size=1, length=101).build(small, 0)
    store.add(counter_episode(99, 10))
    with pytest.raises(OneiroError, match="'mu' is missing for 1 of 9"):
        Windows(fields=("mu",)).build(store, 0)


def test_configs_refuse_nonsense():
    for wrong, words in [
        (lambda: Frames(size=0), "Frames.size is 0"),
        (lambda: Windows(length=-1), "Windows.length is -1"),
        (lambda: Windows(at="end"), "Windows.at is 'end'"),
        (lambda: Windows(pad="both"), "Windows.pad"),
        (lambda: Streams(length=5, overlap=5), "overlap is 5"),
    ]:
        with pytest.raises(ValueError, match=words):
            wrong()


def test_prefetch_gives_the_same_batches_and_stays_bounded(store):
    sampler = Windows(size=5, length=12).build(store, 0)
    asked = []

    class Watched:
        def batch(self, k):
            asked.append(k)
            return sampler.batch(k)

    batches = prefetch(Watched(), 3, 30)
    for k in range(3, 30):
        assert torch.equal(next(batches).obs["image"], sampler.batch(k).obs["image"])
        assert max(asked) <= k + 2
    with pytest.raises(StopIteration):
        next(batches)
    assert asked == list(range(3, 30))


def test_prefetch_raises_where_the_error_is_and_leaves_no_thread(store):
    class Failing:
        def batch(self, k):
            if k == 2:
                raise OneiroError("broken")
            return k

    batches = prefetch(Failing(), 0, 9)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OneiroError, match="broken"):
        next(batches)
    abandoned = prefetch(Failing(), 3, 1000)
    next(abandoned)
    abandoned.close()
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_reading_from_several_threads(store):
    small = EpisodeStore(store.folder, mode="r", ram=4 << 20)
    sampler = Windows(size=16, length=12, fields=EVERYTHING).build(small, 0)
    expected = [sampler.batch(k).obs["image"] for k in range(30)]
    wrong = []

    def work():
        wrong.extend(k for k in range(30) if not torch.equal(sampler.batch(k).obs["image"], expected[k]))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert wrong == []
