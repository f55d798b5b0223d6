"""Networks of DreamerV3's world against vectors made with the official code (float32)."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oneiro.nets import cnn, onehot
from oneiro.nets.block_rssm import BlockRSSM
from oneiro.nets.layer_norm import norm_silu
from oneiro.nets.layers import MLP, BlockLinear, RMSNorm
from oneiro.nets.observations import Modalities, ObsEncoder
from oneiro.spaces import ActionCodec, Spaces
from oneiro.worlds import dreamerv3

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dreamerv3_world.json").read_text())


def close(found: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32).reshape(found.shape)
    torch.testing.assert_close(found.detach().float(), expected, atol=tolerance, rtol=tolerance)


def wave(*shape: int, amp: float = 1.0, step: float, shift: float) -> Tensor:
    """amp * sin(step * (n + 1) + shift), n row-major."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (amp * torch.sin(step * (n + 1) + shift)).float().reshape(shape)


def fill(case: str, modules: dict[str, nn.Module], shapes: dict[str, list[int]] | None = None) -> None:
    """Fill by the rule `param_fill`; `modules` by the official name without "kernel", "bias" or "scale"."""
    shapes = VECTORS[case]["params"] | (shapes or {})
    for i, name in enumerate(sorted(shapes)):
        path, leaf = name.rsplit("/", 1)
        if path not in modules:
            continue
        value = wave(*shapes[name], amp=0.3, step=0.37, shift=1.7 * i) + (leaf == "scale")
        if leaf == "kernel":
            order = {2: (1, 0), 3: (0, 2, 1), 4: (3, 2, 0, 1)}[value.ndim]
            value = value.permute(order)  # in, out -> out, in
        target = modules[path].get_parameter("bias" if leaf == "bias" else "weight")
        assert target.shape == value.shape, name
        target.data.copy_(value)


def test_norm_and_block_linear() -> None:
    expected = VECTORS["norm_blocklinear"]
    norm, block, layer = RMSNorm(8), BlockLinear(8, 12, 4), nn.LayerNorm(8, 1e-4)
    fill("norm_blocklinear", {"n": norm, "b": block})
    names = sorted(expected["params"])
    layer.weight.data = wave(8, amp=0.3, step=0.37, shift=1.7 * names.index("l/scale")) + 1
    layer.bias.data = wave(8, amp=0.3, step=0.37, shift=1.7 * names.index("l/shift"))
    x = wave(2, 8, step=0.5, shift=0.3)
    close(norm(x), expected["rms"])
    close(norm_silu(x, layer), nn.functional.silu(torch.tensor(expected["layer"])))
    close(block(x), expected["blocklinear"])


def test_image_encoder() -> None:
    encoder = cnn.ImageEncoder((3, 64, 64), 1, (2, 3, 4, 4))
    stages = [(f"enc/cnn{i}", encoder.convs[i]) for i in range(4)]
    fill("encoder_image", dict(stages + [(f"enc/cnn{i}norm", encoder.norms[i]) for i in range(4)]))
    y, x, c = torch.meshgrid(*(torch.arange(n) for n in (64, 64, 3)), indexing="ij")
    image = ((7 * y + 13 * x + 29 * c) % 256).float().permute(2, 0, 1)[None] / 255 - 0.5
    # Norms of nearly black pixels amplify rounding: the vector itself is 2e-4 from the same in float64.
    close(encoder(image), VECTORS["encoder_image"]["tokens"], 2e-4)


def test_image_decoder() -> None:
    expected = VECTORS["decoder_image"]
    decoder = cnn.ImageDecoder((3, 64, 64), 16, 12, 16, 2, (2, 3, 4, 4), 8)
    modules = {"dec/sp0": decoder.from_deter, "dec/sp1": decoder.from_stoch, "dec/sp2": decoder.to_map}
    modules |= {
        "dec/sp1norm": decoder.stoch_norm,
        "dec/spnorm": decoder.map_norm,
        "dec/imgout": decoder.image,
    }
    for i in range(3):
        modules |= {f"dec/conv{2 - i}": decoder.convs[i], f"dec/conv{2 - i}norm": decoder.norms[i]}
    fill("decoder_image", modules)
    deter = wave(1, 16, amp=0.8, step=0.7, shift=0.1)
    stoch = nn.functional.one_hot(torch.tensor([[0, 1, 2]]), 4).float().flatten(1)
    image = decoder.picture(decoder(deter, stoch))
    assert image.mean().item() == pytest.approx(expected["mean"], abs=1e-5)
    close(image[0].permute(1, 2, 0)[::16, ::16], expected["grid"], 5e-5)


def test_kl_and_where_its_gradients_stop() -> None:
    expected = VECTORS["kl_balance"]
    post = wave(2, 3, 4, amp=1.5, step=0.9, shift=0.2).requires_grad_()
    prior = wave(2, 3, 4, step=0.6, shift=1.1).requires_grad_()
    p, q = onehot.unimix(post, 0.01), onehot.unimix(prior, 0.01)
    close(p.log()[0, 0], expected["unimixed_post_logits_first"])
    close(onehot.kl(p, q), expected["kl_raw"])
    close(onehot.entropy(p), expected["post_entropy"])
    close(onehot.entropy(q), expected["prior_entropy"])
    dyn, rep = onehot.kl_balanced(p, q, 1.0)
    close(dyn, expected["dyn_free1"])
    close(rep, expected["rep_free1"])
    dyn, rep = onehot.kl_balanced(p, q, 0.5)
    loss = (dyn + 0.1 * rep).mean()
    close(loss, expected["loss_1dyn_0p1rep_free0p5"])
    found = torch.autograd.grad(loss, (post, prior))
    close(found[0], expected["grad_post"], 1e-6)
    close(found[1], expected["grad_prior"], 1e-6)


def rssm(action_dim: int = 3) -> BlockRSSM:
    model = BlockRSSM(
        deter_dim=16, stoch=3, classes=4, units=8, blocks=4, action_dim=action_dim, token_dim=5, unimix=0.01
    )
    prior = model.prior_net
    modules = {"in0": model.in_deter, "in0norm": model.deter_norm, "in1": model.in_stoch}
    modules |= {"in1norm": model.stoch_norm, "in2": model.in_action, "in2norm": model.action_norm}
    modules |= {"hid0": model.hidden, "hid0norm": model.hidden_norm, "gru": model.gates}
    modules = {f"dyn/dyn{name}": module for name, module in modules.items()}
    for i in range(2):
        modules |= {f"dyn/prior{i}": prior.linears[i], f"dyn/prior{i}norm": prior.norms[i]}
    modules |= {"dyn/priorlogit": prior.out, "dyn/obslogit": model.seen_logit}
    modules |= {"dyn/obs0": model.seen, "dyn/obs0norm": model.seen_norm}
    fill("rssm", modules, {"dyn/dynin2/kernel": [action_dim, 8]})
    return model


DETER = wave(2, 16, amp=0.8, step=0.7, shift=0.1)
STOCH = nn.functional.one_hot(torch.tensor([[0, 1, 2], [3, 3, 1]]), 4).float()


def test_core_prior_and_posterior() -> None:
    expected, model = VECTORS["rssm"], rssm()
    cell, action = model.cell(torch.float32), nn.functional.one_hot(torch.tensor([2, 0]), 3).float()
    h = model.core(cell, DETER, STOCH.flatten(1), model.push(cell, action))
    close(h, expected["core_deter"])
    prior = onehot.unimix(torch.tensor(expected["prior_logits"]), 0.01)
    close(model.prior(h, torch.float32), prior)
    # Row 1 is reset: h, z and the action are zeros before the step.
    first = torch.tensor([[False], [True]])
    tokens = wave(2, 5, step=0.6, shift=0.4)
    found = model.scan(
        cell,
        DETER,
        STOCH,
        tokens[:, None],
        (action * ~first)[:, None],
        first,
        torch.ones_like(first),
        torch.rand(2, 1, 3),
    )
    close(found.deter[:, 0], expected["observe_deter"])
    posterior = onehot.unimix(torch.tensor(expected["observe_post_logits"]), 0.01)
    close(found.probs[:, 0], posterior)


def test_continuous_actions_are_cut_to_minus_one_to_one() -> None:
    world = dreamerv3.DreamerV3Config(
        units=8, deter_dim=16, stoch=3, classes=4, blocks=4, compute_dtype="float32"
    ).build(Spaces({"vector": (5,)}, ActionCodec(2, (-1.0, -1.0), (1.0, 1.0))))
    world.dynamics = rssm(action_dim=2)
    with torch.no_grad():
        state = {"deter": DETER, "stoch": STOCH}
        found = world.step(state, torch.tensor([[0.5, -3.0], [2.0, 0.1]]), 0.0).state
    close(found["deter"], VECTORS["rssm_cont_action"]["core_deter"])


def test_continuation_head() -> None:
    expected, head = VECTORS["heads"], MLP(6, 4, 1, 1)
    modules = {"con/mlp/linear0": head.linears[0], "con/mlp/norm0": head.norms[0]}
    fill("heads", modules | {"con/head/logit": head.out})
    logit = head(wave(2, 6, step=0.4, shift=0.2))[:, 0]
    close(logit.sigmoid(), expected["con_prob"])
    target = torch.tensor([1 - 1 / 333, 0.0])
    loss = nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    close(loss, expected["con_loss"])


def test_vector_encoder() -> None:
    spaces = Spaces({"b": (), "a": (3,)}, ActionCodec(2))
    mlp = MLP(4, 4, 2)
    encoder, linears, norms = (
        ObsEncoder(Modalities(spaces, "DreamerV3"), None, mlp, 4),
        mlp.linears,
        mlp.norms,
    )
    modules = {f"enc/mlp{i}": linears[i] for i in range(2)} | {f"enc/mlp{i}norm": norms[i] for i in range(2)}
    fill("encoder_vector", modules)
    obs = {"a": torch.tensor([[1.0, -20.0, 0.3]]), "b": torch.tensor([5.0])}
    close(encoder(obs, torch.float32), VECTORS["encoder_vector"]["tokens"])


# Dynamics, decoder, encoder, reward, continuation of the published sizes (actor and critic come on top).
COUNTS = {
    "1m": (377_472, 80_595, 14_304, 57_663, 41_153),
    "12m": (5_982_720, 1_272_003, 220_416, 721_407, 656_129),
    "25m": (13_446_912, 2_857_635, 493_824, 1_573_503, 1_475_713),
    "50m": (23_892_992, 5_076_355, 876_032, 2_753_279, 2_622_977),
    "100m": (53_730_816, 11_413_059, 1_966_848, 6_095_871, 5_900_545),
    "200m": (95_496_192, 20_282_115, 3_492_864, 10_749_183, 10_488_833),
    "400m": (214_809_600, 45_617_283, 7_850_496, 23_987_967, 23_597_569),
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def build(size: str, spaces: Spaces) -> dreamerv3.DreamerV3:
    with torch.device("meta"):
        return dreamerv3.DreamerV3Config(size=size).build(spaces)


@pytest.mark.parametrize("size", dreamerv3.UNITS)
def test_published_parameter_counts(size: str) -> None:
    world = build(size, Spaces({"image": (3, 64, 64)}, ActionCodec(18)))
    parts = (world.dynamics, world.decoder, world.encoder, world.reward, world.cont)
    assert tuple(map(count, parts)) == COUNTS[size]
    assert count(world) == sum(COUNTS[size])


def test_published_parameter_counts_of_other_builds() -> None:
    actor_and_critic = {"200m, 18 actions": 12_607_506 + 12_850_431, "1m, walker": 50_316 + 66_111}
    atari = build("200m", Spaces({"image": (1, 96, 96)}, ActionCodec(18)))
    assert count(atari) + actor_and_critic["200m, 18 actions"] == 186_936_082
    walker = ActionCodec(6, (-1.0,) * 6, (1.0,) * 6)
    proprio = build("1m", Spaces({"orientations": (14,), "height": (1,), "velocity": (9,)}, walker))
    assert count(proprio) + actor_and_critic["1m, walker"] == 640_867
