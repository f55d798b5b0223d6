"""Weights released by DIAMOND's authors, read into an agent of ours.

A released file is a torch state dict with names like `denoiser.inner_model.conv_in.weight`. Our modules register their
tensors in the same order, so the k-th tensor of a part is the k-th of ours; every shape is compared, and what does not
fit is reported by both names.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from oneiro.agent import Agent
from oneiro.errors import OneiroError

PREFIXES = {"denoiser": "world.denoiser", "rew_end_model": "world.reward", "actor_critic": "behaviour.net"}
"""First part of a released name -> the module of ours."""


def read_released(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a released file by name. Pickled code is refused."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise OneiroError(
            f"{path} is no file of weights only, and nothing else is read from it: {str(error).splitlines()[0]}. "
            "Name a state dict that was saved with torch.save(agent.state_dict(), ...)"
        ) from error
    found = found.get("agent", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(x, Tensor) for x in found.values()):
        raise OneiroError(f"{path} holds no tensors by name; name a state dict of DIAMOND's agent")
    return {name.removeprefix("agent."): x for name, x in found.items()}


def load_released(agent: Agent, tensors: Mapping[str, Tensor]) -> None:
    """Copy released tensors into an agent of the same sizes, in place.

    OneiroError that lists what does not fit: other sizes, another number of actions, a missing part.
    """
    problems: list[str] = []
    loaded: list[tuple[nn.Module, dict[str, Tensor]]] = []
    for prefix, address in PREFIXES.items():
        module = agent.get_submodule(address)
        theirs = [(name, x) for name, x in tensors.items() if name.startswith(f"{prefix}.")]
        ours = module.state_dict()
        if len(theirs) != len(ours):
            problems.append(f"{prefix} has {len(theirs)} tensors, our {address} {len(ours)}")
            continue
        problems += [
            f"{name} is {_size(x)}, our {address}.{own} {_size(value)}"
            for (name, x), (own, value) in zip(theirs, ours.items(), strict=True)
            if x.shape != value.shape
        ]
        loaded.append((module, {own: x for (_, x), own in zip(theirs, ours, strict=True)}))
    known = tuple(f"{prefix}." for prefix in PREFIXES)
    problems += [f"{name} belongs to no part of ours" for name in tensors if not name.startswith(known)]
    if problems:
        more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise OneiroError(
            "the released weights do not fit this agent:\n  " + "\n  ".join(problems[:12]) + more + "\n"
            "Build it at the size and for the game that they were trained for."
        )
    for module, state in loaded:
        module.load_state_dict(state)


def _size(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "scalar"
