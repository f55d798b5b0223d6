"""DIAMOND: a diffusion model draws the next frame from the last four and their actions.

Paper: Alonso et al. 2024, "Diffusion for World Modeling: Visual Details Matter in Atari" (arXiv 2405.12399).
Official code: eloialonso/diamond ("code" below).

    frames t-3 .. t, actions ..t+1 --denoiser, n steps--> frame t+1 --+--> the behaviour sees it
              frame t, action t+1, frame t+1 --reward model (LSTM)----'--> sign of the reward, end

There is no latent: the state is the last n frames, the actions between them, and the reward model's LSTM. That LSTM
begins at zero in the oldest of the n frames (a burn-in of n - 1 real transitions, as in the code), so `observe` only
pushes a frame; the burn-in is done by the first imagined step.

Deviations from the code:
1. Rows before an episode's start are blank (mid-grey, action 0) for the denoiser as in the code, but leave no trace in
   the reward model's LSTM; the code lets it look at grey frames.
2. The last frame of an episode is an ordinary row. The code keeps it apart, shows it to the reward model only where the
   episode terminated, and shows grey where it was truncated or still goes on, which counts in its loss.
3. A masked target is not replaced by the network's own frame: it stays blank.
Deviations of the code from the paper (offset noise, self-feeding, clipped sigmas, quantised frames) are defaults here;
`docs/systems/diamond.md` says which field gives the paper's form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from oneiro import tree
from oneiro.errors import OneiroError
from oneiro.nets.edm import from_levels
from oneiro.nets.frame_denoiser import FrameDenoiser
from oneiro.nets.prepared import Prepared, without_gradient
from oneiro.spaces import Spaces
from oneiro.types import Knob, Losses, Obs, Prediction, State, TimeStep
from oneiro.world import Step, WorldModel
from oneiro.worlds.diamond_denoiser import Denoiser, DenoiserConfig
from oneiro.worlds.diamond_reward import RewardConfig, RewardModel

POOLED = 8
"""Side to which frames are averaged for `feature`."""


@dataclass(frozen=True, kw_only=True)
class DiamondConfig:
    """Denoiser and reward model; the defaults are DIAMOND's on Atari (64 x 64 colour)."""

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    reward_on_dreams: float = (
        0.0  # share of segments in whose dreamed frames the reward model learns (paper: 0)
    )
    compute_dtype: Literal["auto", "float32", "bfloat16"] = (
        "auto"  # of convolutions and products; auto = as the device
    )

    def __post_init__(self) -> None:
        if not 0 <= self.reward_on_dreams <= 1:
            raise ValueError(f"reward_on_dreams is a share, 0 to 1, got {self.reward_on_dreams}")

    def build(self, spaces: Spaces) -> "Diamond":
        """The world for these spaces; OneiroError if there is no image."""
        return Diamond(self, spaces)


class Diamond(WorldModel):
    """State: frames uint8 [B, n, C, H, W], known bool [B, n], action [B, n-1, A] (between the frames), h and c of
    the reward model [B, D], burnt bool [B]: whether h and c have seen the frames.
    """

    parts = ("denoiser", "reward")

    def __init__(self, config: DiamondConfig, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        self.image = image_shape(spaces)
        self.context = self.window = config.denoiser.context
        dtype = config.compute_dtype
        self.denoiser = Denoiser(config.denoiser, self.image[0], spaces.action, dtype=dtype)
        self.reward = RewardModel(config.reward, self.image, spaces.action, dtype)
        self.feature_dim = pooled(torch.empty(1, self.window, *self.image, device="cpu")).shape[-1]

    def start(self, n: int) -> State:
        """Nothing known."""
        h, c = self.reward.start(n)
        return {
            **blank_frames(n, self.window, self.image, self.spaces.action.dim, self.device),
            "h": h,
            "c": c,
            "burnt": torch.zeros(n, dtype=torch.bool, device=self.device),
        }

    def observe(self, state: State, row: TimeStep) -> State:
        """Push the frame; h and c wait for the first imagined step."""
        pushed = push_row(state, row, row.obs["image"])
        return {**pushed, "h": state["h"], "c": state["c"], "burnt": torch.zeros_like(state["burnt"])}

    @torch.no_grad()
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """Denoise the next frame, then sample the sign of its reward (0: the mode). Gradients do not pass."""
        return self._imagine(state, action, temperature)

    def stepper(self) -> Step:
        """See `WorldModel.stepper`: weights of convolutions are cast and laid out once."""
        return self.turned({})

    def knobs(self) -> tuple[Knob, ...]:
        """See `WorldModel.knobs`: denoising steps."""
        return (self.config.denoiser.steps_knob(),)

    def turned(self, settings: Mapping[str, float]) -> Step:
        """See `WorldModel.turned`."""
        steps = int(settings["steps"]) if "steps" in settings else None
        nets = Prepared(self._without_gradient, self.parameters())

        @torch.no_grad()
        def step(state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
            return self._imagine(state, action, temperature, steps, *nets.get())

        return step

    def _without_gradient(self) -> tuple[FrameDenoiser, RewardModel]:
        net, reward = self.denoiser.net, self.reward
        return without_gradient(net, net.compute_dtype), without_gradient(reward, reward.compute_dtype)

    def _imagine(
        self,
        state: State,
        action: Tensor,
        temperature: float,
        steps: int | None = None,
        net: FrameDenoiser | None = None,
        reward: RewardModel | None = None,
    ) -> Prediction:
        reward = reward or self.reward
        frames = shown(state)
        actions = torch.cat([state["action"], action[:, None]], 1)
        frame = self.denoiser.sample(frames, actions, temperature, steps=steps, net=net)
        h, c = self._burn_in(state, frames, reward)
        one = torch.ones(len(frame), 1, dtype=torch.bool, device=frame.device)
        pair = torch.stack([frames[:, -1], from_levels(frame)], 1)
        logits, h, c = reward(pair, action[:, None], h, c, one, ~one)
        sign, end = logits[:, 0, :3], logits[:, 0, 3:]
        drawn = draw_class(sign, temperature)
        following = push(state, frame, action)
        return Prediction(
            {**following, "h": h, "c": c, "burnt": torch.ones_like(state["burnt"])},
            reward=drawn.float() - 1,
            cont=end.softmax(-1)[:, 0],
        )

    def feature(self, state: State) -> Tensor:
        """The frames, averaged to 8 x 8. DIAMOND has no latent: a behaviour should see the image."""
        return pooled(shown(state))

    def decode(self, state: State) -> Obs:
        """The current frame; mid-grey before the first."""
        return {"image": (shown(state)[..., -1, :, :, :] + 1) / 2}

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        """Part "denoiser": the last T - n frames of each segment. Part "reward": its T - 1 transitions.

        T = n + 1 is the paper's objective, n + 2 the code's (the second frame is predicted from the denoiser's own).
        """
        result = Losses({})
        if batch.action is None:
            raise ValueError("DIAMOND needs actions; this data has none")
        if "denoiser" in parts:
            rows = at_least(batch, self.window + 1)
            assert rows.action is not None
            loss = self.denoiser.loss(from_levels(rows.obs["image"]), rows.action, rows.mask, rows.is_first)
            result.by_part["denoiser"] = loss
            result.metrics["denoiser/loss"] = loss.detach()
        if "reward" in parts:
            if batch.reward is None:
                raise ValueError("the reward model needs rewards; fit the part denoiser only")
            found = self.reward.loss(
                from_levels(self._watched(batch)),
                batch.action,
                batch.reward,
                batch.terminated,
                batch.mask,
                batch.is_first,
            )
            result.by_part["reward"] = found["reward"] + found["end"]
            result.metrics |= {f"reward/{name}": value.detach() for name, value in found.items()}
        return result

    @torch.no_grad()
    def _watched(self, batch: TimeStep) -> Tensor:
        """The frames [B, T] in which the reward model learns: recorded ones, or of the first segments dreamed ones.

        Dreamed frames begin after n recorded ones and follow the recorded actions; the rewards stay those that came.
        What a dream cannot show (a distant enemy) is then worth what it was on average, and not what it looks like.
        """
        real = batch.obs["image"]
        count = round(len(real) * self.config.reward_on_dreams)
        if not count:
            return real
        net = without_gradient(self.denoiser.net, self.denoiser.net.compute_dtype)
        rows = tree.map(lambda x: x[:count], batch)
        state = blank_frames(count, self.window, self.image, self.spaces.action.dim, real.device)
        frames = []
        for t in range(real.shape[1]):
            row = rows.at(t)
            frame = row.obs["image"]
            if t >= self.window:
                assert row.action is not None
                actions = torch.cat([state["action"], row.action[:, None]], 1)
                own = self.denoiser.sample(shown(state), actions, net=net)
                given = (row.is_first | ~row.mask)[:, None, None, None]
                frame = torch.where(given, frame, own)
            state = tree.where(row.mask, push_row(state, row, frame), state)
            frames.append(frame)
        return torch.cat([torch.stack(frames, 1), real[count:]])

    def _burn_in(self, state: State, frames: Tensor, reward: RewardModel) -> tuple[Tensor, Tensor]:
        """h and c after the known transitions between the frames [B, n, C, H, W], where that is still to be done."""
        h, c, burnt = state["h"], state["c"], state["burnt"]
        if burnt.all():
            return h, c
        new_h, new_c = reward.start(len(h))
        known = state["known"]
        if self.window > 1 and known[:, :-1].any():
            live = known[:, :-1]
            _, new_h, new_c = reward(frames, state["action"], new_h, new_c, live, torch.zeros_like(live))
        return torch.where(burnt[:, None], h, new_h), torch.where(burnt[:, None], c, new_c)


def draw_class(logits: Tensor, temperature: float) -> Tensor:
    """logits [B, K] -> int64 [B], drawn from softmax(logits / temperature); 0: the most likely."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]


def image_shape(spaces: Spaces) -> tuple[int, ...]:
    """(C, H, W) of the image; OneiroError if there is none."""
    shape = spaces.obs.get("image", ())
    if len(shape) != 3:
        raise OneiroError(
            f"DIAMOND needs an image, it is given {', '.join(spaces.obs) or 'nothing'}; choose an environment "
            "that shows pictures"
        )
    return shape


def blank_frames(
    n: int, context: int, image: tuple[int, ...], action_dim: int, device: torch.device
) -> State:
    """The window of `n` rows that have seen nothing."""
    return {
        "frames": torch.zeros(n, context, *image, dtype=torch.uint8, device=device),
        "known": torch.zeros(n, context, dtype=torch.bool, device=device),
        "action": torch.zeros(n, context - 1, action_dim, device=device),
    }


def push_row(state: State, row: TimeStep, frame: Tensor) -> State:
    """A real row enters the window as `frame`; at an is_first row nothing before it is known."""
    if row.action is None:
        raise ValueError("DIAMOND needs actions; this data has none")
    going = ~row.is_first[:, None]
    known = state["known"] & going
    action = state["action"] * going[..., None]
    return push({**state, "known": known, "action": action}, frame, row.action * going)


def push(state: State, frame: Tensor, action: Tensor) -> State:
    """`frame` uint8 [B, C, H, W] enters the window by `action` [B, A], the oldest leaves."""
    known = torch.cat([state["known"][:, 1:], torch.ones_like(state["known"][:, :1])], 1)
    return {
        "frames": torch.cat([state["frames"][:, 1:], frame[:, None]], 1),
        "known": known,
        "action": torch.cat([state["action"], action[:, None]], 1)[:, 1:],
    }


def shown(state: State) -> Tensor:
    """The window [.., n, C, H, W] in -1..1; unknown frames are mid-grey (0)."""
    return from_levels(state["frames"]) * state["known"][..., None, None, None]


def pooled(frames: Tensor) -> Tensor:
    """[.., n, C, H, W] -> [.., n * C * 64] (fewer for smaller pictures)."""
    lead, (n, c, h, w) = frames.shape[:-4], frames.shape[-4:]
    small = F.adaptive_avg_pool2d(frames.reshape(-1, n * c, h, w), (min(POOLED, h), min(POOLED, w)))
    return small.reshape(*lead, -1)


def at_least(batch: TimeStep, rows: int) -> TimeStep:
    """Padded on the left (masked) to `rows` rows."""
    missing = rows - batch.is_first.shape[1]
    if missing <= 0:
        return batch
    return tree.map(
        lambda x: torch.cat([torch.zeros_like(x[:, :1]).expand(-1, missing, *x.shape[2:]), x], 1), batch
    )
