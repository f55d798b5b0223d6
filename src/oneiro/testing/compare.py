"""How two states are compared: not by their tensors but by what they show and what follows from them.

A cache of a blank row may hold anything as long as its length is zero, so raw tensors prove nothing. Chance is
taken out by `StillDice`, under which every draw is its central value: a batch of four and a batch of one, a loop
and a scan then agree although they draw different numbers of random numbers.
"""

import math
from collections.abc import Callable
from typing import Any

import optree
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from oneiro import tree
from oneiro.errors import Undecodable
from oneiro.testing.checks import violated
from oneiro.types import Obs, State, TimeStep
from oneiro.world import WorldModel


def outlook(world: WorldModel, state: State, actions: Tensor, row: TimeStep) -> dict[str, Any]:
    """What `state` [B] (not consumed) shows and what follows: imagined steps at temperature 0 by `actions`
    [B, K, A], then one real row.
    """
    state = tree.clone(state)
    seen: dict[str, Any] = {"now": look(world, state)}
    with torch.no_grad(), StillDice():
        for k in range(actions.shape[1]):
            prediction = world.step(state, actions[:, k], 0.0)
            state = prediction.state
            seen[f"after {k + 1} imagined steps"] = {
                "feature": world.feature(state),
                "reward": prediction.reward,
                "cont": prediction.cont,
            }
        seen["after one more real row"] = world.feature(world.observe(state, tree.clone(row)))
    return seen


def look(world: WorldModel, state: State) -> dict[str, Any]:
    """Feature and, where there is one, the picture."""
    with torch.no_grad(), StillDice():
        return {"feature": world.feature(state), "decode": decode_or_nothing(world, state)}


def decode_or_nothing(world: WorldModel, state: State) -> Obs:
    """`decode`, or nothing where the world says that it cannot draw."""
    try:
        return world.decode(state)
    except Undecodable:
        return {}


def same(found: Any, expected: Any, atol: float, claim: str) -> None:
    """Violated, in the words of `claim`, unless both trees hold the same numbers within `atol`."""
    if difference := first_difference(found, expected, atol):
        violated(f"{claim}, but {difference}")


def first_difference(found: Any, expected: Any, atol: float) -> str | None:
    """A sentence about the first place where two trees of tensors differ; None if they agree."""
    if change := structure_change(found, expected):
        return change
    for (path, a), b in zip(named_leaves(found), tree.leaves(expected), strict=True):
        if a.dtype.is_floating_point:
            a, b = a.detach().double().cpu(), b.detach().double().cpu()
            if not torch.isfinite(a).all() or not torch.isfinite(b).all():
                if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
                    return f"{path} is not finite"
                a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
            worst = (a - b).abs().sub(atol * (1 + b.abs())).max().item() if a.numel() else 0.0
            if worst > 0:
                gap = (a - b).abs().amax().item()
                return f"{path} differs by up to {gap:.2g} (allowed: {atol:.0e}){_rows(a, b, atol)}"
        elif not torch.equal(a.cpu(), b.cpu()):
            return f"{path} differs{_rows(a.cpu().double(), b.cpu().double(), atol)}"
    return None


def structure_change(found: Any, expected: Any) -> str | None:
    """A sentence about names, shapes or dtypes that differ between two trees; None if they agree."""
    a, b = dict(named_leaves(found)), dict(named_leaves(expected))
    if a.keys() != b.keys():
        return f"it holds {sorted(a)} instead of {sorted(b)}"
    for path, x in a.items():
        if x.shape != b[path].shape:
            return f"{path} has shape {list(x.shape)} instead of {list(b[path].shape)}"
        if x.dtype != b[path].dtype:
            return f"{path} has dtype {x.dtype} instead of {b[path].dtype}"
    return None


def named_leaves(record: Any) -> list[tuple[str, Tensor]]:
    """(dotted name, tensor) of every tensor of a tree."""
    paths, leaves, _ = optree.tree_flatten_with_path(record, namespace=tree.NAMESPACE)
    return [(".".join(map(str, p)) or "it", x) for p, x in zip(paths, leaves, strict=True)]  # type: ignore[misc]


def _rows(a: Tensor, b: Tensor, atol: float) -> str:
    if a.ndim == 0 or len(a) < 2:
        return ""
    wrong = ((a - b).abs() > atol * (1 + b.abs())).flatten(1).any(1) if a.ndim > 1 else (a - b).abs() > atol
    return f" in rows {wrong.nonzero().flatten().tolist()} of {len(a)}"


class StillDice(TorchFunctionMode):
    """While active, every random draw of torch is its central value: normals are their mean, uniforms the
    middle, categories the likeliest; dropout is off.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each of its functions."""
        kwargs = kwargs or {}
        stand_in = _STAND_IN.get(func)
        if stand_in is None:
            return func(*args, **kwargs)
        kwargs.pop("generator", None)
        return stand_in(*args, **kwargs)


def _normal(mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    if size is not None:
        return torch.full(tuple(size), float(mean), **options)
    shape = torch.broadcast_shapes(*(x.shape for x in (mean, std) if isinstance(x, Tensor)))
    like = mean if isinstance(mean, Tensor) else std
    return (mean if isinstance(mean, Tensor) else torch.full_like(like, float(mean))).expand(shape).clone()


def _multinomial(p: Tensor, num_samples: int, replacement: bool = False, **_: Any) -> Tensor:
    if replacement or num_samples > p.shape[-1]:
        return p.argmax(-1, keepdim=True).repeat(*[1] * (p.ndim - 1), num_samples)
    return p.topk(num_samples, dim=-1).indices


def _randint(*args: Any, low: Any = 0, high: Any = None, size: Any = None, **options: Any) -> Tensor:
    numbers = [x for x in args if isinstance(x, int)]
    size = next((x for x in args if not isinstance(x, int)), size)
    low, high = ([low, *numbers] if len(numbers) == 1 else numbers) if numbers else (low, high)
    return torch.full(tuple(size), (low + high - 1) // 2, **{"dtype": torch.int64, **options})


def _same(x: Tensor, *args: Any, **options: Any) -> Tensor:
    return x


_STAND_IN: dict[Any, Callable[..., Any]] = {
    torch.randn: torch.zeros,
    torch.randn_like: torch.zeros_like,
    torch.rand: lambda *size, **options: torch.zeros(*size, **options).add_(0.5),
    torch.rand_like: lambda x, **options: torch.full_like(x, 0.5, **options),
    torch.randint: _randint,
    torch.randperm: torch.arange,
    torch.normal: _normal,
    torch.multinomial: _multinomial,
    torch.Tensor.multinomial: _multinomial,
    torch.bernoulli: lambda p, *_, **__: (p >= 0.5).to(p.dtype),
    torch.Tensor.bernoulli: lambda p, *_, **__: (p >= 0.5).to(p.dtype),
    torch.Tensor.bernoulli_: lambda x, p=0.5, **_: x.copy_(torch.as_tensor(p).ge(0.5).expand_as(x)),
    torch.Tensor.normal_: lambda x, mean=0.0, std=1.0, **_: x.fill_(mean),
    torch.Tensor.uniform_: lambda x, low=0.0, high=1.0, **_: x.fill_((low + high) / 2),
    torch.Tensor.exponential_: lambda x, lambd=1.0, **_: x.fill_(math.log(2) / lambd),
    torch.nn.functional.dropout: _same,
    torch.nn.functional.dropout1d: _same,
    torch.nn.functional.dropout2d: _same,
    torch.nn.functional.dropout3d: _same,
    torch.nn.functional.alpha_dropout: _same,
    torch.dropout: _same,
}
