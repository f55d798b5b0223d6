"""Import and export of Minari data sets (extra `minari`).

Minari keeps T + 1 observations and T actions, rewards and flags per episode; we keep T + 1 arrival rows:

    Minari   o0   a0 r0 d0   o1   a1 r1 d1   o2
    rows     (0, 0, o0)      (a0, r0, o1, d0)      (a1, r1, o2, d1)

Where Minari looks for data sets on this machine is set by the environment variable MINARI_DATASETS_PATH.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from oneiro.data.episode_reader import EpisodeReader
from oneiro.data.episodes import Episode
from oneiro.data.store import EpisodeStore
from oneiro.errors import MissingExtra, OneiroError
from oneiro.spaces import ActionCodec, Spaces

CHANNELS = (1, 3, 4)


def export_minari(
    store: EpisodeReader, dataset_id: str, spaces: Spaces, *, env: str | None = None, **about: Any
) -> Any:
    """Write every episode of `store` as the Minari data set `dataset_id` (for example "doom/random-v0").

    Frames are kept exactly (no JPEG). `env` is a Gymnasium id if there is one; `about` is handed on to
    `minari.create_dataset_from_buffers` (author, description, algorithm_name, ...). An episode of a single
    row has no step and is left out; the memo is not exported. Returns the `MinariDataset`.
    """
    minari = _minari()
    if not any(store.lengths > 1):
        raise OneiroError(f"there are no episodes with a step in {store.folder}; collect some first")
    buffers: Any = _buffers(store, spaces.action)
    with warnings.catch_warnings():
        # Minari warns about every field of `about` that is not given.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=env,
                observation_space=_observation_space(store),
                action_space=_action_space(spaces.action),
                jpeg_encoding=False,
                **about,
            )
        except ValueError as error:
            raise OneiroError(f"Minari refuses to write {dataset_id!r}: {error}") from error


def import_minari(dataset: str | Path, store: EpisodeStore) -> Spaces:
    """Append every episode of a Minari data set to `store`; returns the spaces of its rows.

    `dataset` is the id of a local data set, or the folder of one. Modalities: a Dict keeps its names, a bare Box
    becomes "image" (uint8, three axes) or "vector" (anything else, flattened to float32).
    """
    minari = _minari()
    try:
        folder = Path(dataset)
        if folder.is_dir():
            found = minari.MinariDataset(folder / "data" if (folder / "data").is_dir() else folder)
        else:
            found = minari.load_dataset(str(dataset))
    except (FileNotFoundError, ValueError) as error:
        raise OneiroError(
            f"there is no Minari data set {str(dataset)!r}: {error}. Get it with `minari download`, or set "
            "MINARI_DATASETS_PATH to where it is"
        ) from error
    codec = ActionCodec.of(found.action_space)
    offset = np.asarray(found.action_space.start) if codec.is_discrete else 0
    id = int(store.ids[-1]) + 1 if len(store) else 0
    for data in found.iterate_episodes():
        about = next(iter(found.storage.get_episode_metadata([data.id])))
        info = {"source": str(dataset), "truncated": bool(data.truncations[-1])}
        store.add(
            _episode(id, data, codec, offset, info | ({"seed": about["seed"]} if "seed" in about else {}))
        )
        id += 1
    store.flush()
    shapes = {name: column.shape for name, column in store.columns.items()}
    return Spaces({name[4:]: shape for name, shape in shapes.items() if name.startswith("obs/")}, codec)


def _minari() -> Any:
    try:
        import minari
    except ImportError:
        raise MissingExtra("minari", "minari") from None
    return minari


def _buffers(store: EpisodeReader, codec: ActionCodec) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for id in store.ids[store.lengths > 1].tolist():
        episode = store.read(id, fields=tuple(name[4:] for name in store.columns if name.startswith("obs/")))
        truncated = np.zeros(len(episode) - 1, np.bool_)
        truncated[-1] = episode.info.get("truncated", not episode.terminated[-1])
        seed = episode.info.get("seed")
        yield EpisodeBuffer(
            seed=seed if isinstance(seed, int) and 0 <= seed < 1 << 63 else None,
            observations=episode.obs,
            actions=codec.to_env(torch.from_numpy(episode.action[1:])),  # type: ignore[arg-type]
            rewards=episode.reward[1:],  # type: ignore[arg-type]
            terminations=episode.terminated[1:],  # type: ignore[arg-type]
            truncations=truncated,  # type: ignore[arg-type]
        )


def _observation_space(store: EpisodeReader) -> gymnasium.spaces.Dict:
    spaces = {}
    for name, column in store.columns.items():
        if name.startswith("obs/"):
            dtype: Any = np.dtype(column.dtype).type
            low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
            spaces[name[4:]] = gymnasium.spaces.Box(low, high, column.shape, dtype)
    return gymnasium.spaces.Dict(spaces)


def _action_space(codec: ActionCodec) -> gymnasium.Space:
    if codec.is_discrete:
        is_one = len(codec.groups) == 1
        return (
            gymnasium.spaces.Discrete(codec.dim)
            if is_one
            else gymnasium.spaces.MultiDiscrete([*codec.groups])
        )
    return gymnasium.spaces.Box(np.array(codec.low, np.float32), np.array(codec.high, np.float32))


def _episode(id: int, data: Any, codec: ActionCodec, offset: Any, info: dict[str, Any]) -> Episode:
    """Minari's episode as arrival rows."""
    observations = data.observations
    if not isinstance(observations, dict):
        array = np.asarray(observations)
        observations = {"image" if _is_image(array) else "vector": array}
    action = codec.from_env(np.asarray(data.actions) - offset).numpy()
    return Episode(
        id=id,
        obs={name: _modality(name, array) for name, array in observations.items()},
        action=_after_reset(action, np.float32),
        reward=_after_reset(data.rewards, np.float32),
        terminated=_after_reset(data.terminations, np.bool_),
        info=info,
    )


def _after_reset(array: Any, dtype: Any) -> np.ndarray:
    """[T, ...] -> [T + 1, ...] with a row of zeros in front."""
    array = np.asarray(array, dtype)
    return np.concatenate([np.zeros_like(array[:1]), array])


def _is_image(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 4


def _modality(name: str, array: Any) -> np.ndarray:
    """Images as [T, C, H, W], anything else as float32 [T, D]."""
    if isinstance(array, (dict, tuple, list)):
        raise OneiroError(
            f"the observation {name!r} is nested; flatten it first, for example with "
            "gymnasium.wrappers.FlattenObservation"
        )
    array = np.asarray(array)
    if not _is_image(array):
        return array.reshape(len(array), -1).astype(np.float32)
    is_channels_last = array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if is_channels_last else array
