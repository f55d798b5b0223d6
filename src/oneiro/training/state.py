"""Everything a run remembers as flat tensors and JSON: modules, optimizers, random number generators.

`flatten` splits any tree of dicts, lists, tuples, numbers, arrays and tensors into {name: tensor} and strict
JSON in which each tensor is a mention of its name; `unflatten` is its inverse. Nothing is pickled.

    {"state": {0: {"exp_avg": T}}, "lr": inf}
        -> {"state.0.exp_avg": T},  {"state": {"$items": [[0, {"exp_avg": {"$tensor": "state.0.exp_avg"}}]]},
                                     "lr": {"$float": "Infinity"}}
"""

import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from oneiro.errors import OneiroError
from oneiro.training.files import plain


def flatten(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into named tensors and JSON. Raises TypeError on anything that has no such form."""
    tensors: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor, kind: str) -> dict[str, str]:
        if name in tensors:
            raise ValueError(f"two tensors would be called {name!r}; rename a key of the tree")
        tensors[name] = tensor.detach()
        return {kind: name}

    def walk(node: Any, name: str) -> Any:
        def below(key: Any) -> str:
            return f"{name}.{key}" if name else str(key)

        if isinstance(node, Tensor):
            return keep(name, node, "$tensor")
        if isinstance(node, np.ndarray):
            return keep(name, torch.from_numpy(np.ascontiguousarray(node).reshape(node.shape)), "$array")
        if isinstance(node, Mapping):
            if all(isinstance(key, str) and not key.startswith("$") for key in node):
                return {key: walk(item, below(key)) for key, item in node.items()}
            return {"$items": [[plain(key), walk(item, below(key))] for key, item in node.items()]}
        if isinstance(node, tuple):
            return {"$tuple": [walk(item, below(i)) for i, item in enumerate(node)]}
        if isinstance(node, list):
            return [walk(item, below(i)) for i, item in enumerate(node)]
        value = plain(node)
        return {"$float": value} if isinstance(node, float) and isinstance(value, str) else value

    return tensors, walk(tree, "")


def unflatten(tensors: Mapping[str, Tensor], tree: Any) -> Any:
    """Inverse of `flatten`."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        match node:
            case {"$tensor": name}:
                return tensors[name]
            case {"$array": name}:
                return tensors[name].numpy().copy()
            case {"$float": text}:
                return float(text)
            case {"$tuple": items}:
                return tuple(walk(item) for item in items)
            case {"$items": items}:
                return {key: walk(item) for key, item in items}
        return {key: walk(item) for key, item in node.items()}

    return walk(tree)


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Weights and persistent buffers by dotted name, detached (not copied)."""
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Copy `tensors` into `module`, in place; names and shapes must be the same on both sides."""
    own = module.state_dict()
    problems = [f"missing: {name} {_shape(own[name])}" for name in own if name not in tensors]
    problems += [f"unexpected: {name} {_shape(tensors[name])}" for name in tensors if name not in own]
    problems += [
        f"different: {name} is {_shape(tensors[name])}, expected {_shape(own[name])}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise OneiroError(
            f"the weights of {source} do not fit this model:\n  " + "\n  ".join(problems[:12]) + more + "\n"
            "Use the recipe and the options they were trained with: recipe.json in the run folder lists them."
        )
    module.load_state_dict(dict(tensors))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's `state_dict`: a tree for `flatten`."""
    return optimizer.state_dict()


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any], source: str = "the checkpoint") -> None:
    """Restore `saved` into an optimizer over parameters of the same shapes.

    Which kernel is used (fused, foreach, capturable) stays the choice of this machine. Each state tensor
    takes the memory layout of its parameter: fused kernels walk both in storage order.
    """
    groups = []
    for now, then in zip(optimizer.param_groups, saved["param_groups"], strict=False):
        kernel = {name: now[name] for name in ("fused", "foreach", "capturable") if name in now}
        groups.append({**then, **kernel})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in groups for number in group["params"]]
    if len(groups) != len(saved["param_groups"]) or len(numbers) != len(parameters):
        raise OneiroError(
            f"the optimizer of {source} moves {len(numbers)} tensors in {len(saved['param_groups'])} groups, "
            f"this one {len(parameters)} in {len(optimizer.param_groups)}. Use the recipe it was trained with."
        )
    state = {}
    for number, parameter in zip(numbers, parameters, strict=True):
        if number in saved["state"]:
            state[number] = {
                name: _laid_out(value, parameter, f"{name} of tensor {number}", source)
                for name, value in saved["state"][number].items()
            }
    optimizer.load_state_dict({**saved, "state": state, "param_groups": groups})


def _laid_out(value: Any, parameter: Tensor, name: str, source: str) -> Any:
    if not isinstance(value, Tensor) or value.ndim == 0:  # Adam counts its steps in a scalar tensor
        return value.clone() if isinstance(value, Tensor) else value
    if value.shape != parameter.shape:
        raise OneiroError(
            f"the optimizer of {source} does not fit: {name} is {_shape(value)}, its parameter "
            f"{_shape(parameter)}. Use the recipe it was trained with."
        )
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def random_state() -> dict[str, Any]:
    """The global generators (Python, NumPy, torch, every CUDA device in use): a tree."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(tree: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    random.setstate(tree["python"])
    np.random.set_state(tree["numpy"])
    torch.set_rng_state(tree["torch"])
    if tree["cuda"] and torch.cuda.is_available():
        if len(tree["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(tree["cuda"])
        else:
            warnings.warn(
                f"random numbers of {len(tree['cuda'])} GPUs were saved, {torch.cuda.device_count()} are "
                "here: the run goes on, but not with the numbers of an uninterrupted one",
                stacklevel=2,
            )
