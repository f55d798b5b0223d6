"""World Models (V-M-C): a convolutional VAE sees, a mixture-density LSTM remembers and predicts.

Paper: Ha & Schmidhuber 2018, "Recurrent World Models Facilitate Policy Evolution" (arXiv 1803.10122).
Official code: hardmaru/WorldModelsExperiments ("code" below).

    image --V.encode--> z --.                         .--> z' (mixture of K Gaussians per dimension)
                 action ----+--> M: LSTM (h, c) --> h-+
         restart flag ------'                         '--> terminated
    feature = [z, h] or [z, c, h] --> C (behaviours/linear.py)

The parts are fitted one after the other: `vision` on single frames, then `memory` on sequences of stored
(mu, logvar), from which z is drawn anew for every batch.

Deviations from the code (each can be argued from the paper's text):
1. A restart inside a training sequence resets the LSTM to zero. The released code resets it to the state it
   was given at the start of the batch, which nobody intends.
2. The jump from the last frame of an episode to the first of the next is not a training target for z; in the
   code it is, because its streams forget where the jump is.
3. The frame at which the player dies is an ordinary row, so `terminated` is predicted for the step that ends
   the episode; the code predicts the restart flag of the next episode's first frame, the same event one row on.
4. No contrast stretch when frames are resized (an accident of an old image library).
Options that depart from the paper are fields of the config, with the paper's value as default.

Not implemented: layer norm and recurrent dropout in the LSTM (off in the code).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.errors import OneiroError
from oneiro.nets.conv_vae import ConvVAE, vae_loss
from oneiro.nets.lstm import LSTM, lstm_step
from oneiro.nets.mdn import SamplingHead, mdn_head_nll, mdn_head_sample, restart_loss
from oneiro.nets.prepared import Prepared
from oneiro.runtime import compute_dtype
from oneiro.spaces import ActionCodec, Spaces, to_float
from oneiro.types import Losses, Obs, Prediction, State, TimeStep
from oneiro.world import Step, WorldModel

Feature = Literal["z", "zh", "zch"]


@dataclass(frozen=True, kw_only=True)
class VMCConfig:
    """V and M of World Models; the defaults are the Doom model of the paper."""

    z_dim: int = 64  # N_z, latent numbers per frame (car racing: 32)
    channels: tuple[int, int, int, int] = (32, 64, 128, 256)  # widths of V's four convolutions
    hidden_dim: int = 512  # width of M's LSTM (car racing: 256)
    num_mixtures: int = 5  # K, Gaussians per latent dimension
    feature: Feature = "zch"  # what C reads: z, [z, h] (car racing) or [z, c, h] (Doom)
    action_input: Literal["raw", "thirds"] = "raw"  # the scalar itself, or one-hot of its third of [-1, 1]
    predicts_end: bool = True  # restart flag in, terminated out (Doom); off for car racing
    end_bias: float = 0.0  # initial logit of terminated; lets an untrained M live as long as the data
    end_weight: float = 10.0  # weight of terminated rows in the cross-entropy
    ending: Literal["threshold", "sample"] = "threshold"  # a dream ends when p > 0.5, or with probability p
    step_reward: float = 1.0  # reward of every imagined step, the last included; 0 = no reward
    kl_floor: float = 0.5  # V's KL is not pushed below this (nats per latent dimension)
    seeing: Literal["sample", "mean"] = "sample"  # z at acting time: drawn from V, or its mean
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; auto = as the device

    def __post_init__(self) -> None:
        if min(self.z_dim, self.hidden_dim, self.num_mixtures, *self.channels) < 1:
            raise ValueError("z_dim, hidden_dim, num_mixtures and channels must be at least 1")
        if self.num_mixtures > 128:
            raise ValueError(f"num_mixtures must be at most 128, got {self.num_mixtures}")
        if self.end_weight <= 0:
            raise ValueError(f"end_weight must be positive, got {self.end_weight}; 1 weighs all rows alike")

    def build(self, spaces: Spaces) -> "VMC":
        """The world for these spaces; OneiroError if it cannot take them."""
        return VMC(self, spaces)


class VMC(WorldModel):
    """State: z, mu, logvar [B, Z]; h, c [B, D]; is_first [B] float; draw [B] (see `WorldModel`)."""

    parts = ("vision", "memory")

    def __init__(self, config: VMCConfig, spaces: Spaces) -> None:
        super().__init__()
        spaces.require_image(64, "VMC")
        if config.action_input == "thirds" and (spaces.action.is_discrete or spaces.action.dim != 1):
            raise OneiroError(
                "action_input 'thirds' takes an action that is one number, as TakeCover's; here it is "
                f"{_called(spaces.action)}. Set --world.action-input raw"
            )
        self.config, self.spaces = config, spaces
        self.feature_dim = config.z_dim + (len(config.feature) - 1) * config.hidden_dim
        dtype = compute_dtype(config.compute_dtype)
        self.vision = ConvVAE(config.z_dim, config.channels, dtype)
        action_dim = 3 if config.action_input == "thirds" else spaces.action.dim
        self.memory = Memory(config, action_dim, dtype)

    def start(self, n: int) -> State:
        """Zeros; every row its own draw."""
        z = torch.zeros(n, self.config.z_dim, device=self.device)
        h = torch.zeros(n, self.config.hidden_dim, device=self.device)
        return {
            "z": z,
            "mu": z.clone(),
            "logvar": z.clone(),
            "h": h,
            "c": h.clone(),
            "is_first": torch.ones(n, device=self.device),
            "draw": torch.arange(n, device=self.device),
        }

    def observe(self, state: State, row: TimeStep) -> State:
        """M folds in the step that led here, V encodes what is seen now."""
        h, c = self._remember(state, row.action)
        h, c = (torch.where(row.is_first[:, None], 0.0, x) for x in (h, c))  # also where it is NaN
        mu, logvar = self._encode(row)
        z = mu if self.config.seeing == "mean" else mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        return {
            "z": z,
            "mu": mu,
            "logvar": logvar,
            "h": h,
            "c": c,
            "is_first": row.is_first.float(),
            "draw": state["draw"],
        }

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """Paper, "Virtual environment": tau divides the mixture's logits and multiplies the variance."""
        h, c = self._remember(state, action)
        return self._predict(state, h, c, temperature, self._sampling_head())

    def stepper(self) -> Step:
        """`step` with M's weights in the compute dtype and in the order in which they are used."""
        weights = Prepared(
            lambda: (self.memory.lstm.step_product(), self._sampling_head(SamplingHead.for_many)),
            self.memory.parameters(),
        )

        @torch.no_grad()
        def step(state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
            product, head = weights.get()
            led = self._action(action, state["is_first"], slice(None))
            both = torch.cat([state["z"], led, state["h"]], -1)
            return self._predict(state, *lstm_step(product, both, state["c"]), temperature, head)

        return step

    def _predict(
        self, state: State, h: Tensor, c: Tensor, temperature: float, head: SamplingHead
    ) -> Prediction:
        draw, z_dim = state["draw"], self.config.z_dim
        if temperature == 0:
            uniform = normal = torch.zeros_like(state["z"])  # not used
        else:
            draws = int(draw.max()) + 1
            uniform = torch.rand(draws, z_dim, device=h.device)[draw]
            normal = torch.randn(draws, z_dim, device=h.device)[draw]
        z, front = mdn_head_sample(h, head, temperature, uniform, normal)
        reward = torch.full_like(h[:, 0], self.config.step_reward) if self.config.step_reward else None
        following = {**state, "z": z, "h": h, "c": c, "is_first": torch.zeros_like(state["is_first"])}
        return Prediction(following, reward, self._cont(front[:, 0]) if self.config.predicts_end else None)

    def _sampling_head(self, form: Callable[..., SamplingHead] = SamplingHead.of) -> SamplingHead:
        layer, config = self.memory.head, self.config
        dtype = self.memory.lstm.compute_dtype
        return form(layer.weight, layer.bias, config.z_dim, config.num_mixtures, dtype)

    def feature(self, state: State) -> Tensor:
        """What C reads, in the order of the official controllers."""
        return torch.cat([state[name] for name in self.config.feature], -1)

    def decode(self, state: State) -> Obs:
        """V's picture of z."""
        z = state["z"]
        image = self.vision.decode(z.reshape(-1, z.shape[-1]))
        return {"image": image.reshape(*z.shape[:-1], *image.shape[1:])}

    def memo(self, state: State) -> dict[str, Tensor]:
        """V's posterior of the frame, from which M's training draws z anew."""
        return {"mu": state["mu"], "logvar": state["logvar"]}

    def recall(self, memo: dict[str, Tensor], n: int) -> State:
        """First rows from their stored posterior: z drawn, h = c = 0."""
        mu, logvar = memo["mu"], memo["logvar"]
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        return {**self.start(n), "z": z, "mu": mu, "logvar": logvar}

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        """Part "vision": any rows with an image. Part "memory": sequences with an image or stored memo."""
        result = Losses({})
        if "vision" in parts:
            self._vision_losses(batch, result)
        if "memory" in parts:
            self._memory_losses(batch, before, result)
        return result

    def _vision_losses(self, batch: TimeStep, result: Losses) -> None:
        image = batch.obs["image"][batch.mask]  # [N C H W]
        floor = self.config.kl_floor * self.config.z_dim
        reconstruction, kl = vae_loss(self.vision, to_float(image), floor)
        result.by_part["vision"] = reconstruction.mean() + kl.mean()
        result.metrics["vision/loss"] = result.by_part["vision"].detach()
        result.metrics["vision/reconstruction"] = reconstruction.detach().mean()
        result.metrics["vision/kl"] = kl.detach().mean()

    def _memory_losses(self, batch: TimeStep, before: State | None, result: Losses) -> None:
        """Negative log-density of the next z (nats per dimension) and cross-entropy of its terminated flag.

        row      before | 0   1   2  ..  T-1
        input      z    | z0  z1  z2 ..           with the action and flag that lead on
        target     z0   | z1  z2  z3 ..
        """
        mu, logvar = self._encode(batch)
        z = (mu + (0.5 * logvar).exp() * torch.randn_like(mu)).detach()  # [B T Z]
        first = batch.is_first.float()
        known = batch.mask
        if before is not None:
            z_in = torch.cat([before["z"][:, None], z[:, :-1]], 1)
            first_in = torch.cat([before["is_first"][:, None], first[:, :-1]], 1)
            known_in = torch.cat([torch.ones_like(known[:, :1]), known[:, :-1]], 1)
            target = slice(0, None)
            h, c = before["h"], before["c"]
        else:
            z_in, first_in, known_in, target = z[:, :-1], first[:, :-1], known[:, :-1], slice(1, None)
            h = z.new_zeros(len(z), self.config.hidden_dim)
            c = torch.zeros_like(h)
        x = torch.cat([z_in, self._action(batch.action, first_in, target)], -1)
        woken = torch.cat([torch.zeros_like(known_in[:, :1]), ~known_in[:, :-1]], 1)  # after left padding
        hidden, (h, c) = self.memory.lstm.sequence(x, h, c, first_in.bool() | woken)
        nll, front = mdn_head_nll(
            hidden,
            self.memory.head.weight,
            self.memory.head.bias,
            z[:, target],
            num_mixtures=self.config.num_mixtures,
            compute_dtype=self.memory.lstm.compute_dtype,
        )
        valid = (known[:, target] & known_in & ~batch.is_first[:, target]).float()
        weight = valid / valid.sum().clamp(min=1)
        nll = (nll.mean(-1) * weight).sum()
        loss = nll
        if self.config.predicts_end:
            ended = batch.terminated[:, target].float()
            ending = (restart_loss(front[..., 0], ended, self.config.end_weight) * weight).sum()
            loss = nll + ending
            result.metrics["memory/terminated"] = ending.detach()
        result.by_part["memory"] = loss
        result.metrics["memory/loss"], result.metrics["memory/nll"] = loss.detach(), nll.detach()
        result.after = tree.detach({"z": z[:, -1], "is_first": first[:, -1], "h": h, "c": c})

    def _encode(self, batch: TimeStep) -> tuple[Tensor, Tensor]:
        """(mu, logvar) [.., Z] of each row: stored ones if there are any, else V's, without gradient."""
        if "mu" in batch.memo:
            return batch.memo["mu"], batch.memo["logvar"]
        image = batch.obs["image"]
        with torch.no_grad():
            mu, logvar = self.vision.encode(to_float(image.reshape(-1, *image.shape[-3:])))
        lead = image.shape[:-3]
        return mu.reshape(*lead, -1), logvar.reshape(*lead, -1)

    def _remember(self, state: State, action: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.memory.lstm.step(self._input(state, action), state["h"], state["c"])

    def _input(self, state: State, action: Tensor | None) -> Tensor:
        return torch.cat([state["z"], self._action(action, state["is_first"], slice(None))], -1)

    def _action(self, action: Tensor | None, first: Tensor, rows: slice) -> Tensor:
        """[.., A (+1)]: the action in the form M takes, and the restart flag of the row it was taken at."""
        if action is None:
            raise ValueError("VMC needs actions; this data has none")
        a = action if action.ndim == 2 else action[:, rows]
        if self.config.action_input == "thirds":
            a = torch.cat([a < -1 / 3, a.abs() <= 1 / 3, a > 1 / 3], -1).float()
        return torch.cat([a, first[..., None]], -1) if self.config.predicts_end else a

    def _cont(self, logit: Tensor) -> Tensor:
        # Code: done = logit > 0. Sampling keeps dreamed and real lifetimes comparable (docs/systems/vmc.md).
        if self.config.ending == "threshold":
            return (logit <= 0).to(logit.dtype)
        return torch.sigmoid(-logit.float())


def _called(codec: ActionCodec) -> str:
    return f"one of {codec.groups} choices" if codec.is_discrete else f"{codec.dim} numbers"


class Memory(nn.Module):
    """M: one LSTM and a linear head; column 0 of the head is the logit of `terminated` if it is predicted."""

    def __init__(self, config: VMCConfig, action_dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        end = int(config.predicts_end)
        self.lstm = LSTM(config.z_dim + action_dim + end, config.hidden_dim, dtype)
        self.head = nn.Linear(config.hidden_dim, config.z_dim * 3 * config.num_mixtures + end)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if config.predicts_end:
            nn.init.constant_(self.head.bias[0], config.end_bias)
