"""Optimizer configs: learning rate as a pure function of the step, clipping without a device sync."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_FUSED = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam with decay of the learning rate and gradient clipping.

    TensorFlow 1 adds its eps before the bias correction, which equals an eps of eps / sqrt(1 - beta2^t) here:
    its 1e-8 acts like 3.2e-7 at step 1 and like 1e-8 after some thousand steps. It matters only to weights whose
    gradients are below about 1e-6; we keep torch's form.
    """

    lr: float = 1e-3  # learning rate at step 0
    betas: tuple[float, float] = (0.9, 0.999)  # decay of the running mean and of the running square
    eps: float = 1e-8  # added to the root of the running square
    decay: Literal["constant", "exponential", "linear", "cosine"] = "constant"  # how lr falls to lr_end
    lr_end: float = 0.0  # floor of every decay
    decay_rate: float = 1.0  # exponential: (lr - lr_end) * decay_rate^step + lr_end
    decay_steps: int = 0  # linear, cosine: steps until lr_end is reached
    clip_value: float | None = None  # gradients are clipped element by element to +- this (World Models: 1)
    clip_norm: float | None = None  # then scaled so that their global norm is at most this

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr = {self.lr}: the learning rate must be positive; the default is 1e-3")
        if not self.eps > 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"eps = {self.eps}, betas = {self.betas}: eps must be positive, betas in [0, 1)")
        if not 0 <= self.lr_end <= self.lr:
            raise ValueError(f"lr_end = {self.lr_end}: it must lie between 0 and lr = {self.lr}")
        if self.decay not in ("constant", "exponential", "linear", "cosine"):
            raise ValueError(f"decay = {self.decay!r}: choose constant, exponential, linear or cosine")
        if not 0 < self.decay_rate <= 1:
            raise ValueError(f"decay_rate = {self.decay_rate}: it must lie in (0, 1]")
        self._require("lr_end", self.lr_end != 0, self.decay != "constant")
        self._require("decay_rate", self.decay_rate != 1, self.decay == "exponential")
        self._require("decay_steps", self.decay_steps != 0, self.decay in ("linear", "cosine"))
        if self.decay in ("linear", "cosine") and self.decay_steps < 1:
            raise ValueError(f"decay {self.decay!r} needs decay_steps: the step at which lr_end is reached")
        for name, value in (("clip_value", self.clip_value), ("clip_norm", self.clip_norm)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value}: it must be positive, or None for no clipping")

    def _require(self, name: str, is_set: bool, has_effect: bool) -> None:
        if is_set and not has_effect:
            raise ValueError(
                f"{name} has no effect with decay {self.decay!r}; leave it out or choose another decay"
            )

    def schedule(self, step: int) -> float:
        """Learning rate of update `step` (0, 1, ...)."""
        span = self.lr - self.lr_end
        if self.decay == "exponential":
            return span * self.decay_rate**step + self.lr_end
        if self.decay in ("linear", "cosine"):
            done = min(step / self.decay_steps, 1.0)
            left = 1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
            return span * left + self.lr_end
        return self.lr

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
        """The torch optimizer over `parameters`, in its fused form where there is one.

        Measured with 2 threads on the CPU, 4.4 M weights in 22 tensors: fused 1.7 ms, foreach 5.5, loop 6.1.
        """
        parameters = list(parameters)
        fused = all(p.device.type in _FUSED and p.is_floating_point() for p in parameters)
        optimizer = torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)
        optimizer.register_step_pre_hook(_align)
        optimizer.register_step_post_hook(_count_write)
        return optimizer

    def set_rate(self, optimizer: Optimizer, step: int) -> float:
        """Set the learning rate of update `step`; returns it."""
        rate = self.schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def clip_(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Clip the gradients of `parameters` in place; returns their global norm (scalar) before it."""
        return clip_(
            [p.grad for p in parameters if p.grad is not None], value=self.clip_value, norm=self.clip_norm
        )


def clip_(gradients: Sequence[Tensor], *, value: float | None = None, norm: float | None = None) -> Tensor:
    """Clip to +-`value` element by element, then to the global norm `norm`; in place, no device sync.

    Returns the global norm before clipping, a scalar; 0 if there are no gradients.
    """
    gradients = list(gradients)
    if not gradients:
        return torch.zeros(())
    before = nn.utils.get_total_norm(gradients)
    if value is not None:
        torch._foreach_clamp_min_(gradients, -value)
        torch._foreach_clamp_max_(gradients, value)
    if norm is not None:
        now = before if value is None else nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (norm / (now + 1e-6)).clamp(max=1.0))
    return before


def _align(optimizer: Optimizer, *_: Any) -> None:
    """Give gradients and running means the strides of their parameter.

    torch's fused CPU kernel walks all of them in storage order and is silently wrong where they differ, as
    after `autograd.grad` through a channels-last convolution.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = _like(parameter, parameter.grad)
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                has_layout = isinstance(value, Tensor) and value.shape == parameter.shape
                if has_layout and value.stride() != parameter.stride():
                    state[name] = _like(parameter, value)


def _count_write(optimizer: Optimizer, *_: Any) -> None:
    """torch's fused kernel writes parameters without counting up their version, which `nets.prepared` reads."""
    for group in optimizer.param_groups:
        torch.autograd.graph.increment_version(group["params"])


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in the memory layout of `parameter`."""
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
