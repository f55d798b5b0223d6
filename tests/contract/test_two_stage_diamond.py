"""Two-stage DIAMOND at a tiny size keeps the contract and draws what its two stages are given."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from oneiro import tree
from oneiro.errors import OneiroError
from oneiro.nets.edm import EDMSampler, NoiseLaw, from_levels
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import check_world, random_rows, require
from oneiro.worlds.diamond_csgo import FINE_UPSAMPLER, TwoStageConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig

SPACES = Spaces({"image": (3, 8, 12)}, ActionCodec(6, (0.0,) * 6, (1.0,) * 6))
SMALL = DenoiserConfig(
    context=3,
    channels=(8, 8),
    blocks=1,
    attention=(1,),
    cond_dim=24,
    tells_context_noise=True,
    sampler=EDMSampler(steps=1),
)
TINY = TwoStageConfig(
    factor=2,
    denoiser=replace(SMALL, noises_context=True, context_sigma=0.005),
    upsampler=replace(SMALL, context=1, sampler=replace(FINE_UPSAMPLER, steps=2)),
    compute_dtype="float32",
)


def test_it_conforms() -> None:
    require(check_world(TINY.build(SPACES)))


def test_real_frames_are_shrunk_and_enlarged() -> None:
    world = TINY.build(SPACES)
    flat = torch.full((2, 3, 8, 12), 90, dtype=torch.uint8)
    small = world.shrink(flat)
    assert small.shape == (2, 3, 4, 6)
    assert (small.int() - 90).abs().max() <= 1  # truncated
    large = world.enlarge(small.float() / 127.5 - 1)
    assert (large - (90 / 127.5 - 1)).abs().max() < 0.01


def test_the_second_stage_is_guided_by_the_first() -> None:
    """Another small frame, another large one, with the same noise and the same past."""
    world = TINY.build(SPACES).eval()
    for parameter in world.parameters():  # the networks begin at zero
        torch.nn.init.normal_(parameter, std=0.1)
    batch = random_rows(SPACES)(2, 3, 0)
    state = world.absorb(world.start(2), batch)
    found = []
    for level in (0, 255):
        world.denoiser.sample = lambda *_, level=level, **__: torch.full(
            (2, 3, 4, 6), level, dtype=torch.uint8
        )  # type: ignore[method-assign]
        torch.manual_seed(0)
        found.append(world.step(tree.clone(state), batch.action[:, 0]).state)  # type: ignore[index]
    assert (found[0]["full"].int() - found[1]["full"].int()).abs().float().mean() > 1
    assert (world.decode(found[1])["image"] * 255).round().equal(found[1]["full"][:, -1].float())


def test_noise_on_past_frames_accumulates() -> None:
    """It is drawn anew for every step, on top of that of the steps before."""
    config = replace(
        SMALL, noises_context=True, context_sigma=0.5, sampler=EDMSampler(steps=3), offset_noise=0.1
    )
    world = replace(TINY, denoiser=config).build(SPACES).eval()
    seen: list[torch.Tensor] = []
    look = world.denoiser.net.look
    world.denoiser.net.look = lambda context: (seen.append(context), look(context))[1]  # type: ignore
    world.denoiser.sample(torch.zeros(64, 3, 3, 4, 6), torch.zeros(64, 3, 6))
    spread = torch.stack([x.std() * config.sigma_data for x in seen])
    expected = 0.5 * torch.arange(1, 4).sqrt()
    torch.testing.assert_close(spread, expected, atol=0.02, rtol=0.02)


def test_an_image_that_does_not_divide_is_refused() -> None:
    with pytest.raises(OneiroError, match="resize it to 9 x 12"):
        replace(TINY, factor=3).build(SPACES)


def test_what_the_upsampler_is_trained_on() -> None:
    """For each target the clean frame before it, or the network's own, and the same frame drawn small and enlarged."""
    config = replace(TINY, upsampler=replace(TINY.upsampler, context=2))
    world = config.build(SPACES)
    batch = random_rows(SPACES)(2, 4, 0)
    seen: list[torch.Tensor] = []
    look = world.upsampler.net.look
    world.upsampler.net.look = lambda context: (seen.append(context), look(context))[1]  # type: ignore
    world.losses(batch, ("upsampler",))
    frames = from_levels(batch.obs["image"])
    guide = world.enlarge(from_levels(world.shrink(batch.obs["image"])))
    assert len(seen) == 2
    for t, context in zip((2, 3), seen, strict=True):
        past, guided = (context * config.upsampler.sigma_data).split((6, 3), 1)
        torch.testing.assert_close(guided, guide[:, t])
        torch.testing.assert_close(past[:, :3], frames[:, t - 2])
        assert torch.allclose(past[:, 3:], frames[:, t - 1]) == (t == 2)  # then it is self-fed


def test_noise_on_past_frames_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offset noise of each channel, sigma of each row from the law, and its logarithm / 4 is told."""
    config = replace(SMALL, noises_context=True, offset_noise=0.1, law=NoiseLaw(mean=-1.2))
    denoiser = replace(TINY, denoiser=config).build(SPACES).denoiser
    context, drawn = torch.rand(2, 9, 4, 6), denoiser.draw(torch.empty(2, 9, 4, 6))
    monkeypatch.setattr(denoiser, "draw", lambda _: drawn)
    torch.manual_seed(5)
    found, told = denoiser._noised_context(context)
    torch.manual_seed(5)
    sigma = (torch.randn(2) * 1.2 - 1.2).exp()
    noise = 0.1 * drawn.offset + sigma[:, None, None, None] * drawn.noise
    torch.testing.assert_close(found, context + noise)
    torch.testing.assert_close(told, sigma.log() / 4)
    plain = replace(TINY, denoiser=SMALL).build(SPACES).denoiser
    assert plain._noised_context(context)[0] is context


def test_the_noisy_past_is_what_the_network_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    world = TINY.build(SPACES)
    denoiser, seen = world.denoiser, {}
    monkeypatch.setattr(denoiser, "_noised_context", lambda past: (past + 3, torch.full((2,), 7.0)))
    for name in ("look", "condition"):
        own = getattr(denoiser.net, name)

        def spy(*given: torch.Tensor, name: str = name, own: Callable = own) -> object:
            seen[name] = given
            return own(*given)

        monkeypatch.setattr(denoiser.net, name, spy)
    batch = random_rows(SPACES)(2, 4, 0)
    world.losses(batch, ("denoiser",))
    past = from_levels(world.shrink(batch.obs["image"][:, :3])).flatten(1, 2)
    torch.testing.assert_close(seen["look"][0] * SMALL.sigma_data, past + 3)
    assert seen["condition"][2].tolist() == [7.0, 7.0]
