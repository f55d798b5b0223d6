"""Replay: memory and speed while it grows. Prints a table, writes replay_benchmark.json beside the rows.

    python benchmarks/replay.py --folder /scratch/replay --rows 200000              # minutes
    python benchmarks/replay.py --folder /scratch/replay --rows 5000000 --minutes 60   # goes on where it stopped

Rows are 64 x 64 x 3 frames of a drifting texture with noise in a corner (packed to a third, about as TakeCover is),
an action of 18, and the latents of DreamerV3 at size1m (1,056 bytes). Between blocks of rows, batches of 16 items of
1 + 64 rows are drawn at random and read, latents read and written as in training. Times are CPU seconds of one thread,
so that they hold on a machine that is busy with other things; the file cache is warm as far as memory allows.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from oneiro.data.replay import Replay
from oneiro.data.replayed import Replayed, ReplayedSampler

SIZE, LENGTH, EPISODE = 16, 64, 400


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--ram", type=float, default=1.0, help="GiB for the replay")
    parser.add_argument("--block", type=int, default=20_000, help="rows between two measurements")
    parser.add_argument("--batches", type=int, default=30, help="batches of a measurement")
    parser.add_argument("--minutes", type=float, default=20.0, help="stop after so long")
    own = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    replay = Replay(own.folder, streams=own.streams, ram=int(own.ram * 2**30))
    opened = time.monotonic() - began
    sampler = Replayed(size=SIZE, length=LENGTH, online=False).build(replay, seed=len(replay.spans))
    found = own.folder / "replay_benchmark.json"
    lines = json.loads(found.read_text()) if found.exists() else []
    print(f"opened {replay.rows:,} rows in {opened:.1f} s", flush=True)
    print(
        f"{'rows':>10} {'RSS MB':>8} {'append us':>10} {'read ms':>8} {'worst':>6} {'latents ms':>11} {'GB':>7}"
    )
    maker = Frames(own.streams)
    while replay.rows < own.rows and time.monotonic() - began < 60 * own.minutes:
        append = grow(replay, maker, min(own.block, own.rows - replay.rows))
        replay.flush()
        read, latents = sample(replay, sampler, own.batches)
        line = {
            "rows": replay.rows,
            "rss": psutil.Process().memory_info().rss,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "append_us": 1e6 * append,
            "read_ms": 1e3 * float(np.median(read)),
            "worst_ms": 1e3 * max(read),
            "latents_ms": 1e3 * float(np.median(latents)),
            "disk": replay.nbytes,
        }
        lines.append(line)
        found.write_text(json.dumps(lines, indent=1))
        print(
            f"{line['rows']:>10,} {line['rss'] / 1e6:>8.0f} {line['append_us']:>10.0f} {line['read_ms']:>8.1f} "
            f"{line['worst_ms']:>6.0f} {line['latents_ms']:>11.1f} {line['disk'] / 1e9:>7.1f}",
            flush=True,
        )


class Frames:
    """Frames [S, 3, 64, 64] that move."""

    def __init__(self, streams: int) -> None:
        self.rng = np.random.default_rng(0)
        cells = self.rng.integers(0, 256, (streams, 3, 32, 32), np.uint8)
        self.texture = cells.repeat(4, 2).repeat(4, 3)

    def show(self, t: int) -> np.ndarray:
        """Frame t of every stream."""
        frames = np.roll(self.texture, (t, 2 * t), (2, 3))[:, :, :64, :64].copy()
        frames[:, :, :28, :28] ^= self.rng.integers(0, 256, (len(frames), 3, 28, 28), np.uint8)
        return frames


def grow(replay: Replay, maker: Frames, rows: int) -> float:
    """Append; seconds per row, the frames not counted."""
    count, seconds = len(replay.streams), 0.0
    for _ in range(-(-rows // count)):
        t = replay.streams[0].stop
        data = {
            "obs/image": maker.show(t),
            "action": np.eye(18, dtype=np.float32)[np.full(count, t % 18)],
            "reward": np.full(count, t % 3, np.float32),
        }
        memo = {
            "deter": torch.full((count, 512), t).bfloat16(),
            "stoch": torch.zeros(count, 32, dtype=torch.uint8),
        }
        first, last = np.array([[s.must_begin, t % EPISODE == EPISODE - 1] for s in replay.streams]).T
        began = time.thread_time()
        replay.append(data, first, last & (t % 800 < EPISODE), last, memo)
        seconds += time.thread_time() - began
    return seconds / rows


def sample(replay: Replay, sampler: ReplayedSampler, batches: int) -> tuple[list[float], list[float]]:
    """Seconds of every batch: reading rows, and reading and writing latents."""
    read, latents = [], []
    for _ in range(batches):
        at = sampler.draw()
        began = time.thread_time()
        pieces = replay.locate(at + np.array([0, 1]), LENGTH)
        rows = replay.read(pieces)
        read.append(time.thread_time() - began)
        assert rows.obs["image"].shape == (SIZE, LENGTH, 3, 64, 64)
        began = time.thread_time()
        replay.memo(replay.locate(at, 1))
        replay.put_memo(pieces, replay.memo(pieces))
        latents.append(time.thread_time() - began)
    return read, latents


if __name__ == "__main__":
    main()
