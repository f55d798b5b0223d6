"""Every test: one torch thread, its own seed, checked shapes."""

import os

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that tests start
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

# Types and shapes of the functions of these modules are checked at every call while tests run, and only then.
# Off with ONEIRO_TEST_SHAPES=off (compiled code: the checks and torch.compile do not mix). Not checked: `types`,
# whose records are also mapped to numpy arrays and names, and `behaviours`, which run under vmap.
CHECKED = ["agent", "dreaming", "spaces", "tree", "world", "nets", "worlds"]
if os.environ.get("ONEIRO_TEST_SHAPES") != "off":
    install_import_hook([f"oneiro.{name}" for name in CHECKED], "beartype.beartype")


@pytest.fixture(autouse=True)
def _steady() -> None:
    """The same random numbers in every test, whichever tests run before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
