"""Where dreams begin: the first rows of stored episodes, small enough to be kept in memory."""

import numpy as np
import torch

from oneiro.agent import Starts
from oneiro.data.samplers import rows_at
from oneiro.data.store import EpisodeStore
from oneiro.errors import OneiroError
from oneiro.types import TimeStep


def first_rows(store: EpisodeStore, starts: Starts, seed: int, device: torch.device | str) -> TimeStep:
    """[count, context] rows from the beginnings of random episodes (all of them if there are fewer)."""
    ids = np.array([i for i in store.ids if store.length(i) > starts.context])
    if not len(ids):
        raise OneiroError(
            f"no stored episode is longer than {starts.context} rows, so no dream can begin; collect episodes first"
        )
    chosen = np.random.default_rng(seed).permutation(ids)[: starts.count]
    fields = None if not store.has_memo("mu") else ("action", "reward", "terminated", "memo")
    return rows_at(store, [(int(i), 0, starts.context) for i in np.sort(chosen)], fields, device)
