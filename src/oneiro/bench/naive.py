"""World Models as one would first write it in PyTorch: what `oneiro bench --against naive` compares with.

A script of its own: it imports nothing of oneiro and touches no setting, so it has PyTorch's default allocator,
float32, `nn.LSTM(batch_first=True)` and losses written as the formulas. Run by plain.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Vision(nn.Module):
    """V: convolutional VAE."""

    def __init__(self, z_dim: int, channels: list[int]) -> None:
        super().__init__()
        a, b, c, d = channels
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, a, 4, 2), nn.ReLU(), nn.Conv2d(a, b, 4, 2), nn.ReLU()),
            *(nn.Conv2d(b, c, 4, 2), nn.ReLU(), nn.Conv2d(c, d, 4, 2), nn.ReLU(), nn.Flatten()),
        )
        self.mu, self.logvar = nn.Linear(4 * d, z_dim), nn.Linear(4 * d, z_dim)
        self.fc = nn.Linear(z_dim, 4 * d)
        self.decoder = nn.Sequential(
            *(nn.ConvTranspose2d(4 * d, c, 5, 2), nn.ReLU(), nn.ConvTranspose2d(c, b, 5, 2), nn.ReLU()),
            *(nn.ConvTranspose2d(b, a, 6, 2), nn.ReLU(), nn.ConvTranspose2d(a, 3, 6, 2), nn.Sigmoid()),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean, log-variance."""
        x = self.encoder(image)
        mu, logvar = self.mu(x), self.logvar(x)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        return self.decoder(self.fc(z)[:, :, None, None]), mu, logvar


class Memory(nn.Module):
    """M: LSTM with one mixture of Gaussians per latent dimension, and the logit of the end."""

    def __init__(self, z_dim: int, action_dim: int, hidden_dim: int, num_mixtures: int) -> None:
        super().__init__()
        self.z_dim, self.num_mixtures = z_dim, num_mixtures
        self.lstm = nn.LSTM(z_dim + action_dim + 1, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, 1 + z_dim * 3 * num_mixtures)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None):
        """Logit of the end, log weights, means, log-stds, and the LSTM's state."""
        h, state = self.lstm(x, state)
        out = self.head(h)
        mixture = out[..., 1:].reshape(*out.shape[:-1], self.z_dim, 3, self.num_mixtures)
        logit, mean, logstd = mixture.unbind(-2)
        return out[..., 0], logit - torch.logsumexp(logit, -1, keepdim=True), mean, logstd, state


def vision_update(s: dict[str, Any]) -> Callable[[], Any]:
    """One gradient step of V on a batch of uint8 frames."""
    model = Vision(s["z_dim"], s["channels"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    frames = torch.randint(0, 256, (s["vision_batch"], 3, 64, 64), dtype=torch.uint8)

    def update() -> None:
        image = frames.float() / 255
        reconstruction, mu, logvar = model(image)
        error = ((reconstruction - image) ** 2).sum((1, 2, 3)).mean()
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        loss = error + kl.clamp(min=0.5 * s["z_dim"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def encode(s: dict[str, Any]) -> Callable[[], Any]:
    """V's mean and log-variance of a batch of frames."""
    model = Vision(s["z_dim"], s["channels"])
    frames = torch.randint(0, 256, (s["encode_batch"], 3, 64, 64), dtype=torch.uint8)

    @torch.no_grad()
    def run() -> tuple[Tensor, Tensor]:
        x = model.encoder(frames.float() / 255)
        return model.mu(x), model.logvar(x)

    return run


def memory_update(s: dict[str, Any]) -> Callable[[], Any]:
    """One gradient step of M on stored (mu, logvar), with clipping to +-1."""
    model = Memory(s["z_dim"], s["action_dim"], s["hidden_dim"], s["num_mixtures"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rows, length = s["memory_batch"], s["memory_length"]
    mu, logvar = torch.randn(rows, length, s["z_dim"]), torch.randn(rows, length, s["z_dim"]) - 2
    action = torch.rand(rows, length, s["action_dim"]) * 2 - 1
    restart = torch.zeros(rows, length, 1)

    def update() -> None:
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        x = torch.cat([z, action, restart], -1)[:, :-1]
        end, logmix, mean, logstd, _ = model(x)
        scaled = (z[:, 1:, :, None] - mean) / torch.exp(logstd)
        log_p = torch.logsumexp(logmix - 0.5 * scaled**2 - logstd - 0.9189385, -1)
        weight = torch.tensor(10.0)
        loss = -log_p.mean() + F.binary_cross_entropy_with_logits(end, restart[:, 1:, 0], pos_weight=weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimizer.step()

    return update


def dream_step(s: dict[str, Any]) -> Callable[[], Any]:
    """One step of all rollouts: controllers act, M predicts, z is drawn."""
    model = Memory(s["z_dim"], s["action_dim"], s["hidden_dim"], s["num_mixtures"])
    rows, candidates, tau = s["rows"], s["candidates"], 1.15
    width = s["z_dim"] + s["states"] * s["hidden_dim"]
    weight = torch.randn(candidates, width, s["action_dim"]) * 0.1
    z, restart = torch.randn(rows, s["z_dim"]), torch.zeros(rows, 1)
    state = (torch.zeros(1, rows, s["hidden_dim"]), torch.zeros(1, rows, s["hidden_dim"]))

    @torch.no_grad()
    def step() -> None:
        nonlocal z, state
        feature = torch.cat([z, *(x[0] for x in state[: s["states"]])], 1)
        action = torch.tanh(torch.bmm(feature.view(candidates, -1, width), weight)).reshape(rows, -1)
        _, logmix, mean, logstd, state = model(torch.cat([z, action, restart], 1)[:, None], state)
        cumulative = torch.softmax(logmix[:, 0] / tau, -1).cumsum(-1)
        index = (cumulative < torch.rand(rows, s["z_dim"], 1)).sum(-1, keepdim=True)
        index = index.clamp(max=s["num_mixtures"] - 1)
        std = torch.exp(logstd[:, 0].gather(-1, index)[..., 0]) * tau**0.5
        z = mean[:, 0].gather(-1, index)[..., 0] + std * torch.randn(rows, s["z_dim"])

    return step


WORK = {"vision": vision_update, "encode": encode, "memory": memory_update, "dream": dream_step}
