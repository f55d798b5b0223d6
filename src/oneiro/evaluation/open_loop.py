"""How long a dream stays true: absorb real rows, then go on with the recorded actions only, and compare pictures.

    real     row 0 .. context-1 | context .. context+H-1      truth
    world    absorb             | step, step, ..              dream (K samples)
    column                    0 | 1 .. H

Column 0 is the world's picture of the last row it saw: what is lost there is lost by the encoder, not by time.
The baseline is persistence: that last real frame, held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oneiro import tree
from oneiro.behaviour import OpenLoop
from oneiro.data.episodes import Episode
from oneiro.dreaming import imagine
from oneiro.errors import OneiroError, Undecodable
from oneiro.evaluation.seeding import evaluating, renumber
from oneiro.runtime import wide_device
from oneiro.spaces import to_float, to_uint8
from oneiro.types import Carry, State, TimeStep
from oneiro.world import WorldModel

FLOOR = 1e-10
"""Mean squared error below this counts as this, so that PSNR is at most 100 dB and never infinite."""


SSIM_PICTURES = 128
"""Compared at once: about 100 MB for pictures of 3 x 64 x 64."""


@dataclass(frozen=True, kw_only=True)
class OpenLoopResult:
    """N episodes, K dreamed samples of each, columns 0..H (see the module)."""

    truth: np.ndarray
    """uint8 [N, H+1, C, H, W]."""
    dream: np.ndarray
    """uint8 [N, K, H+1, C, H, W]."""
    psnr: np.ndarray
    """[N, K, H+1] dB, larger is better."""
    ssim: np.ndarray
    """[N, K, H+1], 1 is identical."""
    held_psnr: np.ndarray
    """[N, H+1] dB of the baseline; its column 0 is the cap of 100 dB."""

    @property
    def error(self) -> np.ndarray:
        """uint8 like `dream`: absolute difference from the truth."""
        return np.abs(self.dream.astype(np.int16) - self.truth[:, None]).astype(np.uint8)

    def curves(self) -> dict[str, list[float]]:
        """Over episodes and samples, per column, as JSON: "psnr", "ssim", "held_psnr".

        PSNR is that of the mean squared error: the mean of decibels would be ruled by the few frames on which
        nothing moves and the error is zero.
        """
        return {
            "psnr": _of_mean_error(self.psnr.reshape(-1, self.psnr.shape[-1])),
            "ssim": self.ssim.mean((0, 1)).tolist(),
            "held_psnr": _of_mean_error(self.held_psnr),
        }


def _of_mean_error(psnr: np.ndarray) -> list[float]:
    """[M, H+1] dB -> [H+1] dB."""
    return (-10 * np.log10((10 ** (-psnr.astype(np.float64) / 10)).mean(0))).tolist()


def open_loop(
    world: WorldModel,
    episodes: Sequence[Episode],
    *,
    context: int,
    horizon: int,
    first: int = 0,
    samples: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    settings: Mapping[str, float] | None = None,
) -> OpenLoopResult:
    """Compare dream and truth on rows `first` .. `first + context + horizon` of each episode long enough.

    `settings`: knobs of the world at other values, such as {"steps": 1.0} for DIAMOND's denoising steps.

    Raises OneiroError if no episode is long enough, Undecodable if the world cannot draw.
    """
    wanted = first + context + horizon
    chosen = [episode for episode in episodes if len(episode) >= wanted]
    if not chosen:
        longest = max((len(episode) for episode in episodes), default=0)
        raise OneiroError(
            f"an open-loop dream needs episodes of {wanted} rows, the longest here has {longest}; "
            "lower the horizon or the context"
        )
    batch = tree.stack([rows(e, first, wanted, world.device) for e in chosen])
    with evaluating(world, seed=seed):
        seen = tree.map(lambda x: x[:, :context], batch)
        state = world.absorb(world.start(len(chosen)), seen)
        plan = batch.action[:, context:]  # type: ignore[index]
        many = renumber(tree.repeat(state, samples))
        pictures = _dream(world, many, plan.repeat_interleave(samples, 0), temperature, settings)
    dream = pictures.unflatten(0, (len(chosen), samples))  # [N K H+1 C H W]
    real = batch.obs["image"][:, context - 1 :]
    truth = to_float(real)
    held = truth[:, :1].expand_as(truth)
    return OpenLoopResult(
        truth=real.cpu().numpy(),
        dream=to_uint8(dream).cpu().numpy(),
        psnr=psnr(dream, truth[:, None]).cpu().numpy(),
        ssim=ssim(dream, truth[:, None].expand_as(dream)).cpu().numpy(),
        held_psnr=psnr(held, truth).cpu().numpy(),
    )


def rows(episode: Episode, start: int, stop: int, device: torch.device | str = "cpu") -> TimeStep:
    """Rows of one episode as a TimeStep [T]; stored memos are left out, so that the world sees pictures."""
    part = slice(start, stop)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array[part])).to(device)

    return TimeStep(
        obs={name: tensor(array) for name, array in episode.obs.items()},
        action=tensor(episode.action),
        reward=tensor(episode.reward),
        is_first=tensor(episode.is_first),
        terminated=tensor(episode.terminated),
        mask=torch.ones(len(episode.reward[part]), dtype=torch.bool, device=device),
    )


def picture(world: WorldModel, state: State) -> Tensor:
    """[B, C, H, W] in 0..1: the world's image of a state; Undecodable with a remedy if there is none."""
    image = world.decode(state).get("image")
    if image is None:
        raise Undecodable(
            f"{type(world).__name__} decodes no image, so there is nothing to film; "
            "its scores can still be compared with oneiro evaluate"
        )
    return image.clamp(0, 1)


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of floats in 0..1: [.., C, H, W] -> [..] dB."""
    mse = (image - truth).pow(2).mean((-3, -2, -1)).clamp(min=FLOOR)
    return -10 * torch.log10(mse)


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of floats in 0..1 (Wang et al. 2004): [.., C, H, W] -> [..].

    Gaussian window of 11 pixels and sigma 1.5 inside the image, K1 0.01, K2 0.03, mean over channels.
    Pictures of less than 11 pixels take the largest odd window that fits. In float64 (variances of flat regions
    are differences of nearly equal numbers), a few pictures at a time.
    """
    pairs = zip(*(x.reshape(-1, *x.shape[-3:]).split(SSIM_PICTURES) for x in (image, truth)), strict=True)
    home = wide_device(image.device)
    parts = [_ssim(*(x.to(home, torch.float64) for x in pair)) for pair in pairs]
    return torch.cat(parts).to(image.device, torch.float32).reshape(image.shape[:-3])


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """[M, C, H, W] -> [M]."""
    high, wide = x.shape[-2:]
    width = min(11, high - 1 + high % 2, wide - 1 + wide % 2)
    rows, columns = _window(high, width).to(x), _window(wide, width).to(x)

    def blur(image: Tensor) -> Tensor:
        return rows @ image @ columns.mT

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    score = (
        (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    )
    return score.mean((-3, -2, -1))


def _window(size: int, width: int) -> Tensor:
    """[size - width + 1, size] float64: row i is the Gaussian window that begins at pixel i."""
    at = torch.arange(width, dtype=torch.float64) - width // 2
    weight = torch.exp(-(at**2) / (2 * 1.5**2))
    band = torch.zeros(size - width + 1, size, dtype=torch.float64)
    for i in range(len(band)):
        band[i, i : i + width] = weight / weight.sum()
    return band


def _dream(
    world: WorldModel, state: State, plan: Tensor, temperature: float, settings: Mapping[str, float] | None
) -> Tensor:
    """Pictures [N, H+1, C, H, W] of a dream that follows `plan` [N, H, A]."""
    behaviour = OpenLoop(plan)
    pictures = [picture(world, state)]
    carry = Carry(state=state, memory=behaviour.memory(len(plan)))
    steps = imagine(world, behaviour, carry, temperature=temperature, settings=settings)
    for _ in range(plan.shape[1]):
        _, _, carry = next(steps)
        pictures.append(picture(world, carry.state))
    return torch.stack(pictures, 1)
