"""DIAMOND in two stages, learned from recorded video with actions: nothing is played to train it."""

from dataclasses import dataclass, replace
from typing import Literal

from oneiro.behaviours.explore import HeldRandom
from oneiro.data import csgo
from oneiro.data.recent import RecentSegments
from oneiro.envs.recorded import RecordedConfig
from oneiro.nets.edm import EDMSampler
from oneiro.recipes import recipe
from oneiro.training.adamw import AdamW
from oneiro.training.fit import Fit, Group
from oneiro.training.importing import Import
from oneiro.training.recipe import DataConfig, Recipe
from oneiro.training.schedule import Update
from oneiro.worlds.diamond_csgo import TwoStageConfig
from oneiro.worlds.diamond_denoiser import DenoiserConfig

DOOM = (
    "none",
    "turn left",
    "turn right",
    "move forward",
    "move forward+turn left",
    "move forward+turn right",
)
"""Actions of the worked example, VizDoom's my_way_home."""


@dataclass(frozen=True, kw_only=True)
class VideoSchedule:
    """Read the videos; then the small picture, then the large one. The two networks know nothing of each other."""

    videos: Import
    dynamics: Update
    upsampler: Update


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is learned; the defaults are those of the code (600 epochs of 400 updates each)."""

    updates: int = 240_000  # of the network of the small picture
    upsampler_updates: int = 240_000  # of the network of the large picture
    size: int = 128  # segments in a batch; the code adds up 8 batches of 16
    upsampler_size: int = 32  # and 8 of 4
    pieces: int = 8  # a batch is gone through in so many
    self_fed: int = 4  # frames of a segment predicted from its own, small picture
    upsampler_self_fed: int = 1  # and large picture


def video_schedule(world: TwoStageConfig, budget: Budget, lr: float, warmup: int = 100) -> VideoSchedule:
    """Segments that fit the world, drawn alike from all videos."""

    def update(part: str, context: int, updates: int, size: int, self_fed: int) -> Update:
        optimizer = AdamW(lr=lr, warmup=warmup, clip_norm=10.0)
        return Update(
            fit=Fit(groups=(Group(address=(f"world.{part}",), optimizer=optimizer),), pieces=budget.pieces),
            batch=RecentSegments(size=size, length=context + 1 + self_fed, quarters=()),
            updates=updates,
        )

    return VideoSchedule(
        videos=Import(),
        dynamics=update("denoiser", world.denoiser.context, budget.updates, budget.size, budget.self_fed),
        upsampler=update(
            "upsampler",
            world.upsampler.context,
            budget.upsampler_updates,
            budget.upsampler_size,
            budget.upsampler_self_fed,
        ),
    )


@recipe
def diamond_video(size: Literal["csgo", "cpu", "smoke"] = "csgo") -> Recipe:
    """DIAMOND as a playable engine, learned from video with actions, `--env.videos FOLDER`.

    Published (Alonso et al. 2024, section 6): Counter-Strike from 87 h of video at 16 frames a second, 381 M weights,
    12 days on one RTX 4090, played at 10 Hz; no scores. Size cpu learns VizDoom at 72 x 96 on one core.
    """
    if size == "smoke":
        return _recipe(_doom(24, 32), _world(8, 1, factor=2), _smoke_budget(), 1e-3)
    if size == "cpu":
        budget = Budget(
            updates=2000,
            upsampler_updates=1000,
            size=16,
            upsampler_size=4,
            pieces=1,
            self_fed=1,
        )
        return _recipe(_doom(72, 96), _world(16, 1, factor=4), budget, 5e-4)
    names = csgo.NAMES
    recorded = RecordedConfig(height=150, width=280, fps=16.0, kind="switches", actions=names)
    return _recipe(recorded, TwoStageConfig(), Budget(), 1e-4)


def _recipe(recorded: RecordedConfig, world: TwoStageConfig, budget: Budget, lr: float) -> Recipe:
    return Recipe(
        env=recorded,
        world=world,
        behaviour=HeldRandom(hold=(8,)),  # nobody learned to act; it wanders
        schedule=video_schedule(world, budget, lr),
        data=DataConfig(ram=0.25 if recorded.height < 100 else 4.0),
    )


def _doom(height: int, width: int) -> RecordedConfig:
    return RecordedConfig(height=height, width=width, actions=DOOM)


def _world(channels: int, blocks: int, *, factor: int) -> TwoStageConfig:
    """Small networks of the same form; the sampler takes 3 steps for the small picture, 2 for the large one."""
    small = DenoiserConfig(
        channels=(2 * channels, 4 * channels, 4 * channels),
        blocks=blocks,
        cond_dim=8 * channels,
        offset_noise=0.1,
        law=TwoStageConfig().denoiser.law,
        sampler=EDMSampler(steps=3),
        tells_context_noise=True,
        noises_context=True,
        context_sigma=0.005,
        rounding="round",
    )
    large = replace(
        small,
        context=1,
        channels=(channels, 2 * channels, 2 * channels),
        blocks=1,
        sampler=EDMSampler(steps=2),
        noises_context=False,
        context_sigma=0.0,
    )
    return TwoStageConfig(factor=factor, denoiser=small, upsampler=large)


def _smoke_budget() -> Budget:
    return Budget(
        updates=3, upsampler_updates=3, size=2, upsampler_size=2, pieces=2, self_fed=1, upsampler_self_fed=1
    )
