"""`Agent`: a world and a behaviour that act together in a real environment, and settle before a dream."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.behaviour import Behaviour
from oneiro.types import Carry, TimeStep
from oneiro.world import Observe, WorldModel


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Where dreams begin: states reached after `context` real rows from blank."""

    context: int = 1
    """Rows seen before the dream begins."""
    count: int = 1000
    """How many such states to keep."""


class Agent(nn.Module):
    """World + behaviour. All methods are without gradient and expect eval mode."""

    world: WorldModel

    def __init__(self, world: WorldModel | None, behaviour: Behaviour) -> None:
        """`world` may be None for a behaviour that sees nothing (a random policy)."""
        super().__init__()
        assert world is not None or behaviour.sees == "nothing", f"{type(behaviour).__name__} needs a world"
        self.world, self.behaviour = world, behaviour  # type: ignore[assignment]
        self._observer: Observe | None = None  # the world's, made for the first row

    def __getstate__(self) -> dict[str, Any]:
        """A copy asks its own world for an observer."""
        return {**self.__dict__, "_observer": None}

    def train(self, mode: bool = True) -> "Agent":
        """Walks through the modules only if the mode changes: acting asks for it at every step."""
        if all(module.training == mode for module in (self, *self.children())):
            return self
        return super().train(mode)

    def start(self, n: int) -> Carry:
        """The carry of `n` rows that have seen nothing; with a blind behaviour, without the world's state."""
        state = {} if self.behaviour.sees == "nothing" else self.world.start(n)
        return Carry(state=state, memory=self.behaviour.memory(n))

    @torch.no_grad()
    def observe(self, carry: Carry, row: TimeStep) -> Carry:
        """Fold in one real row [B]: masked rows stay as they were, `is_first` rows forget."""
        memory, starts = carry.memory, row.is_first & row.mask
        if memory and starts.any():
            memory = tree.where(starts, self.behaviour.memory(len(starts)), memory)
        if self.behaviour.sees == "nothing":
            return Carry(state=carry.state, memory=memory)
        if self._observer is None:
            self._observer = self.world.observer()
        if row.mask.all():
            return Carry(state=self._observer(carry.state, row), memory=memory)
        seen = self._observer(tree.clone(carry.state), row)
        return Carry(state=tree.where(row.mask, seen, carry.state), memory=memory)

    @torch.no_grad()
    def act(self, carry: Carry, explore: bool = False) -> tuple[Tensor, Carry]:
        """The action [B, A] of every row, and the carry to go on with."""
        decision = self.behaviour.act(self.world, carry.state, carry.memory, explore=explore)
        return decision.action, Carry(state=carry.state, memory=decision.memory)

    @torch.no_grad()
    def settle(self, batch: TimeStep, context: int) -> Carry:
        """Real rows [B, T] -> the carry after the first `context` of them, where a dream may begin.

        A behaviour that watches has seen all of them but the last, on which it acts first.
        """
        window = tree.map(lambda x: x[:, :context], batch)
        n = tree.size(window)
        if type(self.behaviour).watch is Behaviour.watch:
            return Carry(
                state=self.world.absorb(self.world.start(n), window), memory=self.behaviour.memory(n)
            )
        carry = Carry(state=self.world.start(n), memory=self.behaviour.memory(n))
        rows = window.is_first.shape[1]
        for t in range(rows):
            carry = self._look(carry, window.at(t), watches=t + 1 < rows)
        return carry

    def _look(self, carry: Carry, row: TimeStep, *, watches: bool) -> Carry:
        """Fold in one row [B] as a spectator: the world observes, the behaviour may watch."""
        seen = self.world.observe(tree.clone(carry.state), row)
        state = tree.where(row.mask, seen, carry.state)
        memory = tree.where(row.is_first & row.mask, self.behaviour.memory(len(row.mask)), carry.memory)
        if watches:
            watched = self.behaviour.watch(self.world, state, tree.clone(memory))
            memory = tree.where(row.mask, watched, memory)
        return Carry(state=state, memory=memory)
