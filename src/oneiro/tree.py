"""Operations on nested dicts of tensors whose first axis is the batch.

The walking is done by `optree`; records of the spine (`TimeStep`, `Carry`, ...) are registered as nodes, so
every function here takes them too. `None` is an empty branch.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import optree
import torch
from torch import Tensor

NAMESPACE = "oneiro"
Tree = TypeVar("Tree")


def map(function: Callable[..., Any], tree: Tree, *rest: Any) -> Tree:
    """Apply `function` to every tensor of `tree` (and the tensors at the same places of `rest`)."""
    return optree.tree_map(function, tree, *rest, namespace=NAMESPACE)  # type: ignore[return-value]


def leaves(tree: Any) -> list[Tensor]:
    """All tensors of `tree`, in a fixed order."""
    return optree.tree_leaves(tree, namespace=NAMESPACE)  # type: ignore[return-value]


def size(tree: Any) -> int:
    """Number of rows: the length of axis 0, the same for every tensor."""
    sizes = {leaf.shape[0] for leaf in leaves(tree)}
    assert len(sizes) == 1, f"tensors disagree on the number of rows: {sorted(sizes)}"
    return sizes.pop()


def stack(trees: Sequence[Tree], axis: int = 0) -> Tree:
    """Join trees of one structure along a new axis."""
    return map(lambda *xs: torch.stack(xs, axis), *trees)


def concat(trees: Sequence[Tree], axis: int = 0) -> Tree:
    """Join trees of one structure along an existing axis."""
    return map(lambda *xs: torch.cat(xs, axis), *trees)


def where(condition: Tensor, yes: Tree, no: Tree) -> Tree:
    """Row by row, `yes` where `condition` [B] holds, else `no`."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return map(pick, yes, no)


def repeat(tree: Tree, times: int) -> Tree:
    """Each row `times` times in a row: B rows become B * times."""
    return map(lambda x: x.repeat_interleave(times, 0), tree)


def clone(tree: Tree) -> Tree:
    """A copy that shares no memory, so that the original survives being consumed."""
    return map(torch.clone, tree)


def take(tree: Tree, index: Any) -> Tree:
    """Rows `index` (integers, a mask or a slice) of every tensor."""
    return map(lambda x: x[index], tree)


def put(tree: Tree, index: Any, rows: Tree) -> Tree:
    """A copy of `tree` in which rows `index` are replaced by `rows`."""

    def write(x: Tensor, y: Tensor) -> Tensor:
        x = x.clone()
        x[index] = y
        return x

    return map(write, tree, rows)


def detach(tree: Tree) -> Tree:
    """The same values, cut from the graph."""
    return map(torch.detach, tree)


def to(tree: Tree, device: torch.device | str) -> Tree:
    """Every tensor on `device`."""
    return map(lambda x: x.to(device), tree)
