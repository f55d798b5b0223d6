"""A world of your own in one file, and the recipe that trains it: two recurrent cells on the toy game `dodge`.

It shows the form, not the art: trained for two minutes it draws little more than the average picture. Check it, then
train it:

    oneiro check docs/examples/tiny_world.py:TinyConfig
    oneiro train docs/examples/tiny_world.py:tiny_dodge

    observe   image --encoder--> e --.
              h, action -------------+--> posterior cell --> h'     what is known after a real row
    step      h, action -----------------> prior cell ------> h'     what it expects instead
                                                             '--> image, reward, terminated
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from oneiro import Losses, Prediction, Spaces, TimeStep, WorldModel, tree
from oneiro.agent import Starts
from oneiro.behaviours.explore import HeldRandom
from oneiro.behaviours.linear import LinearConfig
from oneiro.data.samplers import Windows
from oneiro.envs.toy import ToyConfig
from oneiro.evaluation.stage import Evaluate, Rival
from oneiro.spaces import to_float
from oneiro.training.cma_es import CMA
from oneiro.training.evolve import Evolve
from oneiro.training.fit import Fit, Group
from oneiro.training.optim import Adam
from oneiro.training.recipe import Recipe
from oneiro.training.schedule import Collect, Update
from oneiro.types import Obs, State


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """A deterministic recurrent world."""

    hidden_dim: int = 128  # width of h, everything it remembers
    embed_dim: int = 64  # width of e, an image in short

    def build(self, spaces: Spaces) -> "TinyWorld":
        """The world for these spaces."""
        return TinyWorld(self, spaces)


class TinyWorld(WorldModel):
    """State: h [B, D]."""

    def __init__(self, config: TinyConfig, spaces: Spaces) -> None:
        super().__init__()
        spaces.require_image(64, "TinyWorld")
        self.spaces, self.feature_dim = spaces, config.hidden_dim
        pixels, h, a = 3 * 16 * 16, config.hidden_dim, spaces.action.dim
        self.encoder = nn.Linear(pixels, config.embed_dim)
        nn.init.normal_(self.encoder.weight, std=0.5)  # only a few cells are lit
        self.posterior = nn.GRUCell(config.embed_dim + a, h)
        self.prior = nn.GRUCell(a, h)
        self.decoder = nn.Linear(h, pixels)
        self.heads = nn.Linear(h, 2)  # reward, logit of terminated

    def start(self, n: int) -> State:
        """Zeros."""
        return {"h": torch.zeros(n, self.feature_dim, device=self.device)}

    def observe(self, state: State, row: TimeStep) -> State:
        """Rows in which an episode begins forget h and the action first."""
        goes_on = (~row.is_first).float()[:, None]
        e = torch.relu(self.encoder(small(row).flatten(1)))
        return {"h": self.posterior(torch.cat([e, row.action * goes_on], -1), state["h"] * goes_on)}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """Nothing here is random, so the temperature changes nothing."""
        h = self.prior(action, state["h"])
        reward, end = self.heads(h).unbind(-1)
        return Prediction({"h": h}, reward, torch.sigmoid(-end))

    def feature(self, state: State) -> Tensor:
        """h."""
        return state["h"]

    def decode(self, state: State) -> Obs:
        """The picture of h, from 16 x 16 cells; h is [B, D] or [B, T, D]."""
        cells = torch.sigmoid(self.decoder(state["h"])).unflatten(-1, (3, 16, 16))
        image = interpolate(cells.reshape(-1, 3, 16, 16), scale_factor=4.0)
        return {"image": image.reshape(*cells.shape[:-2], 64, 64)}

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        """At every row: draw what was seen; from the row before: expect what was seen."""
        state = self.start(len(batch.mask)) if before is None else before
        known = torch.full_like(batch.mask[:, 0], before is not None)
        picture, ahead = [], []
        for t in range(batch.mask.shape[1]):
            row = batch.at(t)
            expected = self.prior(row.action, state["h"])
            state = tree.where(row.mask, self.observe(tree.clone(state), row), state)
            reward, end = self.heads(expected).unbind(-1)
            error = (expected - state["h"].detach()).square().sum(-1) + (reward - row.reward).square()
            error = error + cross_entropy(end, row.terminated.float(), reduction="none")
            drawn = cross_entropy(self.decoder(state["h"]), small(row).flatten(1), reduction="none")
            picture.append(drawn.sum(-1) * row.mask)
            ahead.append(error * (known & row.mask & ~row.is_first))
            known = known | row.mask
        count = batch.mask.sum().clamp(min=1)
        drawing, dynamics = torch.stack(picture).sum() / count, torch.stack(ahead).sum() / count
        metrics = {"world/picture": drawing.detach(), "world/dynamics": dynamics.detach()}
        return Losses({"all": drawing + dynamics}, metrics, after=tree.detach(state))


def small(row: TimeStep) -> Tensor:
    """The image [B, 3, 16, 16] in 0..1: the toys are drawn in cells of 4 x 4 pixels."""
    return avg_pool2d(to_float(row.obs["image"]), 4)


@dataclass(frozen=True, kw_only=True)
class TinySchedule:
    """Every number below is an option: `--schedule.fit.updates 500`."""

    collect: Collect
    fit: Update
    evolve: Evolve
    evaluate: Evaluate


def tiny_dodge(size: Literal["tiny"] = "tiny") -> Recipe:
    """A world of one's own on the toy game `dodge`, trained at random and dreamt in."""
    group = Group(address=("world",), optimizer=Adam(lr=2e-3, clip_norm=100.0))
    return Recipe(
        env=ToyConfig(id="dodge", num=8),
        world=TinyConfig(),
        behaviour=LinearConfig(),
        schedule=TinySchedule(
            collect=Collect(episodes=300, policy=HeldRandom(hold=(5,))),
            fit=Update(fit=Fit(groups=(group,)), batch=Windows(size=32, length=24), updates=500),
            evolve=Evolve(
                cma=CMA(population=16, sigma=0.3),
                generations=20,
                episodes=8,
                horizon=60,
                starts=Starts(context=3, count=200),
                seeds="independent",
                test_every=0,
            ),
            evaluate=Evaluate(episodes=50, rivals=(Rival(name="random", policy=HeldRandom(hold=(1,))),)),
        ),
    )
