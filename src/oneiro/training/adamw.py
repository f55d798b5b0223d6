"""AdamW with a linear warm-up, as DIAMOND uses it: only weights of layers decay."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from oneiro.training.optim import _FUSED, _align, _count_write, clip_


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW: weights of linear, convolutional and recurrent layers decay; biases, norms and embeddings do not."""

    lr: float = 1e-4  # learning rate after the warm-up
    betas: tuple[float, float] = (0.9, 0.999)  # decay of the running mean and of the running square
    eps: float = 1e-8  # added to the root of the running square
    weight_decay: float = 0.01  # share of a weight that lr takes away at each update
    warmup: int = 100  # updates until lr is reached; the first has lr 0; 0 = no warm-up
    clip_norm: float | None = 1.0  # gradients are scaled so that their global norm is at most this

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr = {self.lr}: the learning rate must be positive; the default is 1e-4")
        if not self.eps > 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"eps = {self.eps}, betas = {self.betas}: eps must be positive, betas in [0, 1)")
        if self.weight_decay < 0 or self.warmup < 0:
            raise ValueError(
                f"weight_decay = {self.weight_decay}, warmup = {self.warmup}: neither may be negative; 0 turns it off"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm = {self.clip_norm}: it must be positive, or None for no clipping")

    def schedule(self, step: int) -> float:
        """Learning rate of update `step` (0, 1, ...)."""
        return self.lr * min(1.0, step / self.warmup) if self.warmup else self.lr

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """The torch optimizer over `parameters`: those that decay, then those that do not."""
        parameters = list(parameters)
        fused = all(p.device.type in _FUSED and p.is_floating_point() for p in parameters)
        decays = [p for p in parameters if does_decay(p)]
        others = [p for p in parameters if not does_decay(p)]
        groups = [{"params": decays}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            groups, lr=self.schedule(0), betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=fused
        )  # fmt: skip
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
        return clip_([p.grad for p in parameters if p.grad is not None], norm=self.clip_norm)


def does_decay(parameter: nn.Parameter) -> bool:
    """True for the weights of layers: two axes or more, and no table of embeddings (marked `is_embedding`)."""
    return parameter.ndim > 1 and not getattr(parameter, "is_embedding", False)
