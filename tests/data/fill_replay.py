"""Fill a replay and sample from it; prints the resident memory (MB) near the start and at the end."""

import sys
from pathlib import Path

import numpy as np
import psutil
import torch

from oneiro.data.replay import Replay
from oneiro.data.replayed import Replayed

STREAMS, STEPS = 16, 2_000

replay = Replay(Path(sys.argv[1]), streams=STREAMS, ram=1 << 25, compress=False)
sampler = Replayed(size=8, length=16).build(replay, seed=0)
image = np.random.default_rng(0).integers(0, 256, (STREAMS, 3, 32, 32), np.uint8)
rows = {
    "obs/image": image,
    "action": np.zeros((STREAMS, 1), np.float32),
    "reward": np.zeros(STREAMS, np.float32),
}
none = np.zeros(STREAMS, np.bool_)
for step in range(STEPS):
    memo = {"deter": torch.full((STREAMS, 32), step).bfloat16()}
    replay.append(rows, np.full(STREAMS, step == 0), none, none, memo)
    if step >= 64 and step % 8 == 0:
        at = sampler.draw()
        replay.read(replay.locate(at, 17))
        replay.memo(replay.locate(at, 1))
    if step == STEPS // 10:
        print(psutil.Process().memory_info().rss / 1e6)
print(psutil.Process().memory_info().rss / 1e6)
