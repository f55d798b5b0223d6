"""Where dreams begin: the first rows of stored episodes, few enough to be kept in memory."""

import numpy as np
import torch

from oneiro import tree
from oneiro.agent import Starts
from oneiro.data.batches import Stretch, gather
from oneiro.data.episode_reader import EpisodeReader
from oneiro.errors import OneiroError
from oneiro.types import TimeStep


def first_rows(store: EpisodeReader, starts: Starts, seed: int, device: torch.device | str) -> TimeStep:
    """[N, context] rows from the beginnings of N = `count` random episodes (of all, if there are fewer).

    Where the world has stored its memo, the pictures are left on disk.
    """
    ids = store.ids[store.lengths > starts.context]
    if not len(ids):
        raise OneiroError(
            f"no stored episode is longer than {starts.context} rows, so no dream can begin; collect episodes first"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(ids)[: starts.count])
    fields = ("action", *store.memos) if store.memos else store.fields
    stretches = [Stretch(b, 0, int(id), 0, starts.context) for b, id in enumerate(chosen)]
    return tree.to(gather(store, fields, len(chosen), starts.context, stretches), device)
