"""`Dice`: torch's random numbers, of one owner. Others' are neither read nor moved while they are thrown."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Dice:
    """States of torch's generators: the CPU's and, for a world on a GPU, that GPU's."""

    def __init__(self, device: torch.device, seed: int = 0) -> None:
        self._gpus = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(self._gpus):
            torch.manual_seed(seed)
            self._states = self._read()

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(state.nbytes for state in self._states)

    def copy(self) -> "Dice":
        """Dice that will fall the same."""
        twin = object.__new__(Dice)
        twin._gpus, twin._states = self._gpus, [state.clone() for state in self._states]
        return twin

    @contextmanager
    def thrown(self) -> Iterator[None]:
        """Inside, torch draws from these dice; afterwards they have moved on and torch's own are as they were."""
        outside = self._read()
        self._write(self._states)
        try:
            yield
        finally:
            self._states = self._read()
            self._write(outside)

    def _read(self) -> list[Tensor]:
        return [torch.get_rng_state(), *[torch.cuda.get_rng_state(gpu) for gpu in self._gpus]]

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for gpu, state in zip(self._gpus, states[1:], strict=True):
            torch.cuda.set_rng_state(state, gpu)
