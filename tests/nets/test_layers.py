"""Layers of DreamerV3: initial scale, shapes, dtypes."""

import pytest
import torch

from oneiro.nets.layers import MLP, BlockLinear, Linear, RMSNorm


def test_weights_begin_with_the_standard_deviation_of_the_fan_in() -> None:
    torch.manual_seed(0)
    weight = Linear(400, 300).weight
    assert weight.std().item() == pytest.approx(400**-0.5, rel=0.01)
    assert weight.abs().max().item() <= 2 * 1.1368 * 400**-0.5
    assert BlockLinear(400, 800, 4).weight.std().item() == pytest.approx(400**-0.5, rel=0.01)
    assert Linear(400, 300, scale=0.01).weight.std().item() == pytest.approx(0.01 * 400**-0.5, rel=0.01)
    assert Linear(4, 3, scale=0.0).weight.abs().sum() == 0


def test_a_block_sees_only_its_own_slice() -> None:
    layer = BlockLinear(6, 9, 3)
    x = torch.zeros(2, 5, 6)
    x[..., 2:4] = 1.0
    y = layer(x)
    assert y.shape == (2, 5, 9)
    assert y[..., 3:6].abs().min() > 0
    assert y[..., :3].abs().max() == 0
    assert y[..., 6:].abs().max() == 0


def test_blocks_must_divide() -> None:
    with pytest.raises(ValueError, match="divisible by blocks 4"):
        BlockLinear(6, 8, 4)


def test_the_norm_gives_unit_mean_square_in_the_dtype_of_its_input() -> None:
    x = torch.randn(7, 32) * 50
    assert torch.allclose(RMSNorm(32)(x).square().mean(-1), torch.ones(7), atol=1e-4)
    assert RMSNorm(32)(x.bfloat16()).dtype == torch.bfloat16


def test_an_mlp_with_an_output_answers_in_float32() -> None:
    x = torch.randn(2, 3, 8)
    mlp = MLP(8, 16, 2, out=5)
    assert mlp(x).shape == (2, 3, 5)
    assert mlp(x.bfloat16()).dtype == torch.float32
    assert torch.allclose(mlp(x.bfloat16()), mlp(x), atol=0.05)
    assert MLP(8, 16, 2)(x.bfloat16()).dtype == torch.bfloat16
    assert MLP(8, 16, 2, out=5, scale=0.0)(x).abs().max() == 0
    assert sum(p.numel() for p in mlp.parameters()) == 8 * 16 + 16 * 2 + 16 * 16 + 16 * 2 + 16 * 5 + 5


def test_the_output_layer_is_not_rounded_to_the_dtype_of_the_hidden_ones() -> None:
    torch.manual_seed(0)
    mlp, x = MLP(6, 32, 1, out=5), torch.randn(4, 6).bfloat16()
    hidden = mlp.norms[0].silu(mlp.linears[0](x))  # type: ignore[operator]
    assert hidden.dtype == torch.bfloat16
    assert torch.equal(mlp(x), mlp.out(hidden.float()))  # type: ignore[misc]
    assert (mlp(x) != mlp(x).bfloat16().float()).any()


def test_norm_and_silu_at_once_are_the_same() -> None:
    norm, x = RMSNorm(6), torch.randn(3, 4, 6, requires_grad=True)
    torch.nn.init.normal_(norm.weight)
    weight = torch.randn(3, 4, 6)
    found, plain = norm.silu(x), torch.nn.functional.silu(norm(x))
    assert torch.allclose(found, plain, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(norm.silu(x), plain, atol=1e-6)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (x, norm.weight)),
        torch.autograd.grad((plain * weight).sum(), (x, norm.weight)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5)
    assert norm.silu(x.bfloat16()).dtype == torch.bfloat16


def test_a_cast_form_gives_the_same_and_has_no_gradient() -> None:
    torch.manual_seed(0)
    net = MLP(12, 8, 2, 5)
    x = torch.randn(6, 12, dtype=torch.bfloat16)
    made = net.cast(torch.bfloat16)
    assert torch.equal(made(x), net(x))
    assert net(x).requires_grad
    assert not made(x).requires_grad
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
