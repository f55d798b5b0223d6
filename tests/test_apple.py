"""Apple's GPUs have no float64: nothing of it may be made there. Tensors here are fakes that know only their device."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from oneiro import noise
from oneiro.behaviours.explore import RandomLinear
from oneiro.evaluation.open_loop import psnr, ssim
from oneiro.nets.ddpm import DDPM
from oneiro.spaces import ActionCodec, Spaces


class Indexed(TorchFunctionMode):
    """x[index] of a fake, which PyTorch refuses where it was built without that device: the shape is what counts."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__getitem__ and args[0].device.type == "mps":
            x, index = tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, args)
            return args[0].new_empty(x[index].shape)
        return func(*args, **(kwargs or {}))


class NoFloat64(TorchDispatchMode):
    """Fails as PyTorch does on such a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.device.type == "mps":
                assert x.dtype not in (torch.float64, torch.complex128), f"{func} makes {x.dtype}"
        return out


def keys() -> Tensor:
    return torch.zeros(3, dtype=torch.int64, device="mps")


def pictures() -> Tensor:
    return torch.zeros(2, 5, 3, 64, 64, device="mps")


def weights() -> Tensor:
    behaviour = RandomLinear().build(Spaces({}, ActionCodec(3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))))
    return behaviour.weights(keys())[1]


CASES: dict[str, Callable[[], Tensor]] = {
    "normal": lambda: noise.normal(keys(), 0, 4),
    "random policy": weights,
    "levels of DDPM": lambda: DDPM().kept(keys()),
    "noisy pictures of DDPM": lambda: DDPM().noisy(pictures()[0, :3], keys(), pictures()[0, :3]),
    "ssim": lambda: ssim(pictures(), pictures()),
    "psnr": lambda: psnr(pictures(), pictures()),
}


@pytest.mark.parametrize("case", CASES)
def test_no_float64_on_apples_gpu(case: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), NoFloat64(), Indexed():
        found = CASES[case]()
    assert (found.device.type, found.dtype) == ("mps", torch.float32)
