"""The convolutional variational auto-encoder of World Models (its part V), for 64 x 64 RGB frames.

Paper: Ha & Schmidhuber 2018, arXiv 1803.10122, appendix A.1. Code: hardmaru/WorldModelsExperiments.

    image [B 3 64 64] -> conv 31 -> 14 -> 6 -> 2 (4x4, stride 2, no padding, ReLU) -> mu, logvar [B z]
    z [B z] -> fc -> 1 -> deconv 5 -> 13 -> 30 -> 64 (5x5, 5x5, 6x6, 6x6, stride 2) -> sigmoid -> image

There is no activation between the decoder's `fc` and its first transposed convolution, and no normalisation.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_ENCODER_KERNELS = (4, 4, 4, 4)
_DECODER_KERNELS = (5, 5, 6, 6)


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
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def reset_parameters(self) -> None:
        """Glorot uniform for every weight and zero for every bias, as TensorFlow 1's default."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def encode(self, image: Float[Tensor, "b 3 64 64"]) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        """Mean and log-variance of q(z | image); pixels in 0..1."""
        x = image.to(self.compute_dtype, memory_format=torch.channels_last)
        for layer in self.encoder:
            x = F.conv2d(x, *_cast(layer, x.dtype), stride=2).relu_()
        x = x.permute(0, 2, 3, 1).flatten(1).float()  # [B H*W*C], the order of the official code
        return self.fc_mu(x), self.fc_logvar(x)

    def decode(self, z: Float[Tensor, "b z"]) -> Float[Tensor, "b 3 64 64"]:
        """The frame of z, pixels in 0..1."""
        x = self.fc_decoder(z)[:, :, None, None]
        x = x.to(self.compute_dtype, memory_format=torch.channels_last)
        for i, layer in enumerate(self.decoder):
            x = F.conv_transpose2d(x, *_cast(layer, x.dtype), stride=2)
            if i < len(self.decoder) - 1:
                x = x.relu_()
        return x.float().sigmoid()


def vae_loss(
    vae: ConvVAE,
    image: Float[Tensor, "b 3 64 64"],
    kl_floor: float,
    noise: Float[Tensor, "b z"] | None = None,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Per image: sum of squared differences, and max(KL(q(z|x) || N(0, 1)), floor), both summed (nats).

    Below the floor the KL has no gradient. `noise` is the N(0, 1) draw of z; None draws it here.
    """
    mu, logvar = vae.encode(image)
    z = torch.addcmul(mu, (0.5 * logvar).exp(), torch.randn_like(mu) if noise is None else noise)
    error = (vae.decode(z) - image).square().sum((1, 2, 3))
    return error, kl_divergence(mu, logvar).clamp_min(kl_floor)


def kl_divergence(mu: Float[Tensor, "*b z"], logvar: Float[Tensor, "*b z"]) -> Float[Tensor, "*b"]:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in nats, summed over z."""
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(-1)


def _cast(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer in the compute dtype; the float32 originals get the gradient."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    assert layer.bias is not None
    return layer.weight.to(dtype), layer.bias.to(dtype)
