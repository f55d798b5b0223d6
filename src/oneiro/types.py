"""The records that rooms exchange. Shapes: B batch, T time, N dream rows, H horizon.

Arrival rows: row t holds what *arrived* at t and the action that led there,

    (action_t -> reward_t, obs_t, terminated_t)        zeros for action and reward where is_first

so the last observation of an episode is an ordinary row.
"""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import optree
from torch import Tensor

from oneiro.tree import NAMESPACE

State = dict[str, Any]
"""Nested dict of tensors, axis 0 = batch: everything a world remembers."""

Obs = dict[str, Tensor]
"""Observations by modality: "image" uint8 [.., C, H, W], "vector" float32 [.., D]."""

Record = TypeVar("Record")


def _node(cls: type[Record]) -> type[Record]:
    """Register a dataclass so that `oneiro.tree` walks into it."""
    names = tuple(f.name for f in fields(cls))  # type: ignore[arg-type]

    def unflatten(_: Any, children: Any) -> Any:
        return cls(**dict(zip(names, children, strict=True)))

    optree.register_pytree_node(
        cls,  # type: ignore[arg-type]
        lambda x: (tuple(getattr(x, name) for name in names), None, names),
        unflatten,
        namespace=NAMESPACE,
    )
    return cls


@_node
@dataclass(frozen=True, kw_only=True)
class TimeStep:
    """Arrival rows with leading axes [B] (one step) or [B, T] (a sequence)."""

    obs: Obs
    """A modality that was not recorded is absent."""
    action: Tensor | None
    """[.., A] float32 in the world's codec; the action that led here. None: unlabelled video."""
    reward: Tensor | None
    """[..] float32."""
    is_first: Tensor
    """[..] bool."""
    terminated: Tensor
    """[..] bool. Truncation is just the last row before an is_first."""
    mask: Tensor
    """[..] bool; False is padding and leaves every carry unchanged."""
    memo: dict[str, Tensor] = field(default_factory=dict)
    """What a world stored beside this row (V-M-C: mu and logvar of the frame)."""

    def at(self, t: int) -> "TimeStep":
        """Column t of a [B, T] sequence, as a [B] step."""
        return optree.tree_map(lambda x: x[:, t], self, namespace=NAMESPACE)  # type: ignore[return-value]


@dataclass
class Prediction:
    """Result of one imagined step."""

    state: State
    reward: Tensor | None = None
    """[B]; None is read as 0."""
    cont: Tensor | None = None
    """[B], probability of not being terminal; None is read as 1."""


@dataclass
class Losses:
    """What `losses` returns: scalars to descend and numbers to log."""

    by_part: dict[str, Tensor]
    """One scalar per requested part."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Detached scalars by name, for example "world/kl"."""
    trace: State | None = None
    """Posterior states [B, T, ...], still on the graph; worlds with small states only."""
    after: State | None = None
    """State after the last row, detached; the next piece of a stream starts from it."""


@dataclass
class Decision:
    """What a behaviour answers: the action [B, A] in the world's codec, and its own memory."""

    action: Tensor
    memory: State = field(default_factory=dict)
    aux: dict[str, Tensor] = field(default_factory=dict)
    """Logits, values, ...: stacked into the Dream, keeps its graph."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A number of a world that may be turned in mid-dream; `WorldModel.turned` takes it by name."""

    name: str
    about: str
    """What it does, in a few words for a person."""
    value: float
    """As the world was configured."""
    low: float
    high: float
    is_whole: bool = False
    """Whole numbers only."""


@_node
@dataclass(frozen=True, kw_only=True)
class Carry:
    """Everything needed to go on: the world's state and the behaviour's memory, axis 0 = row."""

    state: State
    memory: State = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dream:
    """Imagined arrival rows [N, H+1]; column 0 is where the dream began (its action and reward are 0)."""

    view: Tensor
    """[N, H+1, ...]: what the behaviour saw, features or images."""
    action: Tensor
    """[N, H+1, A]."""
    reward: Tensor
    """[N, H+1]."""
    cont: Tensor
    """[N, H+1]: probability that the state of this row is not terminal; column 0 is 1."""
    aux: dict[str, Tensor]
    """Each [N, H, ...]."""
    last: Carry
