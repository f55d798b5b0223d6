"""Rows of streams whose every value tells where it belongs: stream, row, episode, step of the episode."""

import numpy as np
import torch

from oneiro.data.replay import Replay


def episode_of(stream: int, row: int) -> tuple[int, int, int]:
    """(which episode of the stream, step in it, its number of rows): episodes of 5, 6, 7, 5, 6, ... rows."""
    which, begin = 0, 0
    while row >= begin + 5 + (which + stream) % 3:
        begin += 5 + (which + stream) % 3
        which += 1
    return which, row - begin, 5 + (which + stream) % 3


def vector(stream: int, row: int) -> tuple[int, int, int, int]:
    """What the row of a stream shows."""
    return stream, row, *episode_of(stream, row)[:2]


def fill(replay: Replay, rows: int, memo: bool = True, image: int = 4) -> None:
    """Append `rows` rows to every stream, going on where they end."""
    for _ in range(rows):
        at = [(s, stream.stop) for s, stream in enumerate(replay.streams)]
        shown = np.array([vector(*x) for x in at], np.float32)
        steps = [episode_of(*x) for x in at]
        first = np.array([step == 0 for _, step, _ in steps]) | [s.must_begin for s in replay.streams]
        last = np.array([step == length - 1 for _, step, length in steps])
        terminated = last & np.array([which % 2 == 0 for which, _, _ in steps])
        frames = np.stack([np.full((3, image, image), row % 256, np.uint8) for _, row in at])
        replay.append(
            {
                "obs/vector": shown,
                "obs/image": frames,
                "action": shown[:, :2] * ~first[:, None],
                "reward": shown[:, 1].copy(),
            },
            first,
            terminated,
            last,
            memo_of(at) if memo else None,
        )


def memo_of(at: list[tuple[int, int]], offset: int = 0) -> dict[str, torch.Tensor]:
    """deter bfloat16 [N, 3], stoch uint8 [N, 2]."""
    x = torch.tensor(at)
    return {
        "deter": torch.stack([x[:, 0], x[:, 1] % 200, x[:, 1] // 200], 1).bfloat16() + offset,
        "stoch": torch.stack([x[:, 1] % 200, x[:, 0]], 1).to(torch.uint8),
    }


def whole(replay: Replay, stream: int) -> list[int]:
    """Row numbers as they are stored, from the first row that is kept on."""
    first, stop = replay.spans[stream].tolist()
    rows = replay.read(replay.locate(np.array([[stream, first]]), stop - first))
    assert (rows.obs["vector"][0, :, 0] == stream).all()
    assert (rows.obs["image"][0, :, 0, 0, 0] == rows.obs["vector"][0, :, 1] % 256).all()
    assert (rows.reward == rows.obs["vector"][..., 1]).all()
    return rows.obs["vector"][0, :, 1].long().tolist()
