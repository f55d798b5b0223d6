"""DIAMOND's second model: the sign of the reward and the end of the episode, from two frames and an action.

    (x_t, x_t+1), action --residual blocks--> flat --LSTM--> 3 logits for the reward's sign, 2 for the end

See `worlds/diamond.py`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneiro.nets.adagn_unet import Downsample, ada_norms, conv3x3, res_blocks
from oneiro.nets.frame_denoiser import ActionEmbedding, computing
from oneiro.nets.lstm_cell import lstm_cell, run_lstm
from oneiro.runtime import compute_dtype, memory_format
from oneiro.spaces import ActionCodec
from oneiro.worlds.diamond_denoiser import require_stages


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Sizes; the defaults are DIAMOND's on Atari."""

    channels: tuple[int, ...] = (32, 32, 32, 32)  # width of each stage; the size halves between stages
    blocks: int = 2  # residual blocks of each stage
    attention: tuple[int, ...] = ()  # stages whose blocks attend, from 0 (two more blocks always do)
    cond_dim: int = 128  # width of the action's embedding
    hidden_dim: int = 512  # width of the LSTM

    def __post_init__(self) -> None:
        require_stages(self.channels, self.blocks, self.attention)
        if min(self.cond_dim, self.hidden_dim) < 1:
            raise ValueError("cond_dim and hidden_dim must be at least 1")


class PairEncoder(nn.Module):
    """Two frames [N, 2C, H, W] and an action's embedding [N, cond_dim] -> [N, width]."""

    def __init__(self, config: RewardConfig, image: tuple[int, ...]) -> None:
        super().__init__()
        channels = config.channels
        self.conv_in = conv3x3(2 * image[0], channels[0])
        n = config.blocks
        stages = [
            res_blocks(
                [channels[max(0, i - 1)]] + [c] * (n - 1), [c] * n, config.cond_dim, i in config.attention
            )
            for i, c in enumerate(channels)
        ]
        stages.append(res_blocks([channels[-1]] * 2, [channels[-1]] * 2, config.cond_dim, True))
        self.stages = nn.ModuleList(stages)
        shrink = [nn.Identity(), *(Downsample(c) for c in channels[:-1]), nn.Identity()]
        self.shrink = nn.ModuleList(shrink)
        share = 2 ** (len(channels) - 1)
        self.width = channels[-1] * -(-image[1] // share) * -(-image[2] // share)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """See the class."""
        modulation = iter([norm.linear(cond) for norm in ada_norms(*self.stages)])
        x = self.conv_in(x.contiguous(memory_format=memory_format()))
        for shrink, stage in zip(self.shrink, self.stages, strict=True):
            x = shrink(x)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, modulation)
        return x.flatten(1)


class RewardModel(nn.Module):
    """Logits of transitions; its recurrent state (h, c) [B, hidden_dim] is the caller's."""

    def __init__(
        self,
        config: RewardConfig,
        image: tuple[int, ...],
        codec: ActionCodec,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        super().__init__()
        self.compute_dtype, self.hidden_dim = compute_dtype(dtype), config.hidden_dim
        self.encoder = PairEncoder(config, image)
        self.action = ActionEmbedding(codec, config.cond_dim)
        self.lstm = lstm_cell(self.encoder.width, config.hidden_dim)
        self.head = nn.Sequential(
            nn.Linear(config.hidden_dim, config.hidden_dim),
            nn.SiLU(),
            nn.Linear(config.hidden_dim, 5, bias=False),
        )

    def forward(
        self, frames: Tensor, action: Tensor, h: Tensor, c: Tensor, live: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """K transitions: frames [B, K+1, C, H, W] in -1..1, action [B, K, A], where k leads to frame k+1.

        live, fresh [B, K]: see `run_lstm`. Returns logits [B, K, 5] (reward -1, 0, 1; goes on, ends), h, c.
        """
        b, k = action.shape[:2]
        pairs = torch.cat([frames[:, :-1], frames[:, 1:]], 2).flatten(0, 1)
        with computing(frames, self.compute_dtype):
            x = self.encoder(pairs, self.action(action).flatten(0, 1)).float()
        hidden, h, c = run_lstm(self.lstm, x.reshape(b, k, -1), h, c, live, fresh)
        return self.head(hidden), h, c

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """Zeros."""
        h = torch.zeros(n, self.hidden_dim, device=self.lstm.weight_hh.device)
        return h, h.clone()

    def loss(
        self, frames: Tensor, action: Tensor, reward: Tensor, ended: Tensor, mask: Tensor, first: Tensor
    ) -> dict[str, Tensor]:
        """Cross-entropies of sign(reward) and of the end, and how often the mode is right, over real transitions.

        Arrival rows [B, T]: frames in -1..1, reward and ended of the arrival, mask, first.
        """
        inside = mask[:, 1:] & mask[:, :-1] & ~first[:, 1:]
        frames = frames * mask[:, :, None, None, None]
        action = action[:, 1:] * inside[..., None]
        logits, _, _ = self(frames, action, *self.start(len(mask)), inside, first[:, :-1] | ~mask[:, :-1])
        weight = inside / inside.sum().clamp(min=1)
        sign = reward[:, 1:].nan_to_num().sign().long() + 1
        end = ended[:, 1:].long()
        found: dict[str, Tensor] = {}
        for name, part, target in (("reward", logits[..., :3], sign), ("end", logits[..., 3:], end)):
            nats = F.cross_entropy(part.transpose(1, 2), target, reduction="none")
            found[name] = (nats * weight).sum()
            found[f"{name}_right"] = ((part.argmax(-1) == target) * weight).sum()
        return found
