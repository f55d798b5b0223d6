"""`WorldModel`, the contract every world obeys. `oneiro.testing.check_world` tests it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.errors import Undecodable
from oneiro.spaces import Spaces
from oneiro.types import Knob, Losses, Obs, Prediction, State, TimeStep

Step = Callable[[State, Tensor, float], Prediction]
Observe = Callable[[State, TimeStep], State]


class WorldModel(nn.Module, ABC):
    """A state machine with explicit state.

    Two laws of state. (1) A state is consumed by the call it is passed to; `tree.clone` it first to branch.
    (2) Rows are independent in eval mode: each carries its own clock, so one can be reset while others go on.

    Common random numbers: a world may keep an integer tensor `draw` [B] in its state; rows with the same
    number share the noise of `step`.
    """

    spaces: Spaces
    """What it is shown; `spaces.action` is the world's own codec."""
    feature_dim: int
    parts: tuple[str, ...] = ("all",)
    """Part "x": `losses` may be asked for it and its parameters are `self.x`; "all" is the whole world."""
    context: int | None = None
    """Longest history that matters, in rows; None: unbounded."""

    @abstractmethod
    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        """One scalar per requested part for a batch of arrival rows [B, T].

        `before` is the state before the first row (None: blank), `Losses.after` the one to go on with, so
        that consecutive pieces of a stream can be fitted in order.
        """

    @abstractmethod
    def start(self, n: int) -> State:
        """State of `n` rows that have seen nothing."""

    @abstractmethod
    def observe(self, state: State, row: TimeStep) -> State:
        """Fold in one real row [B]; `is_first` rows forget first. `row.mask` is the caller's concern."""

    @abstractmethod
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        """Imagine one step by `action` [B, A]; temperature 0 is the mode."""

    def observer(self) -> Observe:
        """`observe` for one agent that acts without gradient, with what depends on the weights alone worked out once.

        Whoever asks for it keeps it, and goes on with it when the weights have changed.
        """
        return torch.no_grad()(self.observe)

    def stepper(self) -> Step:
        """`step` for one dream without gradient, with what depends on the weights alone worked out once.

        It gives what `step` gives, also after the weights were written to in mid-dream (`nets.prepared`). The
        default is `step`.
        """
        return self.step

    def knobs(self) -> tuple[Knob, ...]:
        """Numbers of its dreams, beside the temperature, that may be changed between two steps; default: none."""
        return ()

    def turned(self, settings: Mapping[str, float]) -> Step:
        """A `stepper` with knobs at other values, by name; the world itself stays as it is."""
        assert not settings, f"{type(self).__name__} has no knobs {sorted(settings)}"
        return self.stepper()

    @abstractmethod
    def feature(self, state: State) -> Tensor:
        """[.., feature_dim]: what a behaviour reads; for states [B] or [B, T]."""

    def decode(self, state: State) -> Obs:
        """The observation of a state, floats in 0..1; "image" is the current frame."""
        raise Undecodable(f"{type(self).__name__} cannot draw; use its feature view instead")

    def judge(self, state: State) -> tuple[Tensor | None, Tensor | None]:
        """(reward, cont) of a state [B] or [B, T], each [..], on the graph: the reward of arriving in it, and the
        probability that it is not terminal, with no discount in it. None: as in `Prediction`.
        """
        return None, None

    def absorb(self, state: State, batch: TimeStep) -> State:
        """Fold in rows [B, T]; masked rows change nothing. Override with a parallel form."""
        for t in range(batch.is_first.shape[1]):
            row = batch.at(t)
            state = tree.where(row.mask, self.observe(tree.clone(state), row), state)
        return state

    def memo(self, state: State) -> dict[str, Tensor]:
        """What to keep in the replay beside the row that led to `state`."""
        return {}

    def recall(self, memo: dict[str, Tensor], n: int) -> State:
        """A state from what `memo` kept; the default remembers nothing."""
        return self.start(n)

    def after_update(self) -> None:
        """Called after each optimizer step on one of its parts (EMA targets, codebook resets)."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the parameters are (new states are allocated there)."""
        return next(self.parameters()).device


def part_module(owner: nn.Module, part: str) -> nn.Module:
    """The module whose parameters belong to `part` of a world or behaviour."""
    return owner if part == "all" else getattr(owner, part)
