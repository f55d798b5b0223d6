"""LaProp with adaptive gradient clipping, the optimizer of DreamerV3.

Sources: Ziyin et al. 2020, "LaProp: separating momentum and adaptivity in Adam"; Brock et al. 2021, "High-performance
large-scale image recognition without normalization" (AGC, here per tensor); Hafner et al. 2025.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_SMALLEST = 1e-3  # a weight's norm counts as at least this, so that zeros can leave zero


@dataclass(frozen=True, kw_only=True)
class LaProp:
    """LaProp: gradients are normalised first and averaged then. lr rises linearly from 0.

    g <- g / max(1, |g| / (agc max(1e-3, |w|)))      L2 norms of a whole tensor
    v <- b2 v + (1 - b2) g^2
    m <- b1 m + (1 - b1) g / (sqrt(v / (1 - b2^t)) + eps)
    w <- w - lr m / (1 - b1^t)
    """

    lr: float = 4e-5  # learning rate after the warm-up
    betas: tuple[float, float] = (0.9, 0.999)  # decay of the running mean and of the running square
    eps: float = 1e-20  # added to the root of the running square
    agc: float = 0.3  # a gradient is at most this times as long as its weight tensor; 0 = no clipping
    warmup: int = 1000  # updates until lr is reached; the first has lr 0; 0 = no warm-up

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr = {self.lr}: the learning rate must be positive; the default is 4e-5")
        if not self.eps > 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"eps = {self.eps}, betas = {self.betas}: eps must be positive, betas in [0, 1)")
        if not self.agc >= 0 or self.warmup < 0:
            raise ValueError(
                f"agc = {self.agc}, warmup = {self.warmup}: neither may be negative; 0 turns it off"
            )

    def schedule(self, step: int) -> float:
        """Learning rate of update `step` (0, 1, ...)."""
        return self.lr * min(1.0, step / self.warmup) if self.warmup else self.lr

    def build(self, parameters: Iterable[nn.Parameter]) -> "LaPropOptimizer":
        """The optimizer over `parameters`; its rate is set before each step by `set_rate`."""
        return LaPropOptimizer(parameters, lr=self.schedule(0), betas=self.betas, eps=self.eps, agc=self.agc)

    def set_rate(self, optimizer: Optimizer, step: int) -> float:
        """Set the learning rate of update `step`; returns it."""
        rate = self.schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def clip_(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """The global norm of the gradients, a scalar. They are clipped in the step, each by its own weight."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        return nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())


class LaPropOptimizer(Optimizer):
    """Works on all tensors of a group as one long vector: about fifteen kernels a step, however many there are.

    No device sync. The running mean and square of a parameter are views into the long vectors, in logical order,
    so that memory layouts (channels-last weights) do not matter. All parameters are float32 on one device.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], **defaults: Any) -> None:
        super().__init__(parameters, defaults)
        self._long: dict[int, tuple[list[nn.Parameter], Tensor, Tensor, Tensor]] = {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `Optimizer.load_state_dict`."""
        super().load_state_dict(state_dict)
        self._long.clear()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient; one that has none now is treated as 0."""
        assert closure is None, "losses are computed by the trainer, once"
        for number, group in enumerate(self.param_groups):
            parameters, mean, square, sizes = self._vectors(number, group)
            if parameters:
                self._update(group, parameters, mean, square, sizes)

    def _update(
        self,
        group: dict[str, Any],
        parameters: list[nn.Parameter],
        mean: Tensor,
        square: Tensor,
        sizes: Tensor,
    ) -> None:
        beta1, beta2 = group["betas"]
        group["steps"] = group.get("steps", 0) + 1
        weights: tuple[Tensor, ...] = tuple(parameters)
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        long = torch.cat([g.reshape(-1) for g in gradients])
        if group["agc"]:
            of_weight = torch.stack(torch._foreach_norm(weights)).clamp_(
                min=_SMALLEST
            )  # so that 0 / 0 cannot be
            of_gradient = torch.stack(torch._foreach_norm(gradients))
            factor = (group["agc"] * of_weight / of_gradient).clamp_(max=1.0)
            long *= factor.repeat_interleave(sizes, output_size=len(long))
        square.mul_(beta2).addcmul_(long, long, value=1 - beta2)
        root = (square / (1 - beta2 ** group["steps"])).sqrt_().add_(group["eps"])
        mean.lerp_(long.div_(root), 1 - beta1)
        change = torch.mul(mean, -group["lr"] / (1 - beta1 ** group["steps"]), out=root)
        pieces = change.split([w.numel() for w in weights])
        torch._foreach_add_(weights, [piece.view(w.shape) for piece, w in zip(pieces, weights, strict=True)])

    def _vectors(
        self, number: int, group: dict[str, Any]
    ) -> tuple[list[nn.Parameter], Tensor, Tensor, Tensor]:
        """Parameters, running mean and square as one vector each, sizes; made anew when a parameter joins."""
        known = self._long.get(number)
        if known is not None and all(p in self.state or p.grad is None for p in group["params"]):
            return known
        parameters = [p for p in group["params"] if p.grad is not None or p in self.state]
        vectors = []
        for name in ("mean", "square"):
            old = [self.state[p].get(name, torch.zeros_like(p)).reshape(-1) for p in parameters]
            vectors.append(torch.cat(old) if old else torch.zeros(0))
        for name, vector in zip(("mean", "square"), vectors, strict=True):
            for p, view in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
                self.state[p][name] = view.view(p.shape)
        sizes = torch.tensor([p.numel() for p in parameters], device=vectors[0].device)
        self._long[number] = (parameters, *vectors, sizes)
        return self._long[number]
