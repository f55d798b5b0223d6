"""Pictures, vectors and categories in one encoder and one decoder, as DreamerV3 combines them.

    encoder   all pictures, side by side as channels --CNN--.
              all vectors (symlog) and categories --MLP-----+--> tokens
    decoder   h, z --CNN--> pictures         error: sum of squares over pixels and colours
              z, h --MLP--> vectors          error: sum of squares of the difference to symlog(x)
                        --> categories       error: cross entropy

Modalities are taken in alphabetical order.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from oneiro.errors import OneiroError
from oneiro.nets import cnn
from oneiro.nets.layers import MLP, Linear
from oneiro.nets.twohot import symexp, symlog
from oneiro.runtime import memory_format
from oneiro.spaces import Spaces, to_float
from oneiro.types import Obs

_sigmoid_backward = torch.ops.aten.sigmoid_backward.default


class Modalities:
    """Which modalities there are, sorted into pictures and the rest."""

    def __init__(self, spaces: Spaces, world: str) -> None:
        """OneiroError if there are none, or pictures that `world` cannot take."""
        self.shapes, self.classes = spaces.obs, spaces.classes
        self.images = sorted(name for name, shape in spaces.obs.items() if len(shape) == 3)
        self.vectors = sorted(set(spaces.obs) - set(self.images))
        if not spaces.obs:
            raise OneiroError(f"{world} is shown nothing; the environment must have at least one modality")
        for name in self.images:
            cnn.require_size(self.shapes[name], name, world)
        sizes = {name: self.shapes[name][1:] for name in self.images}
        if len(set(sizes.values())) > 1:
            raise OneiroError(f"{world} takes pictures of one size, it is given {sizes}; resize them alike")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of all pictures side by side."""
        _, height, width = self.shapes[self.images[0]]
        return sum(self.shapes[name][0] for name in self.images), height, width

    @property
    def widths(self) -> dict[str, int]:
        """Numbers in each vector and category."""
        return {name: math.prod(self.shapes[name]) for name in self.vectors}


class ObsEncoder(nn.Module):
    """Observations of N rows -> tokens [N, out_dim]."""

    def __init__(
        self, modalities: Modalities, depth: int, mults: Sequence[int], units: int, layers: int
    ) -> None:
        super().__init__()
        self.modalities, self.out_dim = modalities, 0
        self.image = self.vector = None
        if modalities.images:
            self.image = cnn.ImageEncoder(modalities.image_shape, depth, mults)
            self.out_dim += self.image.out_dim
        if modalities.vectors:
            self.vector = MLP(sum(modalities.widths.values()), units, layers)
            self.out_dim += units

    def forward(self, obs: Obs, dtype: torch.dtype) -> Tensor:
        """In `dtype`; pictures are uint8 or floats in 0..1."""
        m, tokens = self.modalities, []
        if missing := [name for name in m.shapes if name not in obs]:
            raise ValueError(f"the rows lack {missing}; the world was built for {sorted(m.shapes)}")
        if self.image is not None:
            pictures = _side_by_side([obs[name] for name in m.images])
            pictures = pictures.contiguous(memory_format=memory_format())
            scale = 1 / 255 if pictures.dtype == torch.uint8 else 1.0
            tokens.append(self.image(pictures.to(dtype, copy=True).mul_(scale).sub_(0.5)))
        if self.vector is not None:
            inputs = [
                obs[name].flatten(1) if name in m.classes else symlog(obs[name].float().reshape(-1, width))
                for name, width in m.widths.items()
            ]
            tokens.append(self.vector(torch.cat(inputs, -1).to(dtype)))
        return torch.cat(tokens, -1)


class ObsDecoder(nn.Module):
    """h [N, D] and flat z [N, Z] -> observations of N rows."""

    def __init__(
        self,
        modalities: Modalities,
        deter_dim: int,
        stoch_dim: int,
        depth: int,
        mults: Sequence[int],
        units: int,
        layers: int,
        blocks: int,
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.image = self.vector = None
        if modalities.images:
            shape = modalities.image_shape
            self.image = cnn.ImageDecoder(shape, deter_dim, stoch_dim, 2 * units, depth, mults, blocks)
        if modalities.vectors:
            self.vector = MLP(stoch_dim + deter_dim, units, layers)
        self.heads = nn.ModuleDict({name: Linear(units, n) for name, n in modalities.widths.items()})

    def errors(self, h: Tensor, z: Tensor, obs: Obs) -> dict[str, Tensor]:
        """By modality, float32 [N]: summed over pixels and numbers. The dtype of `h` is that of the layers."""
        m, errors = self.modalities, {}
        if self.image is not None:
            drawn = self.image.packed(h, z).float()
            channels = [m.shapes[name][0] for name in m.images]
            parts = drawn.split(channels, -1) if len(channels) > 1 else (drawn,)
            for name, logits in zip(m.images, parts, strict=True):
                errors[name] = _SquaredError.apply(logits, obs[name])
        for name, out in self._outputs(h, z).items():
            truth = obs[name].float().reshape(out.shape)
            if name in m.classes:
                errors[name] = -(truth * F.log_softmax(out, -1)).sum(-1)
            else:
                errors[name] = (out - symlog(truth)).square().sum(-1)
        return errors

    def forward(self, h: Tensor, z: Tensor) -> Obs:
        """Float32: pictures in 0..1, vectors, categories as the one-hot of the likeliest."""
        m, obs = self.modalities, {}
        if self.image is not None:
            drawn = cnn.unpack(torch.sigmoid(self.image.packed(h, z).float()))
            channels = [m.shapes[name][0] for name in m.images]
            obs |= dict(zip(m.images, drawn.split(channels, 1), strict=True))
        for name, out in self._outputs(h, z).items():
            best = F.one_hot(out.argmax(-1), out.shape[-1]).float() if name in m.classes else symexp(out)
            obs[name] = best.reshape(-1, *m.shapes[name])
        return obs

    def _outputs(self, h: Tensor, z: Tensor) -> dict[str, Tensor]:
        if self.vector is None:
            return {}
        x = self.vector(torch.cat([z, h], -1))
        return {name: self.heads[name](x).float() for name in self.modalities.vectors}


class _SquaredError(torch.autograd.Function):
    """Logits [N, h, w, 2, 2, C] and picture [N, C, H, W] -> [N]: sum of (sigmoid(logits) - picture)^2."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, picture: Tensor) -> Tensor:
        drawn = torch.sigmoid(logits)
        difference = cnn.pack(picture).contiguous().to(drawn.dtype, copy=True)
        if picture.dtype == torch.uint8:
            difference.mul_(1 / 255)
        difference = torch.sub(drawn, difference, out=difference)
        ctx.save_for_backward(drawn, difference)
        return torch.linalg.vector_norm(difference.flatten(1), dim=1).square_()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        drawn, difference = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = (2 * grad).view(-1, *[1] * (drawn.ndim - 1))
        return _sigmoid_backward(difference * scale, drawn), None


def _side_by_side(pictures: list[Tensor]) -> Tensor:
    """[N, C, H, W] each -> [N, sum of C, H, W] in channels-last memory if it is a copy anyway."""
    if len(pictures) == 1:
        return pictures[0]
    dtype = pictures[0].dtype if len({p.dtype for p in pictures}) == 1 else torch.float32
    return torch.cat([p if p.dtype == dtype else to_float(p) for p in pictures], 1)
