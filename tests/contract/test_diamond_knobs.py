"""The number of denoising steps is a knob: turned, a world dreams as one that was configured so."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from oneiro import tree
from oneiro.nets.ddpm import DDPM
from oneiro.nets.edm import EDMSampler
from oneiro.spaces import ActionCodec, Spaces
from oneiro.worlds.diamond import DiamondConfig
from oneiro.worlds.diamond_csgo import FINE, FINE_UPSAMPLER, TwoStageConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig
from oneiro.worlds.diamond_reward import RewardConfig

SPACES = Spaces({"image": (3, 8, 12)}, ActionCodec(3))
SMALL = DenoiserConfig(context=2, channels=(8, 8), blocks=1, cond_dim=24)


def one_stage(objective: Any, steps: int, _: int = 0) -> DiamondConfig:
    denoiser = replace(SMALL, objective=objective, sampler=EDMSampler(steps=steps), ddpm=DDPM(steps=steps))
    reward = RewardConfig(channels=(8, 8), blocks=1, cond_dim=8, hidden_dim=8)
    return DiamondConfig(denoiser=denoiser, reward=reward, compute_dtype="float32")


def two_stages(steps: int, large: int) -> TwoStageConfig:
    return TwoStageConfig(
        factor=2,
        denoiser=replace(SMALL, sampler=EDMSampler(steps=steps)),
        upsampler=replace(SMALL, context=1, sampler=EDMSampler(steps=large)),
        compute_dtype="float32",
    )


def dreamed(world: Any, step: Any, draws: tuple[int, ...] = (0, 1)) -> torch.Tensor:
    """Two steps from blank, with the same noise every time."""
    torch.manual_seed(3)
    state = world.start(len(draws))
    for _ in range(2):
        state = step(tree.clone(state), torch.eye(3)[: len(draws)], 1.0).state
    return world.decode(state)["image"]


@pytest.mark.parametrize("objective", ["edm", "ddpm"])
def test_turned_and_configured_are_the_same(objective: str) -> None:
    two, five = (one_stage(objective, steps).build(SPACES).eval() for steps in (2, 5))
    for layer in two.parameters():  # what begins at zero would hide the difference
        torch.nn.init.normal_(layer, std=0.2)
    five.load_state_dict(two.state_dict())
    (knob,) = two.knobs()
    assert (knob.name, knob.value, knob.is_whole) == ("steps", 2, True)
    expected = dreamed(five, five.step)
    assert torch.equal(dreamed(two, two.turned({"steps": 5.0})), expected)
    assert torch.equal(dreamed(two, two.turned({})), dreamed(two, two.step))
    assert not torch.equal(dreamed(two, two.step), expected)


def test_both_stages_have_a_knob() -> None:
    spaces = Spaces({"image": (3, 16, 24)}, ActionCodec(3))
    few, more = two_stages(1, 1).build(spaces).eval(), two_stages(2, 3).build(spaces).eval()
    for layer in few.parameters():
        torch.nn.init.normal_(layer, std=0.2)
    more.load_state_dict(few.state_dict())
    assert [knob.name for knob in few.knobs()] == ["steps", "upsampler_steps", "fine"]
    expected = dreamed(more, more.step)
    assert torch.equal(dreamed(few, few.turned({"steps": 2.0, "upsampler_steps": 3.0})), expected)
    assert not torch.equal(dreamed(few, few.turned({"steps": 2.0})), expected)


def test_a_run_that_samples_fast_can_sample_as_the_code_does_for_looks() -> None:
    spaces = Spaces({"image": (3, 16, 24)}, ActionCodec(3))
    fast = two_stages(1, 1).build(spaces).eval()
    for layer in fast.parameters():
        torch.nn.init.normal_(layer, std=0.2)

    def configured(large: EDMSampler) -> torch.Tensor:
        config = two_stages(1, 1)
        fine = replace(
            config,
            denoiser=replace(config.denoiser, sampler=FINE),
            upsampler=replace(config.upsampler, sampler=large),
        ).build(spaces)
        fine.load_state_dict(fast.state_dict())
        return dreamed(fine, fine.eval().step)

    assert torch.equal(dreamed(fast, fast.turned({"fine": 1.0})), configured(FINE_UPSAMPLER))
    few = fast.turned({"fine": 1.0, "upsampler_steps": 2.0})
    assert torch.equal(dreamed(fast, few), configured(replace(FINE_UPSAMPLER, steps=2)))
    assert torch.equal(dreamed(fast, fast.turned({"fine": 0.0})), dreamed(fast, fast.step))
    assert not torch.equal(dreamed(fast, few), dreamed(fast, fast.step))


def test_another_objective_has_no_sampler_to_choose() -> None:
    config = two_stages(1, 1)
    config = replace(config, denoiser=replace(config.denoiser, objective="ddpm"))
    world = config.build(Spaces({"image": (3, 16, 24)}, ActionCodec(3)))
    assert [knob.name for knob in world.knobs()] == ["steps", "upsampler_steps"]
    with pytest.raises(ValueError, match=r"context_sigma 0\.1 has no effect with the objective ddpm"):
        replace(SMALL, objective="ddpm", tells_context_noise=True, context_sigma=0.1)
