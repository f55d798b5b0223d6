"""What the disk and the power supply can do to a store."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from counter_episodes import counter_episode, counter_memo, same

from oneiro.data import chunks
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError

HERE = Path(__file__).parent


def make_store(folder, num_chunks=3, per_chunk=2):
    store = EpisodeStore(folder)
    for id in range(num_chunks * per_chunk):
        store.add(counter_episode(id, 20 + id))
        if id % per_chunk == per_chunk - 1:
            store.flush()
    return store


def read_everything(store):
    return all(same(e, counter_episode(e.id, len(e))) for e in store.episodes())


def test_torn_newest_chunk_is_dropped_wherever_it_was_cut(tmp_path):
    make_store(tmp_path / "whole")
    chunk = sorted((tmp_path / "whole/chunks").iterdir())[-1]
    data = chunk.read_bytes()
    cuts = {0, 1, 7, 8, 31, 32, 33, len(data) - 1} | set(random.Random(0).sample(range(len(data)), 40))
    for mode in ("r", "a"):
        for cut in sorted(cuts):
            shutil.rmtree(tmp_path / "torn", ignore_errors=True)
            shutil.copytree(tmp_path / "whole", tmp_path / "torn")
            torn = tmp_path / "torn/chunks" / chunk.name
            torn.write_bytes(data[:cut])
            with pytest.warns(UserWarning, match="cut short"):
                store = EpisodeStore(tmp_path / "torn", mode=mode)
            assert store.ids.tolist() == [0, 1, 2, 3]
            assert read_everything(store)
            assert torn.exists() == (mode == "r")
    store.add(counter_episode(4, 9))
    store.close()
    assert EpisodeStore(tmp_path / "torn").lengths.tolist() == [20, 21, 22, 23, 9]


def test_torn_older_chunk_is_refused(tmp_path):
    make_store(tmp_path)
    chunk = sorted((tmp_path / "chunks").iterdir())[0]
    chunk.write_bytes(chunk.read_bytes()[:-5])
    with pytest.raises(OneiroError, match=rf"{chunk.name} is cut short"):
        EpisodeStore(tmp_path)
    chunk.unlink()
    assert EpisodeStore(tmp_path).ids.tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_flipped_bits_are_never_read(tmp_path, which):
    make_store(tmp_path)
    chunk = sorted((tmp_path / "chunks").iterdir())[which]
    data = chunk.read_bytes()
    places = [0, 8, 12, 16, 20, 27, 28, 31, 32, len(data) - 1]
    for place in places + random.Random(which).sample(range(len(data)), 40):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        chunk.write_bytes(damaged)
        with pytest.raises(OneiroError, match=rf"{chunk.name}.*checksum.*delete it"):
            read_everything(EpisodeStore(tmp_path, mode="r"))
    chunk.write_bytes(data + b"more")
    with pytest.raises(OneiroError, match=chunk.name):
        EpisodeStore(tmp_path)
    chunk.write_bytes(data)
    assert read_everything(EpisodeStore(tmp_path))


def test_damaged_memo_is_refused(tmp_path):
    store = make_store(tmp_path)
    store.attach((e.id, counter_memo(e.id, len(e))) for e in store.episodes())
    file = next(iter((tmp_path / "memo").glob("*/*.chunk")))
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(OneiroError, match="delete the folder"):
        EpisodeStore(tmp_path)
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 4]))
    with pytest.raises(OneiroError, match=file.name):
        read_everything(EpisodeStore(tmp_path))


def test_pickle_in_disguise_and_newer_format_are_refused(tmp_path, monkeypatch):
    make_store(tmp_path)
    chunk = sorted((tmp_path / "chunks").iterdir())[1]
    data = chunk.read_bytes()
    chunk.write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR." * 10)
    with pytest.raises(OneiroError, match="not a chunk of episodes"):
        EpisodeStore(tmp_path)
    chunk.write_bytes(data)
    monkeypatch.setattr(chunks, "FORMAT", 0)
    with pytest.raises(OneiroError, match="update oneiro"):
        EpisodeStore(tmp_path)


class FullDisk:
    """Stands in for `os.fsync`, or for the `open` of a file that takes some bytes and no more."""

    def __init__(self, room):
        self.room = room

    def fsync(self, handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    def open(self, path, mode):
        file = open(path, mode)  # noqa: SIM115 - handed on
        if "w" in mode:
            room, write = self.room, file.write

            def writelines(parts):
                for part in parts:
                    write(part[:room])
                    if len(part) > room:
                        raise OSError(errno.ENOSPC, "No space left on device")

            return Wrapped(file, writelines)
        return file


class Wrapped:
    def __init__(self, file, writelines):
        self.file, self.writelines = file, writelines

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("where", ["open", "fsync"])
def test_full_disk(tmp_path, monkeypatch, where):
    store = make_store(tmp_path)
    store.add(counter_episode(6, 50))
    with monkeypatch.context() as patch:
        disk = FullDisk(100)
        if where == "open":
            patch.setattr(chunks, "open", disk.open, raising=False)
        else:
            patch.setattr(os, "fsync", disk.fsync)
        with pytest.raises(OneiroError, match=r"disk is full.*data\.capacity"):
            store.flush()
        with pytest.raises(OneiroError, match="disk is full"):
            store.attach((e.id, counter_memo(e.id, len(e))) for e in store.episodes())
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(list(tmp_path.rglob("*.chunk"))) == 3
    assert read_everything(store)
    assert len(store) == 7
    store.flush()  # space was made
    assert EpisodeStore(tmp_path, mode="r").ids.tolist() == list(range(7))


WRITER = """
import sys
sys.path.insert(0, {here!r})
from counter_episodes import counter_episode, counter_memo
from oneiro.data.store import EpisodeStore
store = EpisodeStore({folder!r})
first = int(store.ids[-1]) + 1 if len(store) else 0
print("ready", flush=True)
for id in range(first, first + 100000):
    store.add(counter_episode(id, 5 + id % 40))
    if id % 3 == 2:
        store.flush()
        print(id, flush=True)
    if id % 20 == 19:
        store.attach((e.id, counter_memo(e.id, len(e), id)) for e in store.episodes(("image",)))
        print(id, flush=True)
"""


def test_kill_at_random_moments_loses_only_what_was_not_flushed(tmp_path):
    script = WRITER.format(here=str(HERE), folder=str(tmp_path))
    draw, flushed = random.Random(1), -1
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0, 0.25))
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in writer.stdout.read().splitlines() if line.strip()]
        writer.stdout.close()
        writer.wait()
        flushed = max([flushed, *said])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            store = EpisodeStore(tmp_path)
        assert store.ids.tolist() == list(range(len(store)))
        assert len(store) > flushed
        rounds = set()
        for episode in store.episodes():
            assert len(episode) == 5 + episode.id % 40
            assert same(episode, counter_episode(episode.id, len(episode)))
            if "mu" in store.memos:
                offset = float(episode.memo["mu"][0, 1])
                rounds.add(offset)
                assert np.array_equal(
                    episode.memo["mu"], counter_memo(episode.id, len(episode), offset)["mu"]
                )
        assert len(rounds) <= 1
        assert not list(tmp_path.rglob("*.tmp"))
    assert flushed > 20


GREEDY = """
import json, sys
import numpy as np
from oneiro.data.episodes import Episode
from oneiro.data.samplers import Frames, Windows
from oneiro.data.store import EpisodeStore

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024

ram, folder, rows = 16 << 20, sys.argv[1], 250
x = np.arange(64)
store = EpisodeStore(folder, ram=ram)
base = (x[:, None] * x % 251).astype(np.uint8)

def add(id):
    image = np.broadcast_to(base, (rows, 3, 64, 64)) + np.arange(rows, dtype=np.uint8)[:, None, None, None]
    store.add(Episode(id=id, obs={"image": image}, action=np.zeros((rows, 2), np.float32),
                      reward=np.zeros(rows, np.float32), terminated=np.zeros(rows, np.bool_)))

add(0)
store.flush()
Frames(size=100).build(store, 0).batch(0)
Windows(size=8, length=16).build(store, 0).batch(0)
before = resident()
for id in range(1, 100):
    add(id)
store.flush()
frames, windows = Frames(size=100).build(store, 0), Windows(size=8, length=16).build(store, 0)
for k in range(40):
    frames.batch(k * 6)
    windows.batch(k)
for _ in store.episodes(("image",)):
    pass
print(json.dumps({"grown": resident() - before, "raw": store.rows * 12288, "ram": ram}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded_while_sampling_from_a_much_larger_store(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, str(tmp_path)], check=True, capture_output=True, text=True
    )
    figures = json.loads(done.stdout)
    assert figures["raw"] > 15 * figures["ram"]
    # Beside `ram`: one episode being packed or read (3 MB), a batch (1.2 MB), and what malloc keeps.
    assert figures["grown"] < figures["ram"] + (24 << 20)
