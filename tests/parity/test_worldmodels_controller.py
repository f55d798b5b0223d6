"""C and its evolution against numbers recorded from the released code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from oneiro.behaviours.linear import LinearConfig, squash_car
from oneiro.recipes import find
from oneiro.spaces import ActionCodec, Spaces
from oneiro.training.cma_es import CMA, Evolution, costs
from oneiro.training.fit import parameter_counts
from oneiro.training.run import build_agent

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "worldmodels.json").read_text())
CAR = Spaces({"image": (3, 64, 64)}, ActionCodec(3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
DOOM = Spaces({"image": (3, 64, 64)}, ActionCodec(1, (-1.0,), (1.0,)))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_sizes_of_c():
    assert count(LinearConfig(has_bias=True, squash="car").build(CAR, 32 + 256)) == 867
    assert count(LinearConfig().build(DOOM, 64 + 512 + 512)) == 1088
    assert count(LinearConfig(hidden_dim=40, squash="car").build(CAR, 32)) == 1443


def test_published_sizes_of_the_recipes():
    doom = find("vmc-takecover").build()
    assert parameter_counts(build_agent(doom, DOOM)) == {
        "world.vision": VECTORS["vae64_param_count"],
        "world.memory": VECTORS["doom_M_param_count"],
        "world": VECTORS["vae64_param_count"] + VECTORS["doom_M_param_count"],
        "behaviour": 1088,
    }
    car = parameter_counts(build_agent(find("vmc-carracing").build(), CAR))
    assert car["world.vision"] == VECTORS["vae32"]["param_count"]
    assert (car["world.memory"], car["behaviour"]) == (VECTORS["car_M_param_count"], 867)


def test_car_action():
    vector = VECTORS["car_action"]
    action = squash_car(torch.tensor(vector["raw_linear_output"]))
    assert torch.allclose(action, torch.tensor(vector["action"]), atol=1e-6)


def test_flat_order_is_bias_then_weights_row_by_row():
    c = LinearConfig(has_bias=True, squash="car").build(CAR, 4)
    flat = torch.arange(15, dtype=torch.float32)
    torch.nn.utils.vector_to_parameters(flat, c.parameters())
    layer = c.layers[0]
    assert layer.bias.tolist() == [0, 1, 2]
    assert layer.weight[1].tolist() == [6, 7, 8]


def test_cost_told_to_cma_has_the_released_sign():
    vector = VECTORS["cma_tell_cost"]
    found = costs(np.array(vector["solutions"]), vector["rewards"], weight_bonus=0.01)
    assert np.allclose(found, vector["cost_given_to_cma"], atol=1e-5)


CONSTANTS = VECTORS["cma_es_constants"]["by_dimension"]


@pytest.mark.parametrize("dim", CONSTANTS)
def test_cma_constants(dim: str):
    """Seven digits are recorded. The rule of the step size is another one in few dimensions."""
    expected = CONSTANTS[dim]
    strategy = Evolution(CMA(population=64, sigma=0.1), torch.zeros(int(dim))).strategy
    weights = np.array(strategy.sp.weights)
    found = {
        "mu": strategy.sp.weights.mu,
        "mueff": strategy.sp.weights.mueff,
        **{name: getattr(strategy.sp, name) for name in ("cc", "c1", "cmu", "c1_sep")},
        "weights_pos_sum": weights[weights > 0].sum(),
        "weights_neg_sum": weights[weights < 0].sum(),
        "weights_first3": list(weights[:3]),
    }
    assert found.keys() | {"step_size_rule"} == expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-6), name
    assert type(strategy.adapt_sigma).__name__ == expected["step_size_rule"]
