"""Networks of DreamerV3's world against vectors made with the official code (float32)."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oneiro.nets import cnn, onehot
from oneiro.nets.layers import BlockLinear, RMSNorm

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dreamerv3_world.json").read_text())


def close(found: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32).reshape(found.shape)
    torch.testing.assert_close(found.detach().float(), expected, atol=tolerance, rtol=tolerance)


def wave(*shape: int, amp: float = 1.0, step: float, shift: float) -> Tensor:
    """amp * sin(step * (n + 1) + shift), n row-major."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (amp * torch.sin(step * (n + 1) + shift)).float().reshape(shape)


def fill(case: str, modules: dict[str, nn.Module]) -> None:
    """Fill by the rule `param_fill`; `modules` by the official name without "kernel", "bias" or "scale"."""
    shapes = VECTORS[case]["params"]
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
    norm, block = RMSNorm(8), BlockLinear(8, 12, 4)
    fill("norm_blocklinear", {"n": norm, "b": block})
    x = wave(2, 8, step=0.5, shift=0.3)
    close(norm(x), expected["rms"])
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
    image = cnn.unpack(decoder.packed(deter, stoch)).sigmoid()
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
