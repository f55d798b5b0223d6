"""DreamerV3 as one would first write it in PyTorch: what `oneiro bench dreamerv3-* --against naive` compares with.

A script of its own: it imports nothing of oneiro and touches no setting, so it has PyTorch's default allocator and
layouts, float32, `nn.Conv2d`, `nn.MaxPool2d`, `nn.Upsample`, `nn.RMSNorm`, `torch.distributions`, a Python loop over
the steps and one over the tensors in the optimizer. The networks, losses and numbers of parameters are those of
Hafner et al. 2025; as is usual, heads and decoder run once over all steps, and dreams carry no graph. Run by
plain.py.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, OneHotCategoricalStraightThrough
from torch.nn import functional as F

Distribution.set_default_validate_args(False)


class ChannelNorm(nn.Module):
    """RMSNorm over the channels of [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(channels, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        """Channels last and back."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Blocks(nn.Module):
    """Linear layers side by side."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.weight = nn.Parameter(torch.randn(blocks, inputs // blocks, outputs // blocks) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs] -> [N, outputs]."""
        x = x.reshape(len(x), self.blocks, -1)
        return torch.einsum("ngi,gio->ngo", x, self.weight).reshape(len(x), -1) + self.bias


def layer(inputs: int, units: int) -> list[nn.Module]:
    """Linear, norm, SiLU."""
    return [nn.Linear(inputs, units), nn.RMSNorm(units, eps=1e-4), nn.SiLU()]


def mlp(inputs: int, units: int, layers: int, out: int | None = None, zero: bool = False) -> nn.Sequential:
    """`layers` hidden layers and, with `out`, an output layer (of zeros)."""
    found = [m for i in range(layers) for m in layer(units if i else inputs, units)]
    if out is not None:
        found.append(nn.Linear(units, out))
        for parameter in found[-1].parameters() if zero else ():
            nn.init.zeros_(parameter)
    return nn.Sequential(*found)


class RSSM(nn.Module):
    """Block GRU and categorical latents with 1 % uniform."""

    def __init__(self, s: dict[str, Any], token_dim: int, action_dim: int) -> None:
        super().__init__()
        units, deter, self.stoch, self.classes = s["units"], s["deter"], s["stoch"], s["classes"]
        self.blocks, z = s["blocks"], s["stoch"] * s["classes"]
        self.in_deter, self.in_stoch = nn.Sequential(*layer(deter, units)), nn.Sequential(*layer(z, units))
        self.in_action = nn.Sequential(*layer(action_dim, units))
        self.hidden = Blocks(deter + self.blocks * 3 * units, deter, self.blocks)
        self.norm = nn.RMSNorm(deter, eps=1e-4)
        self.gates = Blocks(deter, 3 * deter, self.blocks)
        self.prior, self.posterior = mlp(deter, units, 2, z), mlp(deter + token_dim, units, 1, z)

    def core(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """The next deterministic state."""
        n, g = len(deter), self.blocks
        x = torch.cat([self.in_deter(deter), self.in_stoch(stoch), self.in_action(action)], -1)
        x = torch.cat([deter.reshape(n, g, -1), x.unsqueeze(1).expand(-1, g, -1)], -1).reshape(n, -1)
        x = F.silu(self.norm(self.hidden(x)))
        reset, cand, update = self.gates(x).reshape(n, g, -1).chunk(3, -1)
        reset, cand, update = (y.reshape(n, -1) for y in (reset, cand, update))
        update = torch.sigmoid(update - 1)
        return update * torch.tanh(torch.sigmoid(reset) * cand) + (1 - update) * deter

    def dist(self, logits: Tensor) -> OneHotCategoricalStraightThrough:
        """Of flat logits."""
        probs = 0.99 * F.softmax(logits.unflatten(-1, (self.stoch, self.classes)), -1) + 0.01 / self.classes
        return OneHotCategoricalStraightThrough(logits=probs.log())


class Encoder(nn.Module):
    """Picture and numbers -> tokens."""

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        self.cnn, self.mlp, self.out = None, None, 0
        if s["image"]:
            widths = [s["image"][0], *(s["depth"] * m for m in (2, 3, 4, 4))]
            layers: list[nn.Module] = []
            for a, b in itertools.pairwise(widths):
                layers += [nn.Conv2d(a, b, 5, padding=2), nn.MaxPool2d(2), ChannelNorm(b), nn.SiLU()]
            self.cnn = nn.Sequential(*layers, nn.Flatten())
            self.out += widths[-1] * (s["image"][1] // 16) * (s["image"][2] // 16)
        if s["vector"]:
            self.mlp = mlp(s["vector"], s["units"], 3)
            self.out += s["units"]

    def forward(self, image: Any, vector: Any) -> Tensor:
        """uint8 [N, C, H, W], [N, D] -> [N, out]."""
        tokens = [] if self.cnn is None else [self.cnn(image.float() / 255 - 0.5)]
        return torch.cat(tokens if self.mlp is None else [*tokens, self.mlp(symlog(vector))], -1)


class Decoder(nn.Module):
    """State -> picture and numbers."""

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        units, z = s["units"], s["stoch"] * s["classes"]
        self.blocks, self.cnn, self.mlp = s["blocks"], None, None
        if s["image"]:
            widths = [s["depth"] * m for m in (2, 3, 4, 4)]
            self.map = (s["image"][1] // 16, s["image"][2] // 16)
            pixels = self.map[0] * self.map[1] * widths[-1]
            self.deter = Blocks(s["deter"], pixels, self.blocks)
            self.stoch = nn.Sequential(*layer(z, 2 * units), nn.Linear(2 * units, pixels))
            self.norm = nn.Sequential(ChannelNorm(widths[-1]), nn.SiLU())
            layers: list[nn.Module] = []
            for a, b in zip(widths[::-1], widths[-2::-1], strict=False):
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 5, padding=2)]
                layers += [ChannelNorm(b), nn.SiLU()]
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(widths[0], s["image"][0], 5, padding=2)]
            self.cnn = nn.Sequential(*layers, nn.Sigmoid())
        if s["vector"]:
            self.mlp = mlp(z + s["deter"], units, 3, s["vector"])

    def error(self, deter: Tensor, stoch: Tensor, image: Any, vector: Any) -> Tensor:
        """[N]: squared errors, summed."""
        total = deter.new_zeros(len(deter))
        if self.cnn is not None:
            h, w = self.map
            a = self.deter(deter).reshape(len(deter), self.blocks, h, w, -1)
            a = a.permute(0, 1, 4, 2, 3).flatten(1, 2)
            b = self.stoch(stoch).reshape(len(deter), h, w, -1).permute(0, 3, 1, 2)
            drawn = self.cnn(self.norm(a + b))
            total = total + ((drawn - image.float() / 255) ** 2).sum((1, 2, 3))
        if self.mlp is not None:
            total = total + ((self.mlp(torch.cat([stoch, deter], -1)) - symlog(vector)) ** 2).sum(-1)
        return total


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


class TwoHot:
    """Scalars as a categorical over symexp-spaced bins."""

    def __init__(self, bins: int) -> None:
        half = torch.linspace(-20, 0, bins // 2 + 1)
        half = torch.sign(half) * torch.expm1(half.abs())
        self.bins = torch.cat([half, -half[:-1].flip(0)])

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value, summed from both ends so that it is 0 for equal logits."""
        p, n = F.softmax(logits, -1), len(self.bins) // 2
        left = (p[..., :n] * self.bins[:n]).flip(-1)
        return p[..., n] * self.bins[n] + (left + p[..., n + 1 :] * self.bins[n + 1 :]).sum(-1)

    def loss(self, logits: Tensor, x: Tensor) -> Tensor:
        """Cross entropy to the two nearest bins."""
        n = len(self.bins)
        below = ((self.bins <= x[..., None]).sum(-1) - 1).clamp(0, n - 1)
        above = (n - (self.bins > x[..., None]).sum(-1)).clamp(0, n - 1)
        equal = below == above
        near, far = ((self.bins[i] - x).abs() for i in (below, above))
        weight = torch.where(equal, 0.5, near / (near + far))[..., None]
        target = F.one_hot(below, n) * (1 - weight) + F.one_hot(above, n) * weight
        return -(target * F.log_softmax(logits, -1)).sum(-1)


class Dreamer(nn.Module):
    """World, actor and critic."""

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        self.s, units = s, s["units"]
        size = s["deter"] + s["stoch"] * s["classes"]
        self.encoder, self.decoder = Encoder(s), Decoder(s)
        self.rssm = RSSM(s, self.encoder.out, s["action"])
        self.reward, self.cont = mlp(size, units, 1, s["bins"], zero=True), mlp(size, units, 1, 1)
        self.actor = mlp(size, units, 3, s["action"] if s["discrete"] else 2 * s["action"])
        self.critic = mlp(size, units, 3, s["bins"], zero=True)
        self.slow = mlp(size, units, 3, s["bins"], zero=True).requires_grad_(False)
        self.twohot, self.low, self.high = TwoHot(s["bins"]), torch.zeros(()), torch.zeros(())

    def policy(self, feature: Tensor) -> Distribution:
        """Of features without a graph."""
        out = self.actor(feature.detach())
        if self.s["discrete"]:
            return OneHotCategoricalStraightThrough(logits=out)
        mean, std = out.chunk(2, -1)
        return Independent(Normal(torch.tanh(mean), 0.9 * torch.sigmoid(std + 2) + 0.1), 1)

    def start(self, n: int) -> Any:
        """Deterministic and stochastic state."""
        return torch.zeros(n, self.s["deter"]), torch.zeros(n, self.s["stoch"] * self.s["classes"])

    @torch.no_grad()
    def imagine(self, deter: Tensor, stoch: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Features [N, H+1, F] and actions [N, H, A]."""
        features, actions = [torch.cat([deter, stoch], -1)], []
        for _ in range(horizon):
            actions.append(self.policy(features[-1]).sample())
            deter = self.rssm.core(deter, stoch, actions[-1])
            stoch = self.rssm.dist(self.rssm.prior(deter)).sample().flatten(1)
            features.append(torch.cat([deter, stoch], -1))
        return torch.stack(features, 1), torch.stack(actions, 1)

    def returns(self, reward: Tensor, cont: Tensor, last: Tensor, boot: Tensor) -> Tensor:
        """Lambda returns [N, H] of [N, H+1]."""
        live, found = cont[:, 1:] * (1 - 1 / 333), [boot[:, -1]]
        mix = (1 - last[:, 1:].float()) * 0.95
        inter = reward[:, 1:] + (1 - mix) * live * boot[:, 1:]
        for t in reversed(range(live.shape[1])):
            found.append(inter[:, t] + live[:, t] * mix[:, t] * found[-1])
        return torch.stack(found[:0:-1], 1)

    def value_loss(self, feature: Tensor, target: Tensor) -> Tensor:
        """To the return and to the slow critic."""
        logits = self.critic(feature)
        slow = self.twohot.mean(self.slow(feature.detach())).detach()
        return self.twohot.loss(logits, target) + self.twohot.loss(logits, slow)

    def loss(self, rows: dict[str, Any]) -> Tensor:
        """Everything, one scalar."""
        s, size, length = self.s, self.s["size"], self.s["length"]
        flat = {k: rows[k].flatten(0, 1) if rows[k] is not None else None for k in ("image", "vector")}
        tokens = self.encoder(flat["image"], flat["vector"]).unflatten(0, (size, length))
        deter, stoch = self.start(size)
        steps = []
        for t in range(length):
            keep = 1 - rows["first"][:, t, None].float()
            deter = self.rssm.core(deter * keep, stoch * keep, rows["action"][:, t] * keep)
            post = self.rssm.dist(self.rssm.posterior(torch.cat([deter, tokens[:, t]], -1)))
            stoch = post.rsample().flatten(1)
            steps.append((deter, stoch, post.logits))
        deter, stoch, post_logits = (torch.stack(x, 1) for x in zip(*steps, strict=True))
        feature = torch.cat([deter, stoch], -1)
        prior_logits = self.rssm.dist(self.rssm.prior(deter)).logits
        dyn = kl(post_logits.detach(), prior_logits).clamp(min=1).mean()
        rep = kl(post_logits, prior_logits.detach()).clamp(min=1).mean()
        error = self.decoder.error(deter.flatten(0, 1), stoch.flatten(0, 1), **flat).mean()
        reward = self.twohot.loss(self.reward(feature), rows["reward"]).mean()
        alive = 1 - rows["terminal"].float()
        cont = F.binary_cross_entropy_with_logits(self.cont(feature)[..., 0], alive * (1 - 1 / 333))
        world = error + reward + cont + dyn + 0.1 * rep

        starts = deter.detach().flatten(0, 1), stoch.detach().flatten(0, 1)
        views, actions = self.imagine(*starts, s["horizon"])
        with torch.no_grad():
            dreamed_reward = self.twohot.mean(self.reward(views))
            dreamed_cont = torch.sigmoid(self.cont(views)[..., 0]) / (1 - 1 / 333)
            value = self.twohot.mean(self.critic(views))
            returns = self.returns(dreamed_reward, dreamed_cont, torch.zeros_like(value), value)
            weight = torch.cumprod(dreamed_cont * (1 - 1 / 333), 1)[:, :-1]
            self.low = 0.99 * self.low + 0.01 * torch.quantile(returns, 0.05)
            self.high = 0.99 * self.high + 0.01 * torch.quantile(returns, 0.95)
            advantage = (returns - value[:, :-1]) / (self.high - self.low).clamp(min=1)
        policy = self.policy(views[:, :-1])
        actor = -(weight * (advantage * policy.log_prob(actions) + 3e-4 * policy.entropy())).mean()
        critic = (weight * self.value_loss(views[:, :-1], returns)).mean()

        boot = returns[:, 0].reshape(size, length)
        replayed = self.returns(rows["reward"], alive, rows["terminal"], boot)
        replay = self.value_loss(feature[:, :-1], replayed).mean()
        return world + actor + critic + 0.3 * replay


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Between categoricals of normalised logits, summed over the variables."""
    return (p.exp() * (p - q)).sum((-1, -2))


class LaProp:
    """Adaptive clipping and LaProp, one tensor after the other."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters, self.steps = parameters, 0
        self.mean = [torch.zeros_like(p) for p in parameters]
        self.square = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """One update."""
        self.steps += 1
        for p, mean, square in zip(self.parameters, self.mean, self.square, strict=True):
            assert p.grad is not None
            limit = 0.3 * p.norm().clamp(min=1e-3)
            grad = p.grad / (p.grad.norm() / limit).clamp(min=1)
            square.mul_(0.999).addcmul_(grad, grad, value=0.001)
            mean.mul_(0.9).add_(grad / ((square / (1 - 0.999**self.steps)).sqrt() + 1e-20), alpha=0.1)
            p.sub_(4e-5 * mean / (1 - 0.9**self.steps))


def random_rows(s: dict[str, Any], size: int, length: int) -> dict[str, Any]:
    """[size, length] of everything."""
    lead = (size, length)
    action = torch.rand(*lead, s["action"]) * 2 - 1
    if s["discrete"]:
        action = F.one_hot(torch.randint(s["action"], lead), s["action"]).float()
    none = torch.zeros(lead, dtype=torch.bool)
    image = torch.randint(0, 256, (*lead, *s["image"]), dtype=torch.uint8) if s["image"] else None
    vector = torch.randn(*lead, s["vector"]) if s["vector"] else None
    rest = {"action": action, "reward": torch.randn(lead), "first": none, "terminal": none}
    return {"image": image, "vector": vector, **rest}


def update(s: dict[str, Any]) -> Callable[[], Any]:
    """One gradient step of everything."""
    model = Dreamer(s)
    optimizer = LaProp([p for p in model.parameters() if p.requires_grad])
    rows = random_rows(s, s["size"], s["length"])

    def run() -> None:
        model.zero_grad()
        model.loss(rows).backward()
        optimizer.step()
        for slow, fast in zip(model.slow.parameters(), model.critic.parameters(), strict=True):
            slow.data.mul_(0.98).add_(fast.data, alpha=0.02)

    return run


def dream(s: dict[str, Any]) -> Callable[[], Any]:
    """All steps of a dream of `rows` rows, reward and continuation included."""
    model = Dreamer(s)
    deter, stoch = model.start(s["rows"])

    @torch.no_grad()
    def run() -> None:
        views, _ = model.imagine(deter, stoch, s["horizon"])
        model.twohot.mean(model.reward(views))
        torch.sigmoid(model.cont(views))

    return run


def imagine(s: dict[str, Any]) -> Callable[[], Any]:
    """The same without reward and continuation."""
    model = Dreamer(s)
    deter, stoch = model.start(s["rows"])
    return lambda: model.imagine(deter, stoch, s["horizon"])


def act(s: dict[str, Any], batch: int) -> Callable[[], Any]:
    """Observation in, action out."""
    model, rows = Dreamer(s), random_rows(s, batch, 1)
    row: dict[str, Any] = {k: x if x is None else x[:, 0] for k, x in rows.items()}
    deter, stoch = model.start(batch)

    @torch.no_grad()
    def run() -> Tensor:
        nonlocal deter, stoch
        tokens = model.encoder(row["image"], row["vector"])
        deter = model.rssm.core(deter, stoch, row["action"])
        stoch = model.rssm.dist(model.rssm.posterior(torch.cat([deter, tokens], -1))).sample().flatten(1)
        return model.policy(torch.cat([deter, stoch], -1)).sample()

    return run


WORK: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]] = {
    "update": update,
    "dream": dream,
    "imagine": imagine,
    "act 1": lambda s: act(s, 1),
    "act 16": lambda s: act(s, 16),
}
