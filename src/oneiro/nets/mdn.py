"""Mixture density output of World Models' M: an independent mixture of K Gaussians per latent dimension.

The parameters of dimension d are 3K neighbouring numbers, [K logits, K means, K log-stds], and dimensions
follow each other: `params [.., Z * 3K]`, the column order of hardmaru/WorldModelsExperiments (its Doom output
has the restart logit in front, column 0).

    logmix = logits - logsumexp(logits)
    log p(y) = logsumexp_k( logmix_k - ((y - mean_k) / std_k)^2 / 2 - logstd_k - log(2 pi) / 2 )
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def mdn_split(params: Float[Tensor, "*b zp"], z_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log mixture weights, means and log-stds, each [.., Z, K]."""
    logit, mean, logstd = params.unflatten(-1, (z_dim, 3, -1)).unbind(-2)
    return logit.log_softmax(-1), mean, logstd


def mdn_nll_reference(params: Float[Tensor, "*b zp"], target: Float[Tensor, "*b z"]) -> Float[Tensor, "*b z"]:
    """`mdn_nll` written as the formula."""
    logmix, mean, logstd = mdn_split(params, target.shape[-1])
    scaled = (target[..., None] - mean) * torch.exp(-logstd)
    return -torch.logsumexp(logmix - 0.5 * scaled.square() - logstd - _HALF_LOG_2PI, -1)


def mdn_nll(params: Float[Tensor, "*b zp"], target: Float[Tensor, "*b z"]) -> Float[Tensor, "*b z"]:
    """-log p(target) per dimension, in nats."""
    return mdn_nll_reference(params, target)


def mdn_sample(
    params: Float[Tensor, "*b zp"],
    temperature: float,
    uniform: Float[Tensor, "*b z"],
    normal: Float[Tensor, "*b z"],
) -> Float[Tensor, "*b z"]:
    """A sample of z: component by inverse CDF of `uniform`, then mean + std * sqrt(temperature) * `normal`.

    The temperature also divides the logits. 0 is the mode: the mean of the most likely component, no noise.
    """
    logmix, mean, logstd = mdn_split(params, uniform.shape[-1])
    if temperature == 0:
        return mean.gather(-1, logmix.argmax(-1, keepdim=True)).squeeze(-1)
    cumulative = (logmix / temperature).softmax(-1).cumsum(-1)
    # First index whose cumulative weight reaches u; the last one if rounding leaves the sum below u.
    index = (cumulative[..., :-1] < uniform[..., None]).sum(-1, keepdim=True)
    std = logstd.gather(-1, index).squeeze(-1).exp() * math.sqrt(temperature)
    return torch.addcmul(mean.gather(-1, index).squeeze(-1), std, normal)


def restart_loss(
    logit: Float[Tensor, "*b"],
    restart: Bool[Tensor, "*b"] | Float[Tensor, "*b"],
    positive_weight: float = 10.0,
) -> Float[Tensor, "*b"]:
    """Cross-entropy of the restart flag, with the rare positives weighted (x10 in the paper's code)."""
    weight = torch.as_tensor(positive_weight, dtype=logit.dtype, device=logit.device)
    return F.binary_cross_entropy_with_logits(
        logit, restart.to(logit.dtype), reduction="none", pos_weight=weight
    )
