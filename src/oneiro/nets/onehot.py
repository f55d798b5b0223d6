"""Categorical latents: a bit of uniform in every distribution, straight-through samples, KL with free nats.

Logits are [.., S, C]: S categorical variables of C classes each. Everything is float32 (or wider).

Source: Hafner et al. 2025, "Mastering diverse control tasks through world models", eq. 3 and "Methods".
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from oneiro import noise


def unimix(logits: Float[Tensor, "*b s c"], mix: float) -> Float[Tensor, "*b s c"]:
    """Probabilities of (1 - mix) * softmax + mix * uniform."""
    logits = logits.float() if logits.dtype != torch.float64 else logits
    return _softmax(logits) * (1 - mix) + mix / logits.shape[-1]


def _softmax(logits: Tensor) -> Tensor:
    """Over the last axis. Of few classes with the classes outermost: PyTorch's CPU kernel is slow on short rows."""
    if logits.shape[-1] >= _SHORT or logits.device.type != "cpu":
        return torch.softmax(logits, -1)
    return torch.softmax(logits.movedim(-1, 0), 0).movedim(0, -1).contiguous()


_SHORT = 16  # from so many classes on the usual kernel is the faster one (8 classes: 0.60 ms against 0.08)


def pick(
    probs: Float[Tensor, "*b s c"], uniform: Float[Tensor, "*b s"], temperature: float = 1.0
) -> Float[Tensor, "*b s c"]:
    """One-hot sample without a gradient, by the inverse of the cumulated distribution at `uniform` in [0, 1).

    Temperature 0 is the mode and ignores `uniform`; others raise the probabilities to the power 1 / temperature.
    """
    if temperature == 0:
        index = probs.argmax(-1)
    else:
        if temperature != 1:
            probs = torch.softmax(probs.log() / temperature, -1)
        total = probs.detach().cumsum(-1)
        passed = total <= (uniform * total[..., -1])[..., None]
        index = passed.sum(-1).clamp_(max=probs.shape[-1] - 1)
    # A lookup: on the CPU scatter takes twice as long.
    return F.embedding(index, torch.eye(probs.shape[-1], dtype=probs.dtype, device=probs.device))


def straight_through(sample: Tensor, probs: Tensor) -> Tensor:
    """The value of `sample`, the gradient of `probs`."""
    return sample + (probs - probs.detach()) if torch.is_grad_enabled() else sample


def uniform_of_draw(draw: Tensor, n: int) -> Tensor:
    """float32 [B, n] in [0, 1): rows with the same number `draw` [B] share theirs. Never waits for the device."""
    seed = torch.randint(2**62, (), device=draw.device)  # from torch's generator, new in every call
    return noise.uniform(seed + draw.long(), 0, n)


def kl(p: Float[Tensor, "*b s c"], q: Float[Tensor, "*b s c"]) -> Float[Tensor, "*b"]:
    """KL[p || q] in nats, summed over the S variables; both are probabilities."""
    return (p * (p.log() - q.log())).sum((-2, -1))


def kl_balanced(
    posterior: Float[Tensor, "*b s c"], prior: Float[Tensor, "*b s c"], free: float
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """(dyn, rep): the prior is drawn to the posterior, the posterior to the prior, each at least `free` nats.

    The floor is taken per time step, after the sum over the variables (as in the code; DreamerV2 clips the mean).
    """
    dyn = kl(posterior.detach(), prior).clamp(min=free)
    rep = kl(posterior, prior.detach()).clamp(min=free)
    return dyn, rep


def entropy(probs: Float[Tensor, "*b s c"]) -> Float[Tensor, "*b"]:
    """Nats, summed over the S variables."""
    return -(probs * probs.log()).sum((-2, -1))


def to_index(sample: Float[Tensor, "*b s c"]) -> Tensor:
    """uint8 [.., S]: the class of each one-hot; 255 for a row of zeros (nothing drawn yet)."""
    assert sample.shape[-1] < 255, f"{sample.shape[-1]} classes do not fit a byte"
    index = sample.argmax(-1)
    return torch.where(sample.sum(-1) > 0.5, index, 255).to(torch.uint8)


def from_index(index: Tensor, classes: int) -> Tensor:
    """The inverse of `to_index`: float32 [.., S, classes]."""
    return F.one_hot(index.long(), 256)[..., :classes].float()
