"""A learned world in miniature that uses every corner of the protocol, and an actor-critic-like behaviour.

Tests import it to have something that passes the suite; `broken_worlds.py` breaks it in one place at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.behaviour import Behaviour
from oneiro.dreaming import dream
from oneiro.spaces import ActionCodec, Spaces, to_float
from oneiro.types import Carry, Decision, Losses, Obs, Prediction, State, TimeStep
from oneiro.world import WorldModel

BOX = Spaces({"image": (3, 8, 8)}, ActionCodec(2, (-1.0, 0.0), (1.0, 1.0)))
DISCRETE = Spaces({"image": (3, 8, 8)}, ActionCodec(3))


@dataclass(frozen=True, kw_only=True)
class SmallConfig:
    z_dim: int = 4
    hidden_dim: int = 8

    def build(self, spaces: Spaces) -> "SmallWorld":
        return SmallWorld(self, spaces)


class SmallWorld(WorldModel):
    """Vision: a linear auto-encoder with noise. Memory: a GRU that predicts z, reward and terminated."""

    parts = ("vision", "memory")

    def __init__(self, config: SmallConfig, spaces: Spaces) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        pixels = int(torch.tensor(spaces.obs["image"]).prod())
        z, d = config.z_dim, config.hidden_dim
        self.feature_dim = z + d
        self.vision = nn.ModuleDict({"down": nn.Linear(pixels, z), "up": nn.Linear(z, pixels)})
        self.memory = nn.ModuleDict(
            {
                "cell": nn.GRUCell(z + spaces.action.dim, d),
                "head": nn.Linear(d, z + 2),
                "noise": nn.Linear(d, z),
            }
        )

    def start(self, n: int) -> State:
        h = torch.zeros(n, self.config.hidden_dim, device=self.device)
        mu = h.new_zeros(n, self.config.z_dim)
        return {"z": mu.clone(), "mu": mu, "h": h, "draw": torch.arange(n, device=self.device)}

    def observe(self, state: State, row: TimeStep) -> State:
        blank = self.start(tree.size(row.is_first))
        past = tree.where(row.is_first, {**blank, "draw": state["draw"]}, state)
        h = torch.where(row.is_first[:, None], past["h"], self.remember(past["z"], row.action, past["h"]))
        mu = self.encode(row.obs["image"])
        return {"z": mu + 0.1 * torch.randn_like(mu), "mu": mu, "h": h, "draw": state["draw"]}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        h = self.remember(state["z"], action, state["h"])
        out = self.memory["head"](h)
        noise = torch.randn(int(state["draw"].max()) + 1, self.config.z_dim, device=h.device)[state["draw"]]
        z = out[:, 2:] + temperature**0.5 * self.memory["noise"](h).sigmoid() * noise
        return Prediction({**state, "z": z, "mu": out[:, 2:], "h": h}, out[:, 0], torch.sigmoid(out[:, 1]))

    def feature(self, state: State) -> Tensor:
        return torch.cat([state["z"], state["h"]], -1)

    def decode(self, state: State) -> Obs:
        z = state["z"]
        return {"image": self.vision["up"](z).sigmoid().reshape(*z.shape[:-1], *self.spaces.obs["image"])}

    def memo(self, state: State) -> dict[str, Tensor]:
        return {"mu": state["mu"]}

    def recall(self, memo: dict[str, Tensor], n: int) -> State:
        return {**self.start(n), "z": memo["mu"].clone(), "mu": memo["mu"]}

    def encode(self, image: Tensor) -> Tensor:
        return self.vision["down"](to_float(image).flatten(-3))

    def remember(self, z: Tensor, action: Tensor | None, h: Tensor) -> Tensor:
        assert action is not None
        return self.memory["cell"](torch.cat([z, action], -1), h)

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        result = Losses({})
        if "vision" in parts:
            image = to_float(batch.obs["image"])
            mu = self.encode(image)
            drawn = self.decode({"z": mu + 0.1 * torch.randn_like(mu)})["image"]
            result.by_part["vision"] = masked_mean((drawn - image).pow(2).flatten(-3).sum(-1), batch.mask)
        if "memory" in parts:
            self.memory_loss(batch, before, result)
        result.metrics |= {f"{part}/loss": loss.detach() for part, loss in result.by_part.items()}
        return result

    def memory_loss(self, batch: TimeStep, before: State | None, result: Losses) -> None:
        assert batch.action is not None
        assert batch.reward is not None
        target = batch.memo["mu"]
        state = self.start(len(target)) if before is None else before
        known = torch.full_like(batch.mask[:, 0], before is not None)
        loss, count, trace = 0.0, 0.0, []
        for t in range(target.shape[1]):
            row = batch.at(t)
            ahead = self.remember(state["z"], row.action, state["h"])
            h = torch.where(row.is_first[:, None], torch.zeros_like(ahead), ahead)
            out, spread = self.memory["head"](h), self.memory["noise"](h).sigmoid()
            error = ((target[:, t] - out[:, 2:]) / spread).pow(2).mean(-1) + spread.log().mean(-1)
            error = error + (out[:, 0] - row.reward).pow(2)
            error = error + nn.functional.softplus(torch.where(row.terminated, out[:, 1], -out[:, 1]))
            valid = known & row.mask & ~row.is_first
            loss, count = loss + (error * valid).sum(), count + valid.sum()
            fresh = {"z": target[:, t], "mu": target[:, t], "h": h, "draw": state["draw"]}
            state = tree.where(row.mask, fresh, state)
            known = row.mask | known
            trace.append(state)
        result.by_part["memory"] = loss / count.clamp(min=1)
        result.trace, result.after = tree.stack(trace, 1), tree.detach(state)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum().clamp(min=1)


class SmallActor(Behaviour):
    """An actor with a memory and a critic, fitted in the dream; explores with a counter of its own."""

    parts = ("actor", "critic")

    def __init__(
        self, spaces: Spaces, feature_dim: int, sees: Literal["feature", "image", "nothing"] = "feature"
    ) -> None:
        super().__init__()
        self.sees, self.codec = sees, spaces.action
        width = feature_dim if sees == "feature" else 3 * 8 * 8
        self.actor = nn.Linear(width + 1, spaces.action.dim)
        self.critic = nn.Linear(width, 1)

    def memory(self, n: int) -> State:
        return {"seen": self.actor.weight.new_zeros(n)}

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        x = self.view(world, state)
        x = x.reshape(len(x), -1)
        raw = self.actor(torch.cat([x, memory["seen"][:, None]], -1))
        if explore:
            raw = raw + torch.randn_like(raw)
        return Decision(self.squash(raw), {"seen": memory["seen"] + 1}, {"raw": raw})

    def squash(self, raw: Tensor) -> Tensor:
        if self.codec.is_discrete:
            return nn.functional.one_hot(raw.argmax(-1), self.codec.dim).float()
        low, high = raw.new_tensor(self.codec.low), raw.new_tensor(self.codec.high)
        return low + (high - low) * raw.sigmoid()

    def losses(self, world: WorldModel, batch: TimeStep, trace: State | None, parts: Sequence[str]) -> Losses:
        assert trace is not None
        start = tree.map(lambda x: x.flatten(0, 1), trace)
        carry = Carry(state=tree.clone(start), memory=self.memory(tree.size(start)))
        dreamed = dream(world, self, carry, 3)
        value = self.critic(dreamed.view.flatten(2))[..., 0]
        terms = {
            "actor": (dreamed.aux["raw"].mean(-1) * dreamed.reward[:, 1:]).mean(),
            "critic": (value - dreamed.reward).pow(2).mean(),
        }
        return Losses({part: terms[part] for part in parts})
