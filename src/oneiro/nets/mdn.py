"""Mixture density output of World Models' M: an independent mixture of K Gaussians per latent dimension.

The parameters of dimension d are 3K neighbouring numbers, [K logits, K means, K log-stds], and dimensions
follow each other: `params [.., Z * 3K]`, the column order of hardmaru/WorldModelsExperiments (its Doom output
has the restart logit in front, column 0).

    logmix = logits - logsumexp(logits)
    log p(y) = logsumexp_k( logmix_k - ((y - mean_k) / std_k)^2 / 2 - logstd_k - log(2 pi) / 2 )

The plain form is bound by memory: a batch of 100 x 500 steps has 48 million parameters, and autograd keeps
several copies. Here rows are taken in chunks that stay in the cache, and the gradient is computed in the same
pass (`_nll_and_slope`). `mdn_head_nll` includes the linear layer in front, whose columns it reorders to planes
[3K, Z], so that nothing is transposed. `mdn_nll_reference` is the formula; tests compare.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from oneiro.nets.packed import Product, packed, plain

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_CHUNK = 2**18  # parameters per chunk: 1 MiB in float32, what a core's own cache holds


def mdn_split(params: Float[Tensor, "*b zp"], z_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log mixture weights, means and log-stds, each [.., Z, K]."""
    logit, mean, logstd = params.unflatten(-1, (z_dim, 3, -1)).unbind(-2)
    return logit.log_softmax(-1), mean, logstd


def mdn_nll(params: Float[Tensor, "*b zp"], target: Float[Tensor, "*b z"]) -> Float[Tensor, "*b z"]:
    """-log p(target) per dimension, in nats."""
    flat, y = params.reshape(-1, params.shape[-1]), target.reshape(-1, target.shape[-1])
    return _MixtureNLL.apply(flat, y).reshape(target.shape)  # type: ignore[union-attr]


def mdn_nll_reference(params: Float[Tensor, "*b zp"], target: Float[Tensor, "*b z"]) -> Float[Tensor, "*b z"]:
    """`mdn_nll` written as the formula."""
    logmix, mean, logstd = mdn_split(params, target.shape[-1])
    scaled = (target[..., None] - mean) * torch.exp(-logstd)
    return -torch.logsumexp(logmix - 0.5 * scaled.square() - logstd - _HALF_LOG_2PI, -1)


def mdn_head_nll(
    h: Float[Tensor, "*b d"],
    weight: Float[Tensor, "out d"],
    bias: Float[Tensor, " out"],
    target: Float[Tensor, "*b z"],
    *,
    num_mixtures: int,
    compute_dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "*b z"], Float[Tensor, "*b front"]]:
    """`mdn_nll` of a linear layer's output, and the layer's columns in front of the mixtures (if any).

    Equal to `out = F.linear(h, weight, bias)`, `mdn_nll(out[..., front:], target)`, `out[..., :front]`.
    """
    front = weight.shape[0] - target.shape[-1] * 3 * num_mixtures
    shared = F.linear(h, weight[:front], bias[:front])
    args = (h, weight[front:], bias[front:], target, 3 * num_mixtures, compute_dtype)
    return _HeadNLL.apply(*args), shared  # type: ignore[return-value]


def mdn_sample(
    params: Float[Tensor, "*b zp"],
    temperature: float,
    uniform: Float[Tensor, "*b z"],
    normal: Float[Tensor, "*b z"],
) -> Float[Tensor, "*b z"]:
    """A sample of z: component by inverse CDF of `uniform`, then mean + std * sqrt(temperature) * `normal`.

    The temperature also divides the logits. 0 is the mode: the mean of the most likely component, no noise
    (`uniform` and `normal` then only say how many dimensions there are).
    """
    planes = rearrange(params, "... (z p k) -> (...) p k z", z=uniform.shape[-1], p=3).contiguous()
    z = _sample_planes(
        planes, temperature, uniform.reshape(planes[:, 0, 0].shape), normal.reshape(-1, planes.shape[-1])
    )
    return z.reshape(uniform.shape)


@dataclass(frozen=True, kw_only=True)
class SamplingHead:
    """The linear layer in front of a mixture, as `mdn_head_sample` multiplies with it."""

    product: Product  # h [B, D] -> [B, 3K Z] in the compute dtype, columns in the order of planes
    front_weight: Tensor  # [front, D], of the columns in front of the mixtures
    front_bias: Tensor  # [front]
    num_mixtures: int

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor, z_dim: int, num_mixtures: int, compute_dtype: torch.dtype
    ) -> "SamplingHead":
        """From the layer's weight [front + Z 3K, D] and bias; for one step."""
        return cls._make(plain, weight, bias, z_dim, num_mixtures, compute_dtype)

    @classmethod
    def for_many(
        cls, weight: Tensor, bias: Tensor, z_dim: int, num_mixtures: int, compute_dtype: torch.dtype
    ) -> "SamplingHead":
        """The same for many steps, with the weight packed."""
        return cls._make(packed, weight, bias, z_dim, num_mixtures, compute_dtype)

    @classmethod
    def _make(
        cls,
        product: Callable[[Tensor, Tensor], Product],
        weight: Tensor,
        bias: Tensor,
        z_dim: int,
        num_mixtures: int,
        compute_dtype: torch.dtype,
    ) -> "SamplingHead":
        front = weight.shape[0] - z_dim * 3 * num_mixtures
        dtype = compute_dtype if weight.dtype == torch.float32 else weight.dtype
        planes = rearrange(weight[front:], "(z q) d -> (q z) d", z=z_dim).to(dtype)
        return cls(
            product=product(planes, rearrange(bias[front:], "(z q) -> (q z)", z=z_dim).to(dtype)),
            front_weight=weight[:front],
            front_bias=bias[:front],
            num_mixtures=num_mixtures,
        )


def mdn_head_sample(
    h: Float[Tensor, "b d"],
    head: SamplingHead,
    temperature: float,
    uniform: Float[Tensor, "b z"],
    normal: Float[Tensor, "b z"],
) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b front"]]:
    """`mdn_sample` of a linear layer's output, and the columns in front; the twin of `mdn_head_nll`."""
    shared = F.linear(h, head.front_weight, head.front_bias)
    planes = head.product(h)
    planes = planes.view(len(h), 3, head.num_mixtures, -1)
    return _sample_planes(planes, temperature, uniform, normal), shared


def _sample_planes(planes: Tensor, temperature: float, uniform: Tensor, normal: Tensor) -> Tensor:
    """`mdn_sample` of parameters [N, 3, K, Z] (contiguous, any float dtype); uniform and normal are [N, Z]."""
    num_mixtures, z_dim = planes.shape[2:]
    logit, mean, _ = planes.unbind(1)
    if temperature == 0:
        return mean.gather(1, logit.argmax(1, keepdim=True)).squeeze(1).to(normal.dtype)
    logit = logit.to(uniform.dtype)
    weight = (logit - logit.amax(1, keepdim=True)).mul_(1 / temperature).exp_()
    # The first component whose cumulative weight reaches u; the last one if rounding leaves the sum below u.
    *cumulative, total = accumulate(weight.unbind(1), torch.add)
    threshold = total * uniform
    index = torch.zeros_like(threshold, dtype=torch.int8)  # of the component; K is at most 128
    for c in cumulative:
        index += (c < threshold).view(torch.int8)
    # Only the mean and log-std of the component picked are read: place is where its mean lies in memory.
    flat, step = planes.view(-1), num_mixtures * z_dim
    row = torch.arange(step, planes.numel(), 3 * step, device=planes.device)[:, None]
    place = torch.add(row + torch.arange(z_dim, device=planes.device), index, alpha=z_dim).view(-1)
    z_mean = flat.index_select(0, place).view_as(normal).to(normal.dtype)
    z_logstd = flat[step:].index_select(0, place).view_as(normal).to(normal.dtype)
    return torch.addcmul(z_mean, z_logstd.exp(), normal, value=math.sqrt(temperature))


def restart_loss(
    logit: Float[Tensor, "*b"],
    restart: Bool[Tensor, "*b"] | Float[Tensor, "*b"],
    positive_weight: float = 10.0,
) -> Float[Tensor, "*b"]:
    """Cross-entropy of the restart flag, with the rare positives weighted (x10 in the paper's code)."""
    weight = torch.as_tensor(positive_weight, dtype=logit.dtype, device=logit.device)
    target = restart.to(logit.dtype)
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none", pos_weight=weight)


def _nll_and_slope(planes: Tensor, target: Tensor) -> Tensor:
    """-log p [N Z] of target [N Z] under planes [3 K N Z], which are overwritten by its gradient.

    With posterior r_k and prior w_k of component k, and s = (y - mean) / std:
    d/dlogit = w - r,   d/dmean = -r s / std,   d/dlogstd = r (1 - s^2).
    """
    logit, mean, logstd = planes
    precision = torch.exp(-logstd)
    scaled = torch.sub(target, mean, out=mean).mul_(precision)
    square = scaled.square()
    joint = torch.sub(logit, logstd, out=logstd).add_(square, alpha=-0.5)
    top, top_joint = logit.amax(0), joint.amax(0)
    prior, posterior = logit.sub_(top).exp_(), joint.sub_(top_joint).exp_()
    total, total_joint = prior.sum(0), posterior.sum(0)
    nll = (total / total_joint).log_().add_(top).sub_(top_joint).add_(_HALF_LOG_2PI)
    posterior.div_(total_joint)
    prior.div_(total).sub_(posterior)
    scaled.mul_(precision).mul_(posterior).neg_()
    torch.addcmul(posterior, posterior, square, value=-1, out=posterior)
    return nll


class _MixtureNLL(torch.autograd.Function):
    """params [N Z*3K], target [N Z] -> [N Z]; the target gets no gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, params: Tensor, target: Tensor) -> Tensor:
        nll, slope = torch.empty_like(target), params.new_empty(params.shape)
        z_dim, chunk = target.shape[-1], max(1, _CHUNK // params.shape[-1])
        for begin in range(0, len(params), chunk):
            rows = slice(begin, begin + chunk)
            planes = rearrange(params[rows], "n (z p k) -> p k n z", z=z_dim, p=3)
            planes = planes.to(target.dtype, memory_format=torch.contiguous_format, copy=True)
            nll[rows] = _nll_and_slope(planes, target[rows])
            slope[rows] = rearrange(planes, "p k n z -> n (z p k)")
        ctx.save_for_backward(slope)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        slope = slope.unflatten(-1, (grad.shape[-1], -1)) * grad[..., None].to(slope.dtype)
        return slope.flatten(-2), None


class _HeadNLL(torch.autograd.Function):
    """h [.. D], weight [Z*3K D], bias, target [.. Z] -> nll [.. Z]; the target gets no gradient.

    The gradient of the mixture parameters is kept in the compute dtype, [N 3K Z].
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        target: Tensor,
        num_planes: int,
        dtype: torch.dtype,
    ) -> Tensor:
        z_dim = target.shape[-1]
        dtype = dtype if h.dtype == torch.float32 else h.dtype
        weight = rearrange(weight, "(z q) d -> d (q z)", z=z_dim).to(dtype)
        bias = rearrange(bias, "(z q) -> (q z)", z=z_dim).to(dtype)
        order, back = _memory_order(h)
        x = h.permute(order).reshape(-1, h.shape[-1]).to(dtype)
        y = target.permute(order).reshape(-1, z_dim)
        nll, slope = torch.empty_like(y), x.new_empty(len(x), weight.shape[1])
        chunk = max(1, _CHUNK // weight.shape[1])
        for begin in range(0, len(x), chunk):
            rows = slice(begin, begin + chunk)
            out = torch.addmm(bias, x[rows], weight, out=slope[rows]).to(y.dtype)
            planes = rearrange(out, "n (p k z) -> p k n z", p=3, z=z_dim)
            nll[rows] = _nll_and_slope(planes, y[rows])
            if out.data_ptr() != slope[rows].data_ptr():
                slope[rows] = out
        ctx.save_for_backward(x, weight, slope)
        ctx.layout = (order, back, target.shape, h.shape, num_planes)  # type: ignore[attr-defined]
        return nll.view([target.shape[i] for i in order]).permute(back)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor):  # type: ignore[override]
        x, weight, slope = ctx.saved_tensors  # type: ignore[attr-defined]
        order, back, shape, h_shape, num_planes = ctx.layout  # type: ignore[attr-defined]
        z_dim = shape[-1]
        scale = grad.permute(order).reshape(-1, 1, z_dim).to(slope.dtype)
        grad_out = (slope.view(-1, num_planes, z_dim) * scale).flatten(1)
        grad_h = (grad_out @ weight.T).view([h_shape[i] for i in order]).permute(back)
        grad_weight = rearrange(grad_out.T @ x, "(q z) d -> (z q) d", z=z_dim)
        grad_bias = rearrange(grad_out.sum(0, dtype=grad.dtype), "(q z) -> (z q)", z=z_dim)
        return grad_h.to(grad.dtype), grad_weight.to(grad.dtype), grad_bias, None, None, None


def _memory_order(h: Tensor) -> tuple[list[int], list[int]]:
    """Axes sorted so that `h` is walked as it lies in memory (an LSTM's output is time-major), and back."""
    lead = sorted(range(h.ndim - 1), key=lambda axis: -h.stride(axis))
    order = [*lead, h.ndim - 1]
    return order, [order.index(axis) for axis in range(h.ndim)]
