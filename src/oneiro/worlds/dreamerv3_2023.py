"""The world of DreamerV3's first generation, that of paper v1 (January 2023) and of the code until mid-2023.

Paper: Hafner, Pasukonis, Ba, Lillicrap 2023, "Mastering Diverse Domains through World Models" (arXiv 2301.04104v1).

The protocol, the loss and the way it is computed are those of dreamerv3.py; what differs is the networks and a few
numbers: layer norms, one plain GRU with a learned beginning, 32 variables of 32 classes, convolutions of stride 2,
pictures without a sigmoid, reward bins that are even in symlog space, half the weight on the prior's KL, and a
continuation that is trained towards 1 (the actor-critic multiplies its discount).

Not compared with recorded values of the official code, of which none are at hand; parameter counts are exact.
"""

from dataclasses import dataclass
from typing import Literal

from oneiro.nets.gru_rssm import GRURSSM
from oneiro.nets.layer_norm import NormMLP, Output
from oneiro.nets.observations import Modalities, ObsDecoder, ObsEncoder
from oneiro.nets.strided_cnn import StridedDecoder, StridedEncoder
from oneiro.nets.twohot import TwoHot
from oneiro.spaces import Spaces
from oneiro.worlds.dreamerv3 import DreamerV3, GenerationConfig, Networks

Size = Literal["s", "m", "l", "xl"]
SIZES = {"s": (512, 512, 2, 32), "m": (1024, 640, 3, 48), "l": (2048, 768, 4, 64), "xl": (4096, 1024, 5, 96)}


@dataclass(frozen=True, kw_only=True)
class DreamerV3Of2023Config(GenerationConfig):
    """The world of DreamerV3 as first published. A size sets all widths; a width other than 0 replaces its own."""

    size: Size = "s"  # 18, 37, 77 or 201 million parameters with actor and critic
    deter_dim: int = 0  # width of h; 0 = by size (512 to 4096)
    units: int = 0  # width of hidden layers; 0 = by size (512 to 1024)
    layers: int = 0  # hidden layers of the heads; 0 = by size (2 to 5)
    depth: int = 0  # channels of the CNNs, times 1, 2, 4, 8; 0 = by size (32 to 96)
    vector_layers: int = 5  # hidden layers of the encoder and decoder of vectors, whatever the size
    vector_units: int = 1024  # their width
    classes: int = 32  # classes of each variable of z
    horizon: float = float("inf")  # the continuation is trained towards 1 - 1 / horizon; inf = towards 1
    dyn_weight: float = 0.5  # of the KL that draws the prior to the posterior

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size = {self.size!r}: choose one of {', '.join(SIZES)}")
        super().__post_init__()
        if min(self.deter_dim, self.units, self.layers, self.depth) < 0:
            raise ValueError("widths must be positive, or 0 for that of the size")
        if min(self.vector_layers, self.vector_units) < 1:
            raise ValueError(
                f"vector_layers and vector_units must be at least 1, got {self.vector_layers}, {self.vector_units}"
            )
        if not 1 <= self.classes < 255:
            raise ValueError(f"classes must be 1 to 254, got {self.classes}")

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """(deter_dim, units, layers, depth) after the size has filled in what is 0."""
        own = (self.deter_dim, self.units, self.layers, self.depth)
        deter, units, layers, depth = (a or b for a, b in zip(own, SIZES[self.size], strict=True))
        return deter, units, layers, depth

    def build(self, spaces: Spaces) -> DreamerV3:
        """The world for these spaces; OneiroError if it cannot take them."""
        deter, units, layers, depth = self.widths
        seen, stoch_dim, token_dim = Modalities(spaces, "DreamerV3 (2023)"), self.stoch * self.classes, 0
        width = deter + stoch_dim
        eye = canvas = reader = writer = None
        if seen.images:
            eye = StridedEncoder(seen.image_shape, depth)
            canvas = StridedDecoder(seen.image_shape, width, depth)
            token_dim += eye.out_dim
        if seen.vectors:
            reader = NormMLP(sum(seen.widths.values()), self.vector_units, self.vector_layers)
            writer = NormMLP(width, self.vector_units, self.vector_layers)
            token_dim += self.vector_units
        dynamics = GRURSSM(
            deter_dim=deter,
            stoch=self.stoch,
            classes=self.classes,
            units=units,
            action_dim=spaces.action.dim,
            token_dim=token_dim,
            unimix=self.unimix,
        )
        heads = {name: Output(self.vector_units, n) for name, n in seen.widths.items()}
        networks = Networks(
            encoder=ObsEncoder(seen, eye, reader, token_dim),
            dynamics=dynamics,
            decoder=ObsDecoder(seen, canvas, writer, heads),
            reward=NormMLP(width, units, layers, self.bins, scale=0.0),
            cont=NormMLP(width, units, layers, 1),
            twohot=TwoHot(self.bins, space="symlog"),
        )
        return DreamerV3(self, spaces, networks)
