"""DIAMOND's Counter-Strike configuration: counts and action bits of the released code."""

import json
from pathlib import Path

import pytest
import torch

from oneiro.data.csgo import CODEC, MOUSE_X, MOUSE_Y, SIZE, encode, kept_keys, snap
from oneiro.spaces import Spaces
from oneiro.worlds.diamond_csgo import TwoStageConfig

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "diamond.json").read_text())
ACTIONS = VECTORS["csgo_action_encoding"]


def test_counts() -> None:
    with torch.device("meta"):
        world = TwoStageConfig().build(Spaces({"image": (3, 150, 280)}, CODEC))
    expected = VECTORS["param_counts"]["csgo"]
    for part in world.parts:
        assert sum(p.numel() for p in getattr(world, part).parameters()) == expected[part]
    assert world.small == (3, 30, 56)


def test_bins() -> None:
    assert list(MOUSE_X) == ACTIONS["mouse_x_bins"]
    assert list(MOUSE_Y) == ACTIONS["mouse_y_bins"]
    assert ACTIONS["length"] == SIZE


@pytest.mark.parametrize("case", ACTIONS["cases"], ids=lambda c: "-".join(c["keys_pressed_in_order"]))
def test_actions(case: dict) -> None:
    keys, mouse = case["keys_pressed_in_order"], (float(case["mouse_x"]), float(case["mouse_y"]))
    assert kept_keys(keys) == case["kept_keys"]
    assert list(snap(kept_keys(keys), mouse)) == case["mouse_snapped"]
    bits = encode(keys, mouse, left=case["l_click"], right=case["r_click"])
    assert bits.nonzero()[:, 0].tolist() == case["one_indices"]
