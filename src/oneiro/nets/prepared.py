"""Weights in the form that one dream uses, made once and made anew when the originals change."""

import copy
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from oneiro.runtime import memory_format

Made = TypeVar("Made")
Net = TypeVar("Net", bound=nn.Module)


def without_gradient(net: Net, dtype: torch.dtype) -> Net:
    """A copy whose convolutions have their weights in `dtype` and in the layout of pictures, as they use them."""
    made = copy.deepcopy(net).requires_grad_(False)
    for part in made.modules():
        if isinstance(part, nn.Conv2d):
            part.to(dtype=dtype, memory_format=memory_format())  # type: ignore[call-overload]
    return made


class Prepared(Generic[Made]):
    """`make()`, kept for as long as none of the `parameters` it is made from is written to.

    It belongs to a dream (see `WorldModel.stepper`) and never to a module. A change is seen by the version that
    PyTorch counts up with every write (`copy_`, loading a state dict, a step of the library's optimizers) and by
    the address, which is new after `parameter.data = other`. Unseen go writes into `parameter.data[...]` and
    those of a fused torch optimizer that was not built by `training.optim`.
    """

    def __init__(self, make: Callable[[], Made], parameters: Iterable[Tensor]) -> None:
        self.make, self.parameters = make, list(parameters)
        self._remake()

    def get(self) -> Made:
        """The present one."""
        for parameter, seen, version in zip(self.parameters, self._seen, self._versions, strict=True):
            if parameter._version != version or parameter.data_ptr() != seen.data_ptr():
                self._remake()
                break
        return self._made

    def _remake(self) -> None:
        self._made = self.make()
        self._versions = [parameter._version for parameter in self.parameters]
        # Kept alive, so that no later tensor can have the same address.
        self._seen = [parameter.detach() for parameter in self.parameters]
