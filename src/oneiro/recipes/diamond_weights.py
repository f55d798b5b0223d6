"""Weights released by DIAMOND's authors, read into an agent of ours.

A released file is a torch state dict with names like `denoiser.inner_model.conv_in.weight`. Our modules register their
tensors in the same order, so the k-th tensor of a part is the k-th of ours; every shape is compared, and so is the last
word of a name where it tells a weight from a bias. What does not fit is reported by both names.
"""

import pickle
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from oneiro.agent import Agent
from oneiro.errors import OneiroError

PREFIXES = {"denoiser": "world.denoiser", "rew_end_model": "world.reward", "actor_critic": "behaviour.net"}
"""First part of a released name -> the module of ours."""
KINDS = ("weight", "bias", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""Last words of names that say what a tensor is; those of nn.LSTM end in _l0 besides."""
SHOWN = 6
"""Tensors of a part that are named when it does not fit."""


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
    is_named = isinstance(found, Mapping) and all(isinstance(name, str) for name in found)
    if not is_named or not all(isinstance(x, Tensor) for x in found.values()):
        raise OneiroError(f"{path} holds no tensors by name; name a state dict of DIAMOND's agent")
    broken = [name for name, x in found.items() if not x.isfinite().all()]
    if broken:
        raise OneiroError(
            f"{path}: {broken[0]} holds NaN or infinity ({len(broken)} tensors do); the training that saved them "
            "had failed, or the file is damaged. Download it again, or take an earlier one"
        )
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
        problems += _differences(prefix, theirs, address, ours)
        loaded.append((module, {own: x for (_, x), own in zip(theirs, ours, strict=False)}))
    known = tuple(f"{prefix}." for prefix in PREFIXES)
    strange = [f"{name} belongs to no part of ours" for name in tensors if not name.startswith(known)]
    problems += _first(strange)
    if problems:
        raise OneiroError(
            "the released weights do not fit this agent:\n  " + "\n  ".join(problems) + "\n"
            "Build it at the size and for the game that they were trained for."
        )
    for module, state in loaded:
        module.load_state_dict(state)


def _differences(
    prefix: str, theirs: list[tuple[str, Tensor]], address: str, ours: Mapping[str, Tensor]
) -> list[str]:
    """Lines about the tensors of one part that differ; what one side has too many comes last."""
    lines, theirs_left, ours_left = [], [], []
    for their, own in zip_longest(theirs, ours.items()):
        if their is None:
            ours_left.append(f"our {address}.{own[0]} {_size(own[1])} has no counterpart in the file")
        elif own is None:
            theirs_left.append(f"{their[0]} {_size(their[1])} has no counterpart in our {address}")
        elif their[1].shape != own[1].shape:
            lines.append(f"{their[0]} is {_size(their[1])}, our {address}.{own[0]} {_size(own[1])}")
        elif _kind(their[0]) not in (None, _kind(own[0])):
            lines.append(f"{their[0]} is another kind of tensor than our {address}.{own[0]}")
    left = _first(theirs_left) + _first(ours_left)
    count = [f"{prefix} has {len(theirs)} tensors, our {address} {len(ours)}:"] if left else []
    return count + _first(lines) + left


def _first(lines: list[str]) -> list[str]:
    """The first few, and how many more there are."""
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _kind(name: str) -> str | None:
    """Its last word, if that says what it is."""
    word = name.rpartition(".")[2].removesuffix("_l0")
    return word if word in KINDS else None


def _size(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "scalar"
