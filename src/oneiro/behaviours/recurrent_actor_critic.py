"""DIAMOND's behaviour: a small CNN, an LSTM, and linear actor and critic on it, learned in short dreams.

Paper: Alonso et al. 2024 (arXiv 2405.12399), the same as IRIS's (arXiv 2209.00588). Official code: eloialonso/diamond.

    image --CNN--> flat --LSTM--> h --> logits of the action, value         (both linear, all-zero at first)

Learning: `burn_in` real frames are watched, then the world dreams `horizon` steps from the next one. With e = ended,
    R(t) = sign r(t+1) + discount (1 - e) [(1 - lam) V(t+1) + lam R(t+1)]
    loss = mean -ln pi(a) sg(R - V)  +  value_scale mean (V - sg R)^2  -  entropy_scale mean entropy (nats)
No normalisation, no target network. The world's graph is cut.

Deviations from the code: a dream that ends goes on from the start of another row of the batch (the code draws a new
one); dreams do not outlive an update (in the code one that began after an end does, and is then cut at its own
horizon); starts are as fresh as the batch (the code uses up a pool of 256 batches before it draws again).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from oneiro import noise, tree
from oneiro.behaviour import Behaviour
from oneiro.errors import OneiroError
from oneiro.nets.adagn_unet import conv3x3, group_norm, silu_of
from oneiro.nets.frame_denoiser import computing
from oneiro.nets.lstm_cell import lstm_cell
from oneiro.returns import lambda_return
from oneiro.runtime import compute_dtype, memory_format
from oneiro.spaces import Spaces
from oneiro.types import Decision, Losses, State, TimeStep
from oneiro.world import WorldModel


@dataclass(frozen=True, kw_only=True)
class RecurrentActorCriticConfig:
    """Sizes and losses; the defaults are DIAMOND's on Atari."""

    channels: tuple[int, ...] = (32, 32, 64, 64)  # widths of the CNN's stages; each halves the size
    hidden_dim: int = 512  # width of the LSTM
    burn_in: int = 3  # real frames watched before a dream begins
    horizon: int = 15  # dreamed steps of an update
    discount: float = 0.985  # gamma
    lam: float = 0.95  # lambda of the returns
    value_scale: float = 1.0  # weight of the value loss
    entropy_scale: float = 0.001  # weight of the entropy (nats)
    clip_rewards: bool = True  # learn from the sign of the reward only
    epsilon: float = 0.01  # exploring: this share of actions is uniform
    acting: Literal["sample", "mode"] = (
        "sample"  # without exploring: drawn from the policy (paper), or its mode
    )
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of convolutions; auto = as the device

    def __post_init__(self) -> None:
        if self.burn_in < 0 or self.horizon < 1 or min(*self.channels, self.hidden_dim) < 1:
            raise ValueError(
                f"burn_in {self.burn_in} must not be negative; horizon {self.horizon}, channels and hidden_dim at "
                "least 1"
            )
        for name in ("discount", "lam", "epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")

    def build(self, spaces: Spaces, feature_dim: int) -> "RecurrentActorCritic":
        """The behaviour for these spaces; it sees the image, so `feature_dim` does not matter."""
        return RecurrentActorCritic(self, spaces)


class ActorCriticNet(nn.Module):
    """Frames in 0..1 -> logits and value; the recurrent state is the caller's."""

    def __init__(self, config: RecurrentActorCriticConfig, spaces: Spaces) -> None:
        super().__init__()
        channels, height, width = spaces.obs["image"]
        layers: list[nn.Module] = [conv3x3(channels, config.channels[0])]
        for i, wide in enumerate(config.channels):
            layers += [_Residual(config.channels[max(0, i - 1)], wide), nn.MaxPool2d(2)]
            height, width = height // 2, width // 2
        if not height * width:
            raise OneiroError(
                f"an image of {spaces.obs['image']} is too small for {len(config.channels)} halvings; set fewer "
                "channels"
            )
        self.encoder = nn.Sequential(*layers)
        self.lstm = lstm_cell(config.channels[-1] * height * width, config.hidden_dim)
        self.critic = nn.Linear(config.hidden_dim, 1)
        self.actor = nn.Linear(config.hidden_dim, spaces.action.dim)
        for layer in (self.critic, self.actor):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.compute_dtype = compute_dtype(config.compute_dtype)

    def forward(self, image: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image [B, C, H, W] in 0..1, h and c [B, D] -> logits [B, A], value [B], h, c."""
        x = (image * 2 - 1).contiguous(memory_format=memory_format())
        with computing(x, self.compute_dtype):
            x = self.encoder(x)
        h, c = self.lstm(x.float().flatten(1), (h, c))
        return self.actor(h), self.critic(h)[:, 0], h, c


class _Residual(nn.Module):
    """skip(x) + conv(silu(norm(x)))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = group_norm(inputs)
        self.conv = conv3x3(inputs, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv(silu_of(self.norm, x))


class RecurrentActorCritic(Behaviour):
    """Memory: h and c [B, D]; key and t [B] int64, from which exploring and sampling draw (`oneiro.noise`)."""

    parts = ("net",)
    sees: Literal["feature", "image", "nothing"] = "image"

    def __init__(self, config: RecurrentActorCriticConfig, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.codec = config, spaces.action
        if not self.codec.is_discrete:
            raise OneiroError(
                "the recurrent actor-critic takes discrete actions only; choose an environment with Discrete or "
                "MultiDiscrete actions, or another behaviour"
            )
        if len(spaces.obs.get("image", ())) != 3:
            raise OneiroError("the recurrent actor-critic sees images; this environment has none")
        self.net = ActorCriticNet(config, spaces)

    def memory(self, n: int) -> State:
        """Blank; each row its own key."""
        h = torch.zeros(n, self.config.hidden_dim, device=self.net.critic.weight.device)
        key = torch.arange(n, device=h.device)
        return {"h": h, "c": h.clone(), "key": key, "t": torch.zeros_like(key)}

    def watch(self, world: WorldModel, state: State, memory: State) -> State:
        """The LSTM takes one look; nothing is drawn."""
        _, _, h, c = self.net(self.view(world, state), memory["h"], memory["c"])
        return {**memory, "h": h, "c": c}

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """Sampled from the policy; exploring, sometimes uniform. A function of image and memory, key included."""
        logits, value, h, c = self.net(self.view(world, state), memory["h"], memory["c"])
        groups = self.codec.groups
        u = noise.uniform(memory["key"], memory["t"], 1 + 2 * len(groups))
        if explore or self.config.acting == "sample":
            action = self._pick(logits, u[:, 1 : 1 + len(groups)])
        else:
            action = self.codec.best(logits)
        if explore and self.config.epsilon:
            uniform = self._pick(torch.zeros_like(logits), u[:, 1 + len(groups) :])
            action = torch.where(u[:, :1] < self.config.epsilon, uniform, action)
        memory = {"h": h, "c": c, "key": memory["key"], "t": memory["t"] + 1}
        return Decision(action, memory, {"logits": logits, "value": value})

    def value(self, world: WorldModel, state: State, memory: State) -> Tensor:
        """See `Behaviour.value`."""
        return self.net(self.view(world, state), memory["h"], memory["c"])[1]

    def losses(self, world: WorldModel, batch: TimeStep, trace: State | None, parts: Sequence[str]) -> Losses:
        """Dreams from segments [B, T] of real rows: the first T - 1 are watched (at most `burn_in`), then it acts."""
        config = self.config
        state, h, c = self._begin(world, batch)
        imagined = world.stepper()
        start = tree.clone({"state": state, "h": h, "c": c})
        logits, values, actions, rewards, conts = [], [], [], [], []
        for step in range(config.horizon):
            found, value, h, c = self.net(self.view(world, state), h, c)
            u = torch.rand(len(found), len(self.codec.groups), device=found.device)
            action = self._pick(found.detach(), u)
            with torch.no_grad():
                prediction = imagined(state, action, 1.0)
            nothing = torch.zeros_like(value)
            reward = nothing if prediction.reward is None else prediction.reward
            cont = nothing + 1 if prediction.cont is None else prediction.cont
            ended = torch.rand_like(cont) >= cont
            for kept, x in (
                (logits, found), (values, value), (actions, action), (rewards, reward), (conts, ~ended),
            ):  # fmt: skip
                kept.append(x)
            state = prediction.state
            if ended.any():
                again = tree.map(lambda x, by=step + 1: x.roll(by, 0), start)
                state = tree.where(ended, tree.clone(again["state"]), state)
                h = torch.where(ended[:, None], again["h"], h)
                c = torch.where(ended[:, None], again["c"], c)
        with torch.no_grad():
            _, last, _, _ = self.net(self.view(world, state), h, c)
        value = torch.stack(values, 1)
        alive = torch.stack(conts, 1)
        target = dream_return(
            torch.stack(rewards, 1), alive, torch.cat([value.detach(), last[:, None]], 1), config
        )
        return self._descend(torch.stack(logits, 1), torch.stack(actions, 1), value, target, alive)

    def _descend(
        self, logits: Tensor, action: Tensor, value: Tensor, target: Tensor, alive: Tensor
    ) -> Losses:
        """The three terms of one update, all [B, H]."""
        log_prob, entropy = torch.zeros_like(value), torch.zeros_like(value)
        for part, chosen in zip(
            logits.split(self.codec.groups, -1), action.split(self.codec.groups, -1), strict=True
        ):
            nats = part.log_softmax(-1)
            log_prob = log_prob + (nats * chosen).sum(-1)
            entropy = entropy - (nats.exp() * nats).sum(-1)
        policy = -(log_prob * (target - value.detach())).mean()
        critic = (value - target).square().mean()
        loss = policy + self.config.value_scale * critic - self.config.entropy_scale * entropy.mean()
        metrics = {
            "actor/loss": policy,
            "critic/loss": critic,
            "actor/entropy": entropy.mean(),
            "dream/return": target.mean(),
            "dream/ended": 1 - alive.float().mean(),
        }
        return Losses({"net": loss}, {name: x.detach() for name, x in metrics.items()})

    @torch.no_grad()
    def _begin(self, world: WorldModel, batch: TimeStep) -> tuple[State, Tensor, Tensor]:
        """Where dreams begin: the world's state after all rows, the LSTM's after those before the last."""
        n, rows = batch.is_first.shape
        state, memory = world.start(n), self.memory(n)
        for t in range(rows):
            row = batch.at(t)
            state = tree.where(row.mask, world.observe(tree.clone(state), row), state)
            if t + 1 < rows and t + 1 >= rows - self.config.burn_in:
                fresh = tree.where(row.is_first & row.mask, self.memory(n), memory)
                memory = tree.where(row.mask, self.watch(world, state, fresh), memory)
        forgets = (batch.is_first & batch.mask)[:, -1, None]
        h, c = (torch.where(forgets, 0.0, memory[name]) for name in ("h", "c"))  # also where it is NaN
        return state, h, c

    def _pick(self, logits: Tensor, u: Tensor) -> Tensor:
        """One-hot [B, A] from softmax(logits) by uniform numbers u [B, groups]: the inverse distribution."""
        index = []
        for part, number in zip(logits.split(self.codec.groups, -1), u.unbind(-1), strict=True):
            steps = part.softmax(-1).cumsum(-1)[:, :-1].contiguous()
            index.append(torch.searchsorted(steps, number[:, None].contiguous(), right=True)[:, 0])
        return self.codec.one_hot(torch.stack(index, -1))


def dream_return(reward: Tensor, alive: Tensor, value: Tensor, config: RecurrentActorCriticConfig) -> Tensor:
    """Targets [B, H] from rewards and `alive` (bool) of the H steps, and values [B, H + 1] of where they began."""
    reward = reward.sign() if config.clip_rewards else reward
    blank = torch.zeros_like(reward[:, :1])
    return lambda_return(
        torch.cat([blank, reward], 1),
        torch.cat([blank, alive.to(reward.dtype)], 1),
        value,
        discount=config.discount,
        lam=config.lam,
    )
