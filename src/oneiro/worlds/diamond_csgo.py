"""DIAMOND in two stages: a small picture is dreamed, then drawn large. The Counter-Strike engine of the paper.

Paper: Alonso et al. 2024 (arXiv 2405.12399), section 6. Official code: branch `csgo` of eloialonso/diamond ("code").

    low frames t-3 .. t, actions ..t+1 --denoiser--> low frame t+1 --bicubic x 5--+
                                                            full frame t ---------+--upsampler--> full frame t+1

Two differences from `worlds/diamond.py` besides the second stage: the past frames get noise of their own, in training
and (a little) in sampling, and both networks are told how much. There is no reward and no end: it is an engine to play,
learned from recorded video with actions. Real frames are shrunk to the low size here; the code shrinks them beforehand.

Deviations: the bicubic picture is clamped to its range before it becomes uint8 (the code lets it wrap around).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from oneiro.errors import OneiroError
from oneiro.nets.edm import EDMSampler, NoiseLaw, from_levels, quantise
from oneiro.spaces import Spaces
from oneiro.types import Knob, Losses, Obs, Prediction, State, TimeStep
from oneiro.world import Step, WorldModel
from oneiro.worlds.diamond import at_least, blank_frames, image_shape, pooled, push, push_row, shown
from oneiro.worlds.diamond_denoiser import Denoiser, DenoiserConfig

FAST = EDMSampler(steps=1)
"""One Euler step: the code's default for both stages."""
FINE = EDMSampler(steps=3)
"""The code's better-looking choice for the first stage."""
FINE_UPSAMPLER = EDMSampler(
    steps=10, sigma_min=1.0, churn=10.0, churn_min=1.0, churn_max=5.0, churn_noise=0.9
)
"""And for the second."""
NO_OPTIONS: Mapping[str, Any] = {}


def _dynamics() -> DenoiserConfig:
    return DenoiserConfig(
        channels=(128, 256, 512, 1024),
        attention=(2, 3),
        cond_dim=2048,
        offset_noise=0.1,
        law=NoiseLaw(mean=-1.2),
        sampler=FAST,
        tells_context_noise=True,
        noises_context=True,
        context_sigma=0.005,
    )


def _upsampler() -> DenoiserConfig:
    return DenoiserConfig(
        context=1,
        channels=(64, 64, 128, 256),
        attention=(3,),
        cond_dim=2048,
        offset_noise=0.1,
        law=NoiseLaw(mean=-1.2),
        sampler=FAST,
        tells_context_noise=True,
    )


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig:
    """Both denoisers; the defaults are those of Counter-Strike (150 x 280 pictures, 30 x 56 dreamed)."""

    factor: int = 5  # how much smaller the dreamed picture is, along each side
    denoiser: DenoiserConfig = field(default_factory=_dynamics)  # of the small picture
    upsampler: DenoiserConfig = field(default_factory=_upsampler)  # of the large one
    compute_dtype: Literal["auto", "float32", "bfloat16"] = (
        "auto"  # of convolutions and products; auto = as the device
    )

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"factor must be at least 2, got {self.factor}; for one stage use DiamondConfig")

    def build(self, spaces: Spaces) -> "TwoStageDiamond":
        """The world for these spaces; OneiroError unless the image divides by `factor`."""
        return TwoStageDiamond(self, spaces)


class TwoStageDiamond(WorldModel):
    """State: frames uint8 [B, n, C, h, w] (small), known bool [B, n], action [B, n-1, A], full uint8
    [B, m, C, H, W] and full_known bool [B, m], the last m frames as they are seen.
    """

    parts = ("denoiser", "upsampler")

    def __init__(self, config: TwoStageConfig, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        self.image = image_shape(spaces)
        channels, height, width = self.image
        if height % config.factor or width % config.factor:
            raise OneiroError(
                f"an image of {height} x {width} cannot be made {config.factor} times smaller; resize it to "
                f"{-(-height // config.factor) * config.factor} x {-(-width // config.factor) * config.factor}"
            )
        self.small = (channels, height // config.factor, width // config.factor)
        self.window, self.full_window = config.denoiser.context, config.upsampler.context
        self.context = max(self.window, self.full_window)
        dtype = config.compute_dtype
        self.denoiser = Denoiser(config.denoiser, channels, spaces.action, dtype=dtype)
        self.upsampler = Denoiser(config.upsampler, channels, None, guide_channels=channels, dtype=dtype)
        self.feature_dim = pooled(torch.empty(1, self.window, *self.small, device="cpu")).shape[-1]

    def start(self, n: int) -> State:
        """Nothing known."""
        full = torch.zeros(n, self.full_window, *self.image, dtype=torch.uint8, device=self.device)
        known = torch.zeros(n, self.full_window, dtype=torch.bool, device=self.device)
        blank = blank_frames(n, self.window, self.small, self.spaces.action.dim, self.device)
        return {**blank, "full": full, "full_known": known}

    def observe(self, state: State, row: TimeStep) -> State:
        """Push the frame, and the same made small."""
        image = row.obs["image"]
        known = state["full_known"] & ~row.is_first[:, None]
        pushed = push_row(state, row, self.shrink(image))
        return {**pushed, **_push_full(state["full"], known, image)}

    @torch.no_grad()
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """The small frame, then the large one. No reward, no end; gradients do not pass."""
        return self._imagine(state, action, temperature)

    def knobs(self) -> tuple[Knob, ...]:
        """See `WorldModel.knobs`: denoising steps of both stages, and the code's better-looking way of sampling."""
        small, large = self.config.denoiser, self.config.upsampler
        steps = (
            small.steps_knob(about="denoising steps of the small frame"),
            large.steps_knob("upsampler_steps", "denoising steps of the large frame"),
        )
        if "ddpm" in (small.objective, large.objective):
            return steps
        about = f"1: the code's better-looking sampling, {FINE.steps} and {FINE_UPSAMPLER.steps} steps unless set here"
        return (*steps, Knob(name="fine", about=about, value=0, low=0, high=1, is_whole=True))

    def turned(self, settings: Mapping[str, float]) -> Step:
        """See `WorldModel.turned`."""
        is_fine = bool(settings.get("fine", 0))
        small: dict[str, Any] = {"sampler": FINE} if is_fine else {}
        large: dict[str, Any] = {"sampler": FINE_UPSAMPLER} if is_fine else {}
        for name, options in (("steps", small), ("upsampler_steps", large)):
            if name in settings:
                options["steps"] = int(settings[name])

        @torch.no_grad()
        def step(state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
            return self._imagine(state, action, temperature, small, large)

        return step

    def _imagine(
        self,
        state: State,
        action: Tensor,
        temperature: float,
        small_options: Mapping[str, Any] = NO_OPTIONS,
        large_options: Mapping[str, Any] = NO_OPTIONS,
    ) -> Prediction:
        """`small_options` and `large_options` go to `Denoiser.sample` of the two stages."""
        actions = torch.cat([state["action"], action[:, None]], 1)
        small = self.denoiser.sample(shown(state), actions, temperature, **small_options)
        past = from_levels(state["full"]) * state["full_known"][..., None, None, None]
        guide = self.enlarge(from_levels(small))
        large = self.upsampler.sample(past, None, temperature, guide, **large_options)
        pushed = push(state, small, action)
        return Prediction({**pushed, **_push_full(state["full"], state["full_known"], large)})

    def feature(self, state: State) -> Tensor:
        """The small frames, averaged to 8 x 8."""
        return pooled(shown(state))

    def decode(self, state: State) -> Obs:
        """The current large frame; mid-grey before the first."""
        known = state["full_known"][..., -1, None, None, None]
        return {"image": (from_levels(state["full"][..., -1, :, :, :]) * known + 1) / 2}

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        """Part "denoiser": the last T - n small frames of each segment. "upsampler": the last T - m large ones.

        Code: T = 9 for the first (5 frames, 4 of them after its own), T = 3 for the second.
        """
        if batch.action is None:
            raise ValueError("DIAMOND needs actions; this data has none")
        result = Losses({})
        for part in parts:
            denoiser: Denoiser = getattr(self, part)
            rows = at_least(batch, denoiser.config.context + 1)
            frames = rows.obs["image"]
            small = from_levels(self.shrink(frames))
            if part == "denoiser":
                loss = denoiser.loss(small, rows.action, rows.mask, rows.is_first)
            else:
                guide = self.enlarge(small) * rows.mask[..., None, None, None]
                loss = denoiser.loss(from_levels(frames), None, rows.mask, rows.is_first, guide)
            result.by_part[part] = loss
            result.metrics[f"{part}/loss"] = loss.detach()
        return result

    def shrink(self, image: Tensor) -> Tensor:
        """uint8 [.., C, H, W] -> uint8 [.., C, h, w]: bicubic, antialiased."""
        flat = from_levels(image.reshape(-1, *image.shape[-3:]))
        small = F.interpolate(flat, size=self.small[1:], mode="bicubic", antialias=True)
        levels = quantise(small, self.config.denoiser.rounding)
        return levels.reshape(*image.shape[:-3], *self.small)

    def enlarge(self, small: Tensor) -> Tensor:
        """Float [.., C, h, w] -> [.., C, H, W]: bicubic, the upsampler's guide."""
        flat = small.reshape(-1, *self.small)
        large = F.interpolate(flat, scale_factor=float(self.config.factor), mode="bicubic")
        return large.reshape(*small.shape[:-3], *self.image)


def _push_full(full: Tensor, known: Tensor, frame: Tensor) -> State:
    return {
        "full": torch.cat([full[:, 1:], frame[:, None]], 1),
        "full_known": torch.cat([known[:, 1:], torch.ones_like(known[:, :1])], 1),
    }
