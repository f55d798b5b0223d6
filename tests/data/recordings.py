"""Small videos with actions, as a screen recorder would leave them."""

from pathlib import Path

import numpy as np

from oneiro.data.episodes import Episode
from oneiro.data.store import EpisodeStore
from oneiro.data.video import export_video
from oneiro.data.video_note import VideoNote

ACTIONS = ("none", "left", "right")
HEIGHT, WIDTH, FPS = 24, 32, 10.0


def episode(id: int, rows: int) -> Episode:
    """A bright bar that the actions move; smooth, so that a codec keeps it."""
    choice = np.random.default_rng(id).integers(3, size=rows)
    x = np.clip(12 + 2 * np.cumsum(np.array([0, -1, 1])[choice]), 0, WIDTH - 8)
    frames = np.full((rows, 3, HEIGHT, WIDTH), 40, np.uint8)
    for t in range(rows):
        frames[t, id % 3, :, x[t] : x[t] + 8] = 220
    action = np.eye(3, dtype=np.float32)[choice]
    action[0] = 0
    return Episode(
        id=id,
        obs={"image": frames},
        action=action,
        reward=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
    )


def recordings(folder: Path, count: int = 3, rows: int = 20, *, note: bool = True) -> Path:
    """`folder` with `count` videos."""
    with EpisodeStore(folder.with_name(f"{folder.name}-played"), ram=1 << 24) as store:
        for id in range(count):
            store.add(episode(id, rows))
        store.flush()
        export_video(store, folder, FPS)
    if note:
        VideoNote(fps=FPS, kind="choice", actions=ACTIONS).write(folder)
    return folder
