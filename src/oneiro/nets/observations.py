"""Pictures, vectors and categories in one encoder and one decoder, as DreamerV3 combines them.

    encoder   all pictures, side by side as channels --CNN--.
              all vectors (symlog) and categories --MLP-----+--> tokens
    decoder   h, z --CNN--> pictures         error: sum of squares over pixels and colours
              z, h --MLP--> vectors          error: sum of squares of the difference to symlog(x)
                        --> categories       error: cross entropy

Modalities are taken in alphabetical order.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneiro.errors import OneiroError
from oneiro.nets import cnn
from oneiro.nets.twohot import symexp, symlog
from oneiro.runtime import memory_format
from oneiro.spaces import Spaces, to_float
from oneiro.types import Obs


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
    """Observations of N rows -> tokens [N, out_dim], by a network for pictures and one for numbers (if any)."""

    def __init__(
        self, modalities: Modalities, image: nn.Module | None, vector: nn.Module | None, out_dim: int
    ) -> None:
        super().__init__()
        self.modalities, self.image, self.vector, self.out_dim = modalities, image, vector, out_dim

    def forward(self, obs: Obs, dtype: torch.dtype) -> Tensor:
        """In `dtype`; pictures are uint8 or floats in 0..1."""
        return self._tokens(obs, dtype, self.image)

    def prepared(self, dtype: torch.dtype) -> Callable[[Obs], Tensor]:
        """`forward` in `dtype`, with the pictures' kernels made once; without a graph."""
        image = None if self.image is None else self.image.prepared(dtype)  # type: ignore[operator]
        return lambda obs: self._tokens(obs, dtype, image)

    def _tokens(self, obs: Obs, dtype: torch.dtype, image: cnn.Layer | None) -> Tensor:
        m, tokens = self.modalities, []
        if missing := [name for name in m.shapes if name not in obs]:
            raise ValueError(f"the rows lack {missing}; the world was built for {sorted(m.shapes)}")
        if image is not None:
            pictures = _side_by_side([obs[name] for name in m.images])
            pictures = pictures.contiguous(memory_format=memory_format())
            scale = 1 / 255 if pictures.dtype == torch.uint8 else 1.0
            tokens.append(image(pictures.to(dtype, copy=True).mul_(scale).sub_(0.5)))
        if self.vector is not None:
            inputs = [
                obs[name].flatten(1) if name in m.classes else symlog(obs[name].float().reshape(-1, width))
                for name, width in m.widths.items()
            ]
            tokens.append(self.vector(torch.cat(inputs, -1).to(dtype)))
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens, -1)


class ObsDecoder(nn.Module):
    """h [N, D] and flat z [N, Z] -> observations of N rows. `vector` reads [z, h], `heads` what it makes of it."""

    def __init__(
        self,
        modalities: Modalities,
        image: cnn.Canvas | None,
        vector: nn.Module | None,
        heads: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self.modalities, self.image, self.vector = modalities, image, vector
        self.heads = nn.ModuleDict({_key(name): head for name, head in heads.items()})

    def errors(self, h: Tensor, z: Tensor, obs: Obs) -> dict[str, Tensor]:
        """By modality, float32 [N]: summed over pixels and numbers. The dtype of `h` is that of the layers."""
        m, errors = self.modalities, {}
        if self.image is not None:
            drawn = self.image(h, z)
            channels = [m.shapes[name][0] for name in m.images]
            parts = drawn.split(channels, -1) if len(channels) > 1 else (drawn,)
            for name, part in zip(m.images, parts, strict=True):
                errors[name] = self.image.error(part, obs[name])
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
            drawn = self.image.picture(self.image(h, z))
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
        return {name: self.heads[_key(name)](x.float()) for name in self.modalities.vectors}


_TAKEN = frozenset(dir(nn.ModuleDict()))


def _key(name: str) -> str:
    """The key of a modality's layer: its name, unless torch allows none of that name (`values`, `type`, a dot)."""
    if name and name not in _TAKEN and "." not in name and not name.startswith("obs:"):
        return name
    return "obs:" + name.replace("%", "%25").replace(".", "%2E")


def _side_by_side(pictures: list[Tensor]) -> Tensor:
    """[N, C, H, W] each -> [N, sum of C, H, W] in channels-last memory if it is a copy anyway."""
    if len(pictures) == 1:
        return pictures[0]
    dtype = pictures[0].dtype if len({p.dtype for p in pictures}) == 1 else torch.float32
    return torch.cat([p if p.dtype == dtype else to_float(p) for p in pictures], 1)
