"""The world of DreamerV3 keeps the contract, whatever it sees and does."""

import pytest

from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import check_world, require
from oneiro.worlds.dreamerv3 import DreamerV3Config

# No free nats: a KL below them gives the prior no gradient, and the suite wants to see every part move.
TINY = {"units": 16, "deter_dim": 16, "stoch": 3, "classes": 4, "depth": 1, "blocks": 4, "free_nats": 0.0}
SPACES = {
    "image, discrete": Spaces({"image": (3, 48, 48)}, ActionCodec(3)),
    "vector, box": Spaces({"vector": (5,)}, ActionCodec(2, (-1.0, 0.0), (1.0, 1.0))),
    "both, multi-discrete": Spaces(
        {"image": (3, 48, 48), "side": (1, 48, 48), "vector": (5,), "kind": (3,)},
        ActionCodec(5, groups=(3, 2)),
        {"kind": 3},
    ),
}


@pytest.mark.parametrize("spaces", SPACES)
def test_contract(spaces: str) -> None:
    require(check_world(DreamerV3Config(**TINY, compute_dtype="float32").build(SPACES[spaces])))
