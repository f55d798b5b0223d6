"""The first generation of DreamerV3: published counts, the contract, the world's core against the formulas."""

import pytest
import torch
from torch import nn

from oneiro import tree
from oneiro.behaviours.actor_critic import ActorCriticConfig
from oneiro.nets.gru_rssm import GRURSSM
from oneiro.nets.layer_norm import Hidden, Output
from oneiro.nets.strided_cnn import StridedConv, StridedDecoder
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import check_world, require
from oneiro.testing.rows import random_rows
from oneiro.worlds.dreamerv3_2023 import DreamerV3Of2023Config

TINY = {"units": 16, "deter_dim": 12, "layers": 1, "stoch": 3, "classes": 4, "depth": 1}
TINY |= {"vector_layers": 2, "vector_units": 8}
IMAGE = Spaces({"image": (3, 48, 48)}, ActionCodec(3))
VECTOR = Spaces({"vector": (5,), "kind": (3,)}, ActionCodec(2, (-1.0, 0.0), (1.0, 1.0)), {"kind": 3})
COUNTS = {"s": 17_935_252, "m": 36_911_828, "l": 76_767_252, "xl": 200_745_620}


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("size", COUNTS)
def test_published_parameter_counts(size: str) -> None:
    """Of world, actor and critic for pictures of 3 x 64 x 64 and 18 actions."""
    config = DreamerV3Of2023Config(size=size)
    _, units, layers, _ = config.widths
    with torch.device("meta"):
        world = config.build(Spaces({"image": (3, 64, 64)}, ActionCodec(18)))
        learner = ActorCriticConfig(units=units, layers=layers, norm="layer")
        behaviour = learner.build(world.spaces, world.feature_dim)
    assert count(world, behaviour.actor, behaviour.critic) == COUNTS[size]


@pytest.mark.parametrize("spaces", [IMAGE, VECTOR], ids=["image", "vector"])
def test_contract(spaces: Spaces) -> None:
    require(check_world(DreamerV3Of2023Config(**TINY, compute_dtype="float32").build(spaces)))


def test_the_core_is_a_gru_with_a_layer_norm() -> None:
    model = GRURSSM(deter_dim=6, stoch=2, classes=3, units=5, action_dim=2, token_dim=4, unimix=0.01)
    for p in model.parameters():
        nn.init.normal_(p)
    h, z, a, tokens = (torch.randn(3, n) for n in (6, 6, 2, 4))

    def norm(x: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-3).sqrt()
        return x * layer.weight + layer.bias

    x = norm(torch.cat([z, a], -1) @ model.inward.weight.T, model.inward.norm)
    x = x * x.sigmoid()
    reset, cand, update = norm(torch.cat([h, x], -1) @ model.gates.T, model.gates_norm).split(6, -1)
    update = (update - 1).sigmoid()
    expected = update * (reset.sigmoid() * cand).tanh() + (1 - update) * h
    cell = model.cell(torch.float32)
    found = model.core(cell, h, z, model.push(cell, a))
    assert torch.allclose(found, expected, atol=1e-5)
    y = norm(torch.cat([found, tokens], -1) @ model.seen.weight.T, model.seen.norm)
    logits = (y * y.sigmoid()) @ model.seen_logit.weight.T + model.seen_logit.bias
    p = 0.99 * logits.unflatten(-1, (2, 3)).softmax(-1) + 0.01 / 3
    assert torch.allclose(model.posterior(cell, found, model.see(cell, tokens)), p, atol=1e-5)


def test_episodes_begin_where_it_has_learned_to_begin() -> None:
    world = DreamerV3Of2023Config(**TINY).build(VECTOR)
    with torch.no_grad():
        nn.init.normal_(world.dynamics.get_parameter("first"))
        start = world.start(2)
        assert torch.allclose(start["deter"], torch.tanh(world.dynamics.get_parameter("first")).expand(2, -1))
        best = world.dynamics.prior(start["deter"], torch.float32).argmax(-1)
    assert torch.equal(start["stoch"].argmax(-1), best)
    batch = random_rows(VECTOR)(2, 3, 0)
    batch.is_first[0, 1] = True
    loss = world.losses(batch, ["all"], tree.map(torch.zeros_like, start)).by_part["all"]
    (gradient,) = torch.autograd.grad(loss, [world.dynamics.get_parameter("first")])
    assert gradient.abs().max() > 0


def test_weights_begin_with_the_average_fan() -> None:
    assert Hidden(300, 500).weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    output = Output(300, 500).weight
    assert output.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert output.abs().max().item() <= (3 / 400) ** 0.5
    assert StridedConv(30, 50).weight.std().item() == pytest.approx((16 * 40) ** -0.5, rel=0.02)


def test_the_continuation_has_no_discount_inside() -> None:
    world = DreamerV3Of2023Config(**TINY).build(VECTOR)
    with torch.no_grad():
        world.cont.get_parameter("out.bias").fill_(2.0)
        world.cont.get_parameter("out.weight").zero_()
        assert torch.allclose(world.judge(world.start(1))[1], torch.tensor(2.0).sigmoid())


def test_a_picture_is_centred_and_its_error_is_not_cut() -> None:
    decoder = StridedDecoder((3, 48, 48), 7, 1)
    nn.init.zeros_(decoder.weight)
    out = decoder(torch.randn(2, 4), torch.randn(2, 3))
    assert torch.equal(out, torch.full((2, 48, 48, 3), 0.5))
    picture = torch.full((2, 3, 48, 48), 255, dtype=torch.uint8)
    assert torch.allclose(decoder.error(out + 1.5, picture), torch.full((2,), 3 * 48 * 48.0))
    assert decoder.picture(out + 1.5).max() == 1
