"""DIAMOND as one would first write it in PyTorch: what `oneiro bench diamond-* --against naive` compares with.

A script of its own: it imports nothing of oneiro and touches no setting, so it has PyTorch's default allocator and
layouts, float32, `nn.GroupNorm`, `F.scaled_dot_product_attention`, `nn.LSTMCell` and one call of everything at every
denoising step. Networks, losses and numbers of parameters are those of Alonso et al. 2024 with the self-fed second
frame of the released code. Run by plain.py.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AdaNorm(nn.Module):
    """Group norm, scaled and shifted by the conditioning vector."""

    def __init__(self, channels: int, cond: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(max(1, channels // 32), channels, affine=False)
        self.linear = nn.Linear(cond, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """[N, C, H, W] under [N, cond]."""
        scale, shift = self.linear(cond)[:, :, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class Attention(nn.Module):
    """Between pixels, heads of 8 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(max(1, channels // 32), channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        n, c, h, w = x.shape
        x = self.norm(x)
        q, k, v = self.qkv(x).reshape(n, 3, max(1, c // 8), -1, h * w).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(n, c, h, w))


class Block(nn.Module):
    """Residual: norm, SiLU, convolution, twice."""

    def __init__(self, a: int, b: int, cond: int, attends: bool = False) -> None:
        super().__init__()
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()
        self.norm1, self.norm2 = AdaNorm(a, cond), AdaNorm(b, cond)
        self.conv1, self.conv2 = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
        self.attention = Attention(b) if attends else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """[N, a, H, W] -> [N, b, H, W]."""
        y = self.conv1(F.silu(self.norm1(x, cond)))
        y = self.conv2(F.silu(self.norm2(y, cond)))
        return self.attention(self.skip(x) + y)


def stage(inputs: list[int], outputs: list[int], cond: int, attends: bool = False) -> nn.ModuleList:
    """Blocks of these widths."""
    return nn.ModuleList(Block(a, b, cond, attends) for a, b in zip(inputs, outputs, strict=True))


class UNet(nn.Module):
    """Stages of `blocks` residual blocks on the way down, one more on the way up."""

    def __init__(self, channels: list[int], blocks: int, cond: int) -> None:
        super().__init__()
        down, up, last = [], [], channels[-1]
        for before, width in zip([channels[0], *channels], channels, strict=False):
            down.append(stage([before] + [width] * (blocks - 1), [width] * blocks, cond))
            up.append(stage([2 * width] * blocks + [width + before], [width] * blocks + [before], cond))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up[::-1])
        self.mid = stage([last] * 2, [last] * 2, cond, True)
        self.shrink = nn.ModuleList(nn.Conv2d(c, c, 3, 2, 1) for c in channels[:-1])
        self.grow = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in channels[-2::-1])

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        kept = []
        for i, blocks in enumerate(self.down):
            x = self.shrink[i - 1](x) if i else x
            kept.append(x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, cond)
                kept.append(x)
        for block in self.mid:
            x = block(x, cond)
        for i, blocks in enumerate(self.up):
            x = self.grow[i - 1](F.interpolate(x, scale_factor=2.0)) if i else x
            for block in blocks:  # type: ignore[attr-defined]
                x = block(torch.cat([x, kept.pop()], 1), cond)
        return x


class Denoiser(nn.Module):
    """Past frames, actions and a noisy frame in; an estimate of the frame out."""

    frequency: Tensor

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        self.rounds = s["rounding"] == "round"
        self.n, cond, width, colours = s["context"], s["cond"], s["channels"][0], s["image"][0]
        self.register_buffer("frequency", torch.randn(1, cond // 2))
        self.action = nn.Embedding(s["actions"], cond // self.n)
        self.cond = nn.Sequential(nn.Linear(cond, cond), nn.SiLU(), nn.Linear(cond, cond))
        self.conv_in = nn.Conv2d((self.n + 1) * colours, width, 3, padding=1)
        self.unet = UNet(s["channels"], s["blocks"], cond)
        self.norm = nn.GroupNorm(max(1, width // 32), width)
        self.conv_out = nn.Conv2d(width, colours, 3, padding=1)

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_in, c_out, c_skip [N, 1, 1, 1] and c_noise [N] of EDM, with offset noise."""
        sigma = torch.sqrt(sigma**2 + 0.3**2)
        skip = 0.25 / (sigma**2 + 0.25)
        made = 1 / torch.sqrt(sigma**2 + 0.25), sigma * torch.sqrt(skip), skip
        c_in, c_out, c_skip = (c[:, None, None, None] for c in made)
        return c_in, c_out, c_skip, torch.log(sigma) / 4

    def estimate(self, noisy: Tensor, sigma: Tensor, past: Tensor, action: Tensor) -> Tensor:
        """F for a noisy frame [N, C, H, W], past frames [N, nC, H, W] and action numbers [N, n]."""
        c_in, _, _, c_noise = self.scales(sigma)
        angle = 2 * math.pi * c_noise[:, None] * self.frequency
        fourier = torch.cat([torch.cos(angle), torch.sin(angle)], -1)
        cond = self.cond(fourier + self.action(action).flatten(1))
        x = self.conv_in(torch.cat([past / 0.5, noisy * c_in], 1))
        return self.conv_out(F.silu(self.norm(self.unet(x, cond))))

    def clean(self, noisy: Tensor, sigma: Tensor, found: Tensor) -> Tensor:
        """The frame that F stands for, in 256 levels."""
        _, c_out, c_skip, _ = self.scales(sigma)
        frame = (c_skip * noisy + c_out * found).clamp(-1, 1)
        level = (frame + 1) / 2 * 255
        return (level.round() if self.rounds else level).byte().float() / 255 * 2 - 1

    def loss(self, frames: Tensor, action: Tensor) -> Tensor:
        """frames [N, T, C, H, W] in -1..1, action [N, T - 1]: those after the first n, self-fed."""
        own, total = list(frames.unbind(1)), torch.zeros(())
        for i in range(self.n, len(own)):
            past = torch.cat(own[i - self.n : i], 1)
            sigma = torch.exp(torch.randn(len(past)) * 1.2 - 0.4).clip(0.002, 20)
            noise = 0.3 * torch.randn(*own[i].shape[:2], 1, 1)
            noisy = own[i] + noise + sigma[:, None, None, None] * torch.randn_like(own[i])
            found = self.estimate(noisy, sigma, past, action[:, i - self.n : i])
            _, c_out, c_skip, _ = self.scales(sigma)
            total = total + F.mse_loss(found, (own[i] - c_skip * noisy) / c_out)
            own[i] = self.clean(noisy, sigma, found.detach())
        return total / (len(own) - self.n)

    def sample(self, past: Tensor, action: Tensor, sigmas: list[float]) -> Tensor:
        """The next frame [N, C, H, W] by Euler steps down `sigmas`."""
        x = torch.randn(len(past), self.conv_out.out_channels, *past.shape[-2:])
        for now, following in itertools.pairwise(sigmas):
            sigma = torch.full((len(past),), now)
            frame = self.clean(x, sigma, self.estimate(x, sigma, past, action))
            x = x + (x - frame) / now * (following - now)
        return x


class Judge(nn.Module):
    """Two frames and an action -> logits of the reward's sign and of the end."""

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        r, (colours, height, width) = s["reward"], s["image"]
        channels, cond, blocks, share = r["channels"], r["cond"], r["blocks"], 2 ** (len(r["channels"]) - 1)
        self.action = nn.Embedding(s["actions"], cond)
        self.conv_in = nn.Conv2d(2 * colours, channels[0], 3, padding=1)
        self.stages = nn.ModuleList(
            stage([before] + [c] * (blocks - 1), [c] * blocks, cond)
            for before, c in zip([channels[0], *channels], channels, strict=False)
        )
        self.mid = stage([channels[-1]] * 2, [channels[-1]] * 2, cond, True)
        self.shrink = nn.ModuleList(nn.Conv2d(c, c, 3, 2, 1) for c in channels[:-1])
        self.lstm = nn.LSTMCell(channels[-1] * (height // share) * (width // share), r["hidden"])
        self.head = nn.Sequential(
            nn.Linear(r["hidden"], r["hidden"]), nn.SiLU(), nn.Linear(r["hidden"], 5, bias=False)
        )

    def encode(self, pair: Tensor, action: Tensor) -> Tensor:
        """[N, 2C, H, W] and action numbers [N] -> [N, D]."""
        x, cond = self.conv_in(pair), self.action(action)
        for i, blocks in enumerate(self.stages):
            x = self.shrink[i - 1](x) if i else x
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, cond)
        for block in self.mid:
            x = block(x, cond)
        return x.flatten(1)

    def forward(self, frames: Tensor, action: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """frames [N, T + 1, C, H, W], action numbers [N, T] -> logits [N, T, 5], the LSTM's state."""
        pair = torch.cat([frames[:, :-1], frames[:, 1:]], 2).flatten(0, 1)
        x = self.encode(pair, action.flatten()).unflatten(0, action.shape)
        hidden = []
        for t in range(x.shape[1]):
            state = self.lstm(x[:, t], state)
            hidden.append(state[0])
        return self.head(torch.stack(hidden, 1)), state


class Residual(nn.Module):
    """Of the actor-critic: skip(x) + conv(silu(norm(x)))."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(max(1, a // 32), a), nn.Conv2d(a, b, 3, padding=1)
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, a, H, W] -> [N, b, H, W]."""
        return self.skip(x) + self.conv(F.silu(self.norm(x)))


class ActorCritic(nn.Module):
    """Frames -> logits and value."""

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        b, (colours, height, width) = s["behaviour"], s["image"]
        layers: list[nn.Module] = [nn.Conv2d(colours, b["channels"][0], 3, padding=1)]
        for before, c in zip([b["channels"][0], *b["channels"]], b["channels"], strict=False):
            layers += [Residual(before, c), nn.MaxPool2d(2)]
            height, width = height // 2, width // 2
        self.encoder = nn.Sequential(*layers, nn.Flatten())
        self.lstm = nn.LSTMCell(b["channels"][-1] * height * width, b["hidden"])
        self.critic, self.actor = nn.Linear(b["hidden"], 1), nn.Linear(b["hidden"], s["actions"])

    def forward(self, frame: Tensor, state: Any = None) -> tuple[Tensor, Tensor, Any]:
        """[N, C, H, W] in -1..1 -> logits [N, A], value [N], the LSTM's state."""
        state = self.lstm(self.encoder(frame), state)
        return self.actor(state[0]), self.critic(state[0])[:, 0], state


class Dreamer:
    """All three at work on `rows` dreams."""

    def __init__(self, s: dict[str, Any], rows: int) -> None:
        self.s, self.denoiser, self.judge, self.policy = s, Denoiser(s), Judge(s), ActorCritic(s)
        self.frames = frames(rows, s["context"], s)
        self.actions = torch.randint(s["actions"], (rows, s["context"]))

    @torch.no_grad()
    def settle(self) -> tuple[Tensor, Tensor, Any, Any]:
        """Where dreams begin: both LSTMs have seen the real frames."""
        _, judged = self.judge(self.frames, self.actions[:, 1:])
        state = None
        for t in range(self.s["context"] - 1):
            _, _, state = self.policy(self.frames[:, t], state)
        return self.frames, self.actions, judged, state

    @torch.no_grad()
    def step(self, seen: Tensor, actions: Tensor, action: Tensor, judged: Any) -> tuple:
        """The next frame, reward and end."""
        actions = torch.cat([actions[:, 1:], action[:, None]], 1)
        frame = self.denoiser.sample(seen.flatten(1, 2), actions, self.s["sigmas"])
        seen = torch.cat([seen, frame[:, None]], 1)
        logits, judged = self.judge(seen[:, -2:], action[:, None], judged)
        reward = torch.distributions.Categorical(logits=logits[:, 0, :3]).sample() - 1
        end = torch.distributions.Categorical(logits=logits[:, 0, 3:]).sample()
        return seen[:, 1:], actions, reward.float(), end.float(), judged


def frames(size: int, length: int, s: dict[str, Any]) -> Tensor:
    """[size, length, C, H, W] of noise in -1..1."""
    return torch.randint(0, 256, (size, length, *s["image"]), dtype=torch.uint8).float() / 255 * 2 - 1


def updater(model: nn.Module, loss: Callable[[], Tensor], clip: float, decay: float) -> Callable[[], None]:
    """A step of AdamW on the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=decay)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    return run


def denoiser_update(s: dict[str, Any], length: int) -> Callable[[], Any]:
    """On segments of n + 1 frames and the self-fed ones."""
    model, size = Denoiser(s), s["denoiser_batch"][0]
    data, action = frames(size, length, s), torch.randint(s["actions"], (size, length - 1))
    return updater(model, lambda: model.loss(data, action), 1.0, 0.01)


def reward_update(s: dict[str, Any]) -> Callable[[], Any]:
    """On whole segments."""
    model, (size, length) = Judge(s), s["reward_batch"]
    data, action = frames(size, length, s), torch.randint(s["actions"], (size, length - 1))
    sign, end = torch.randint(3, (size, length - 1)), torch.randint(2, (size, length - 1))

    def loss() -> Tensor:
        logits, _ = model(data, action)
        first = F.cross_entropy(logits[..., :3].flatten(0, 1), sign.flatten())
        return first + F.cross_entropy(logits[..., 3:].flatten(0, 1), end.flatten())

    return updater(model, loss, 100.0, 0.01)


def behaviour_update(s: dict[str, Any]) -> Callable[[], Any]:
    """A dream of `horizon` steps and a descent on it."""
    dreamer = Dreamer(s, s["behaviour_batch"])

    def loss() -> Tensor:
        seen, actions, judged, state = dreamer.settle()
        log_probs, entropies, values, rewards, ends = [], [], [], [], []
        for _ in range(s["horizon"]):
            logits, value, state = dreamer.policy(seen[:, -1], state)
            policy = torch.distributions.Categorical(logits=logits)
            action = policy.sample()
            seen, actions, reward, end, judged = dreamer.step(seen, actions, action, judged)
            for kept, x in ((log_probs, policy.log_prob(action)), (entropies, policy.entropy()),
                            (values, value), (rewards, reward), (ends, end)):  # fmt: skip
                kept.append(x)
        with torch.no_grad():
            _, last, _ = dreamer.policy(seen[:, -1], state)
        value, target = torch.stack(values, 1), [last]
        for t in reversed(range(s["horizon"])):
            following = values[t + 1].detach() if t + 1 < s["horizon"] else last
            target.append(rewards[t] + 0.985 * (1 - ends[t]) * (0.05 * following + 0.95 * target[-1]))
        goal = torch.stack(target[:0:-1], 1)
        actor = -(torch.stack(log_probs, 1) * (goal - value.detach())).mean()
        return actor + F.mse_loss(value, goal) - 0.001 * torch.stack(entropies, 1).mean()

    return updater(dreamer.policy, loss, 100.0, 0.0)


def dream(s: dict[str, Any], rows: int) -> Callable[[], Any]:
    """One dreamed step: policy, all denoising steps, reward and end."""
    dreamer = Dreamer(s, rows)
    seen, actions, judged, state = dreamer.settle()

    @torch.no_grad()
    def run() -> Tensor:
        nonlocal seen, actions, judged, state
        logits, _, state = dreamer.policy(seen[:, -1], state)
        action = torch.distributions.Categorical(logits=logits).sample()
        seen, actions, reward, _, judged = dreamer.step(seen, actions, action, judged)
        return reward

    return run


def play(s: dict[str, Any]) -> Callable[[], Any]:
    """One dreamed step under a given action, as a picture of 256 levels."""
    dreamer = Dreamer(s, 1)
    seen, actions, judged, _ = dreamer.settle()
    action = torch.zeros(1, dtype=torch.long)

    def run() -> Tensor:
        nonlocal seen, actions, judged
        seen, actions, _, _, judged = dreamer.step(seen, actions, action, judged)
        return ((seen[:, -1] + 1) / 2 * 255).byte()

    return run


WORK: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]] = {
    "denoiser update": lambda s: denoiser_update(s, s["denoiser_batch"][1]),
    "denoiser update, one frame": lambda s: denoiser_update(s, s["context"] + 1),
    "reward update": reward_update,
    "behaviour update": behaviour_update,
    "dream": lambda s: dream(s, s["rows"]),
    "play": play,
}
