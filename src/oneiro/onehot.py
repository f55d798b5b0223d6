"""`OneHot`: the space of a category that is shown as a vector with a single 1."""

import gymnasium
import numpy as np


class OneHot(gymnasium.spaces.Box):
    """Float32 [n], zeros but for one 1. `Spaces.of` lists such a modality among its `classes`.

    Imports no torch: environments declare it in worker processes.
    """

    def __init__(self, n: int) -> None:
        super().__init__(0.0, 1.0, (n,), np.float32)
        self.n = n

    def row(self, index: int) -> np.ndarray:
        """The element that stands for category `index`."""
        shown = np.zeros(self.n, np.float32)
        shown[index] = 1.0
        return shown

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        """A uniform category."""
        return self.row(int(self.np_random.integers(self.n)))

    def __repr__(self) -> str:
        return f"OneHot({self.n})"
