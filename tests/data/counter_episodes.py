"""Episodes whose every value tells where it belongs: episode `id`, row `t`."""

import numpy as np

from oneiro.data.episodes import Episode

LENGTHS = (5, 40, 17, 1, 23, 64, 9, 31)


def counter_episode(id: int, rows: int, size: int = 8) -> Episode:
    """Frames that hold (id, t) in their first four bytes and noise elsewhere."""
    image = np.random.default_rng(id).integers(0, 256, (rows, 3, size, size), np.uint8)
    image[:, 0, 0, 0], image[:, 0, 0, 1] = id % 256, id // 256
    image[:, 0, 0, 2], image[:, 0, 0, 3] = np.arange(rows) % 256, np.arange(rows) // 256
    t = np.arange(rows, dtype=np.float32)
    terminated = np.zeros(rows, np.bool_)
    terminated[-1] = id % 2 == 0
    return Episode(
        id=id,
        obs={"image": image},
        action=np.stack([np.full(rows, id, np.float32), t], 1) * (t > 0)[:, None],
        reward=(id * 1000 + t) * (t > 0),
        terminated=terminated,
        info={"seed": id * 7, "truncated": id % 2 == 1},
    )


def counter_memo(id: int, rows: int, offset: float = 0) -> dict[str, np.ndarray]:
    """float16 columns `mu` = (id, t) + offset and `logvar` = -mu."""
    mu = np.stack([np.full(rows, id), np.arange(rows)], 1).astype(np.float16) + np.float16(offset)
    return {"mu": mu, "logvar": -mu}


def same(a: Episode, b: Episode) -> bool:
    """True if both hold the same rows."""
    left, right = a.columns(), b.columns()
    return (
        a.id == b.id
        and a.info == b.info
        and left.keys() == right.keys()
        and all(left[k].dtype == right[k].dtype and np.array_equal(left[k], right[k]) for k in left)
    )


def decode(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames [.., 3, H, W] -> (id [..], t [..])."""
    x = image.astype(np.int64)
    return x[..., 0, 0, 0] + 256 * x[..., 0, 0, 1], x[..., 0, 0, 2] + 256 * x[..., 0, 0, 3]
