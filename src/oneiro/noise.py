"""Random numbers that are a function of (key, counter): nothing is drawn, nothing has to be saved.

A behaviour keeps an int64 `key` [B] and a step counter in its memory; the same row gets the same numbers in any
batch, in any order, on any device. The counter-th number of the splitmix64 generator (Steele et al. 2014) seeded
with `key` seeds another one, which gives the row; int64 wraps around as the uint64 of the original does.
"""

import math

import numpy as np
import torch
from torch import Tensor

from oneiro.runtime import wide_device

_GOLDEN = -7046029254386353131  # 0x9e3779b97f4a7c15
_MIX_1 = -4658895280553007687  # 0xbf58476d1ce4e5b9
_MIX_2 = -7723592293110705685  # 0x94d049bb133111eb


def uniform(key: Tensor, counter: Tensor | int, n: int) -> Tensor:
    """float32 [B, n] in [0, 1), on a grid of 2^-24: key [B] int64, counter [B] int64 or one for all rows."""
    return _bits(key, counter, n).float() * 2.0**-24


def normal(key: Tensor, counter: Tensor | int, n: int) -> Tensor:
    """Standard normal float32 [B, n] (Box-Muller), from 2n of the numbers `uniform` gives for this counter."""
    bits = _bits(key, counter, 2 * n).to(wide_device(key.device), torch.float64)
    radius, angle = bits.chunk(2, -1)
    radius = (-2 * torch.log((radius + 1) * 2.0**-24)).sqrt()  # of (0, 1], so that the log is finite
    return (radius * torch.cos(angle * (2 * math.pi * 2.0**-24))).to(key.device, torch.float32)


def _bits(key: Tensor, counter: Tensor | int, n: int) -> Tensor:
    """int64 [B, n] in 0 .. 2^24 - 1."""
    assert key.dtype == torch.int64, f"a key is int64, got {key.dtype}"
    # A tensor inside a transform of torch.func has no memory that NumPy could read.
    if key.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(key):  # type: ignore[attr-defined]
        return _bits_by_numpy(key, counter, n)
    return _bits_by_torch(key, counter, n)


def _bits_by_numpy(key: Tensor, counter: Tensor | int, n: int) -> Tensor:
    """On the CPU: some 25 operations on a few numbers cost a quarter of what they cost in torch, on many the half."""
    count = counter.numpy().view(np.uint64) if isinstance(counter, Tensor) else np.array([counter], np.uint64)
    golden = np.uint64(_GOLDEN % 2**64)
    row = _mix_by_numpy(key.numpy().view(np.uint64) + (count + np.uint64(1)) * golden)
    column = np.arange(1, n + 1, dtype=np.uint64) * golden
    mixed = _mix_by_numpy(row[:, None] + column)
    mixed >>= np.uint64(40)
    return torch.from_numpy(mixed.view(np.int64))


def _mix_by_numpy(x: np.ndarray) -> np.ndarray:
    """`x`, which is used up."""
    for places, factor in ((30, _MIX_1), (27, _MIX_2)):
        x ^= x >> np.uint64(places)
        x *= np.uint64(factor % 2**64)
    x ^= x >> np.uint64(31)
    return x


def _bits_by_torch(key: Tensor, counter: Tensor | int, n: int) -> Tensor:
    row = _mix(key + (counter + 1) * torch.full_like(key, _GOLDEN))
    column = torch.arange(1, n + 1, device=key.device) * _GOLDEN
    return _shift(_mix(row[:, None] + column), 40)


def _mix(x: Tensor) -> Tensor:
    """The finalizer of splitmix64: every bit of the result depends on every bit of x."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, places: int) -> Tensor:
    """Right shift that fills with zeros (torch's own repeats the sign)."""
    return (x >> places) & ((1 << (64 - places)) - 1)
