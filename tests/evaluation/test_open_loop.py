import math

import numpy as np
import pytest
import torch
from ball_world import Ball, Right, episode

from oneiro.dreaming import imagine
from oneiro.errors import OneiroError, Undecodable
from oneiro.evaluation.open_loop import open_loop, psnr, ssim
from oneiro.evaluation.seeding import evaluating
from oneiro.types import Carry, Prediction


def test_an_exact_world_dreams_the_truth():
    result = open_loop(Ball(), [episode(i) for i in range(3)], context=2, horizon=10, samples=2)
    assert result.truth.shape == (3, 11, 3, 16, 16)
    assert result.dream.shape == (3, 2, 11, 3, 16, 16)
    assert result.error.max() == 0
    assert (result.psnr == 100).all()
    assert result.ssim == pytest.approx(1)
    assert (
        result.dream[0, 0] == episode(0).obs["image"][1:12]
    ).all()  # column 0 is the last row of the context
    assert result.held_psnr[:, 0] == pytest.approx(100)
    assert result.held_psnr[:, 5:].max() < 30


def test_a_dream_that_follows_other_actions_is_found_out():
    wrong = episode(0)
    wrong.action[5] = np.roll(wrong.action[5], 1)
    result = open_loop(Ball(), [wrong], context=2, horizon=8)
    assert (result.psnr[0, 0, :4] == 100).all()  # columns 0..3 are rows 1..4
    assert (result.psnr[0, 0, 4:] < 40).all()
    assert result.error[0, 0, 4].max() == 255


def test_samples_differ_at_high_temperature_and_the_seed_repeats_them():
    def run(seed):
        return open_loop(
            Ball(), [episode(0)], context=1, horizon=10, samples=6, temperature=1.8, seed=seed
        ).dream

    assert len({sample.tobytes() for sample in run(0)[0]}) > 1
    assert (run(0) == run(0)).all()
    assert not (run(0) == run(1)).all()


def test_curves_average_errors_not_decibels():
    result = open_loop(Ball(), [episode(0)], context=2, horizon=2, samples=2)
    result.psnr[0, :, 1] = [100, 20]
    result.ssim[0, :, 1] = [1, 0.5]
    curves = result.curves()
    assert curves["psnr"] == pytest.approx([100, 20 + 10 * math.log10(2), 100], abs=1e-4)
    assert curves["ssim"] == pytest.approx([1, 0.75, 1])
    assert curves["held_psnr"] == pytest.approx(result.held_psnr[0].tolist(), abs=1e-4)


def test_short_episodes_are_left_out_and_none_is_an_error():
    result = open_loop(Ball(), [episode(0, 4), episode(1)], context=2, horizon=8)
    assert len(result.truth) == 1
    with pytest.raises(OneiroError, match="needs episodes of 42 rows, the longest here has 13"):
        open_loop(Ball(), [episode(0)], context=2, horizon=40)


def test_a_world_that_draws_no_image_says_so():
    class Blind(Ball):
        def decode(self, state):
            return {}

    with pytest.raises(Undecodable, match="Blind decodes no image"):
        open_loop(Blind(), [episode(0)], context=1, horizon=3)


def test_psnr_and_ssim_against_known_values():
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.5
    assert psnr(truth + 0.1, truth).tolist() == pytest.approx([20, 20], abs=1e-4)
    flat = torch.full((1, 1, 16, 16), 0.5)
    # Without variance SSIM is the luminance term alone.
    expected = (2 * 0.5 * 0.7 + 1e-4) / (0.5**2 + 0.7**2 + 1e-4)
    assert ssim(flat, flat + 0.2).item() == pytest.approx(expected, abs=1e-4)
    noisy = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    assert ssim(truth, truth).tolist() == pytest.approx([1, 1])
    assert 0.3 < ssim(noisy, truth).mean() < 0.97
    assert ssim(torch.rand(5, 3, 8, 8), torch.rand(5, 3, 8, 8)).shape == (5,)


def test_evaluation_leaves_mode_and_random_numbers_as_they_were():
    world = Ball().train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with evaluating(world, seed=0):
        assert not world.training
        assert not torch.is_grad_enabled()
        torch.rand(5)
    assert world.training
    assert (torch.rand(3) == expected).all()
    assert math.isfinite(expected.sum())


class Knobbed(Ball):
    """Has a knob that holds the ball still."""

    def turned(self, settings):
        if not settings.get("still"):
            return self.stepper()

        def step(state, action, temperature=1.0):
            ahead = self.step(dict(state), action, temperature)
            return Prediction({**ahead.state, "x": state["x"]}, ahead.reward, ahead.cont)

        return step


def test_settings_turn_the_knobs_of_the_dream():
    true = open_loop(Knobbed(), [episode()], context=1, horizon=6)
    still = open_loop(Knobbed(), [episode()], context=1, horizon=6, settings={"still": 1.0})
    assert true.psnr.min() == pytest.approx(100)
    assert np.array_equal(still.dream[0, 0, 6, 0, 7], still.truth[0, 0, 0, 7])
    assert still.psnr.min() < 40
    carry = Carry(state=Knobbed().start(1), memory={})
    with pytest.raises(ValueError, match="no settings"):
        next(imagine(Knobbed(), Right(), carry, through=True, settings={"still": 1.0}))
