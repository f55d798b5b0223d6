"""The convolutional variational auto-encoder of World Models (its part V), for 64 x 64 RGB frames.

Paper: Ha & Schmidhuber 2018, arXiv 1803.10122, appendix A.1. Code: hardmaru/WorldModelsExperiments.

    image [B 3 64 64] -> conv 31 -> 14 -> 6 -> 2 (4x4, stride 2, no padding, ReLU) -> mu, logvar [B z]
    z [B z] -> fc -> 1 -> deconv 5 -> 13 -> 30 -> 64 (5x5, 5x5, 6x6, 6x6, stride 2) -> sigmoid -> image

There is no activation between the decoder's `fc` and its first transposed convolution, and no normalisation.

Transposed convolutions take faster, equal forms: the first sees a 1 x 1 image and is a matrix product; on the
CPU the last, which has only 3 colours on one side, is a 3 x 3 convolution to 4 x 3 channels (`_Deconv`).
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from oneiro import runtime

_ENCODER_KERNELS = (4, 4, 4, 4)
_DECODER_KERNELS = (5, 5, 6, 6)
_FEW = 4  # output channels up to which `_Deconv` takes its own form


class ConvVAE(nn.Module):
    """Encoder to a diagonal Gaussian over z, and decoder back to the frame.

    `channels` are the widths of the four encoder convolutions; the decoder mirrors them (the paper's 32, 64,
    128, 256 give 1024 -> 128 -> 64 -> 32 -> 3). Weights are float32; the convolutions run in `compute_dtype`
    and everything that is returned is float32.
    """

    def __init__(
        self,
        z_dim: int,
        channels: tuple[int, int, int, int] = (32, 64, 128, 256),
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.compute_dtype = compute_dtype
        self.memory_format = runtime.memory_format()
        width = 4 * channels[-1]
        ins = (3, *channels[:-1])
        outs = (*reversed(channels[:-1]), 3)
        self.encoder = nn.ModuleList(
            nn.Conv2d(i, o, k, stride=2) for i, o, k in zip(ins, channels, _ENCODER_KERNELS, strict=True)
        )
        self.fc_mu = nn.Linear(width, z_dim)
        self.fc_logvar = nn.Linear(width, z_dim)
        self.fc_decoder = nn.Linear(z_dim, width)
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(i, o, k, stride=2)
            for i, o, k in zip((width, *outs[:-1]), outs, _DECODER_KERNELS, strict=True)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform for every weight and zero for every bias, as TensorFlow 1's default."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def encode(self, image: Float[Tensor, "b 3 64 64"]) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        """Mean and log-variance of q(z | image); pixels in 0..1."""
        x = image.to(self.compute_dtype, memory_format=self.memory_format)
        for layer in self.encoder:
            x = F.conv2d(x, *_cast(layer, x.dtype), stride=2).relu_()
        x = rearrange(x, "b c h w -> b (h w c)").float()  # the order of the official code
        return self.fc_mu(x), self.fc_logvar(x)

    def decode(self, z: Float[Tensor, "b z"]) -> Float[Tensor, "b 3 64 64"]:
        """The frame of z, pixels in 0..1."""
        return self.decode_logit(z).float().sigmoid()

    def decode_logit(self, z: Float[Tensor, "b z"]) -> Tensor:
        """The frame [B 3 64 64] before the sigmoid, in the compute dtype."""
        first, *middle, last = self.decoder
        x = _deconv_of_pixel(self.fc_decoder(z).to(self.compute_dtype), *_cast(first, self.compute_dtype))
        x = x.contiguous(memory_format=self.memory_format).relu_()
        for layer in middle:
            x = _deconv(x, *_cast(layer, x.dtype)).relu_()
        return _deconv(x, *_cast(last, x.dtype))


def vae_loss(
    vae: ConvVAE,
    image: Float[Tensor, "b 3 64 64"],
    kl_floor: float,
    noise: Float[Tensor, "b z"] | None = None,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Per image: sum of squared differences, and max(KL(q(z|x) || N(0, 1)), floor), both summed (nats).

    Below the floor the KL has no gradient. `noise` is the N(0, 1) draw of z; None draws it here.
    """
    image = image.contiguous(memory_format=vae.memory_format)  # once, and not in every operation below
    mu, logvar = vae.encode(image)
    z = torch.addcmul(mu, (0.5 * logvar).exp(), torch.randn_like(mu) if noise is None else noise)
    error: Tensor = _SquaredError.apply(vae.decode_logit(z), image)  # type: ignore[assignment]
    return error, kl_divergence(mu, logvar).clamp_min(kl_floor)


def kl_divergence(mu: Float[Tensor, "*b z"], logvar: Float[Tensor, "*b z"]) -> Float[Tensor, "*b"]:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in nats, summed over z."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(-1)


class _SquaredError(torch.autograd.Function):
    """Sum over a frame of (sigmoid(logit) - image)^2 in float32, [B]; the slope is kept in logit's dtype."""

    @staticmethod
    def forward(ctx: FunctionCtx, logit: Tensor, image: Tensor) -> Tensor:
        pixel = logit.float().sigmoid()
        difference = pixel - image
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            slope = torch.addcmul(pixel, pixel, pixel, value=-1).mul_(difference).mul_(2)
            ctx.save_for_backward(slope.to(logit.dtype))
        return difference.square_().sum((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return slope * grad[:, None, None, None].to(slope.dtype), None


class _Deconv(torch.autograd.Function):
    """`conv_transpose2d(x, weight, bias, stride=2)` for the CPU, equal to PyTorch's.

    Bias: with one, oneDNN's forward pass takes four to seven times as long at some shapes (5 x 5 kernels), and
    its backward pass half as long again at all; a separate addition and sum cost next to nothing.
    6 x 6 kernels to few channels: output pixel (2p + r, 2q + s) sees x at p, p-1, p-2 and q, q-1, q-2 through
    the taps of parity (r, s), which is a 3 x 3 convolution of x, padded by 2, to one set of channels for each of
    the 4 parities. The direct form is three times slower.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        if weight.shape[1] > _FEW or weight.shape[2] != 6:
            if weight.shape[2] == 6:
                return F.conv_transpose2d(x, weight, bias, stride=2)
            return F.conv_transpose2d(x, weight, None, stride=2).add_(bias[:, None, None])
        taps = rearrange(weight, "i o (kh r) (kw s) -> (r s o) i kh kw", r=2, s=2).flip(2, 3)
        y = F.conv2d(x, taps.contiguous(memory_format=torch.channels_last), bias.repeat(4), padding=2)
        size = len(y), len(bias), 2 * y.shape[2], 2 * y.shape[3]
        out = torch.empty(size, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)
        pairs = rearrange(out, "b o (h r) (w s) -> b r s o h w", r=2, s=2)
        pairs.copy_(rearrange(y, "b (r s o) h w -> b r s o h w", r=2, s=2))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        exact = torch.promote_types(grad.dtype, torch.float32)
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, (2, 2), (0, 0), (1, 1), True, (0, 0), 1, (True, True, False)
        )
        images = rearrange(grad, "b o h w -> b (h w o)").sum(0, dtype=exact)
        return grad_x, grad_weight, images.view(-1, grad.shape[1]).sum(0).to(grad.dtype)


def _deconv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution with stride 2."""
    if x.device.type == "cpu":
        return _Deconv.apply(x, weight, bias)  # type: ignore[return-value]
    return F.conv_transpose2d(x, weight, bias, stride=2)


def _deconv_of_pixel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution of an image of 1 x 1: x [B in], weight [in out k k] -> [B out k k]."""
    y = x @ weight.flatten(1) + bias.repeat_interleave(weight[0, 0].numel())
    return y.view(len(x), *weight.shape[1:])


def _cast(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer in the compute dtype; the float32 originals get the gradient."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    assert layer.bias is not None
    return layer.weight.to(dtype), layer.bias.to(dtype)
