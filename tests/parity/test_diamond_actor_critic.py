"""DIAMOND's actor-critic, returns and LSTM initialisation against vectors of the released code (float32, CPU)."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from oneiro.behaviours.recurrent_actor_critic import (
    RecurrentActorCriticConfig,
    dream_return,
)
from oneiro.nets.lstm_cell import lstm_cell
from oneiro.returns import lambda_return
from oneiro.spaces import ActionCodec, Spaces
from oneiro.worlds.diamond import DiamondConfig

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "diamond.json").read_text())


def close(found: Tensor, expected: object, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(
        found.detach(), torch.as_tensor(expected, dtype=found.dtype), atol=tolerance, rtol=tolerance
    )


def test_tiny_actor_critic() -> None:
    case = VECTORS["tiny_actor_critic"]
    shape = case["config"]
    assert all(shape["down"])  # ours always halves
    config = RecurrentActorCriticConfig(
        channels=tuple(shape["channels"]), hidden_dim=shape["lstm_dim"], compute_dtype="float32"
    )
    size = shape["img_size"]
    spaces = Spaces({"image": (shape["img_channels"], size, size)}, ActionCodec(shape["num_actions"]))
    net = config.build(spaces, 0).net
    own = net.state_dict()
    weights = [torch.tensor(x) for x in case["state_dict"].values()]
    assert [w.shape for w in weights] == [x.shape for x in own.values()]  # the same order
    net.load_state_dict(dict(zip(own, weights, strict=True)))
    image = (torch.tensor(case["obs"]) + 1) / 2
    logits, value, h, c = net(image, torch.tensor(case["h"]), torch.tensor(case["c"]))
    for found, name in ((logits, "logits"), (value, "value"), (h, "h_out"), (c, "c_out")):
        close(found, case[name], 5e-6)


@pytest.mark.parametrize(("lam", "name"), [(0.95, "returns"), (0.0, "returns_lambda0")])
def test_lambda_returns(lam: float, name: str) -> None:
    """The vector has truncations inside, which our dreams have not: they are its `is_last` rows."""
    case = VECTORS["lambda_returns"]
    assert lam in (case["lambda"], 0.0)
    reward, end, cut, value = (
        torch.tensor(case[k]).float() for k in ("rew", "end", "trunc", "val_bootstrap")
    )
    blank = torch.zeros_like(reward[:, :1])

    def arrived(x: Tensor) -> Tensor:
        return torch.cat([blank, x], 1)

    found = lambda_return(
        arrived(reward.sign()),
        arrived(1 - end),
        arrived(value),
        discount=case["gamma"],
        lam=lam,
        is_last=arrived(cut).bool(),
    )
    close(found, case[name])
    whole = torch.tensor([False, False, True])  # the row without a truncation inside
    config = RecurrentActorCriticConfig(discount=case["gamma"], lam=lam)
    dreamed = dream_return(reward, end == 0, arrived(value), config)
    close(dreamed[whole], torch.tensor(case[name])[whole])


def test_lstm_initialisation() -> None:
    case = VECTORS["lstm_init_bias"]
    cell = lstm_cell(5, 4)
    close(cell.bias_ih, case["bias_ih"])
    close(cell.bias_hh, case["bias_hh"])
    close(cell.weight_hh.T @ cell.weight_hh, torch.eye(4))
    limit = (6 / (16 + 5)) ** 0.5
    assert 0.8 * limit < cell.weight_ih.abs().max() <= limit


@pytest.mark.parametrize("actions", [4, 18])
def test_counts_on_atari(actions: int) -> None:
    spaces = Spaces({"image": (3, 64, 64)}, ActionCodec(actions))
    with torch.device("meta"):
        world = DiamondConfig().build(spaces)
        behaviour = RecurrentActorCriticConfig().build(spaces, world.feature_dim)
    expected = VECTORS["param_counts"][f"atari_{actions}_actions"]
    for module, name in (
        (world.denoiser, "denoiser"),
        (world.reward, "rew_end_model"),
        (behaviour.net, "actor_critic"),
    ):
        assert sum(p.numel() for p in module.parameters()) == expected[name]
