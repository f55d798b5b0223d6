"""What a rule is given: a private copy of the world (and behaviour), and batches to try them on."""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from oneiro import tree
from oneiro.behaviour import Behaviour
from oneiro.testing.compare import StillDice, outlook
from oneiro.testing.rows import MakeBatch, random_actions, random_rows, restart, with_restarts
from oneiro.types import State, TimeStep
from oneiro.world import WorldModel

ROWS = 4


@dataclass
class Case:
    """A world in eval mode and rows to show it. Seeds name batches: the same seed, the same rows."""

    world: WorldModel
    make_batch: MakeBatch
    atol: float

    @property
    def steps(self) -> int:
        """Length of the batches: six rows, or as many as the world's context allows."""
        return min(6, self.world.context or 6)

    def batch(self, seed: int = 0, steps: int | None = None) -> TimeStep:
        """[4, T] rows with restarts, the world's memo beside them."""
        made = self.make_batch(ROWS, steps or self.steps, seed)
        return self.with_memo(with_restarts(tree.to(made, self.world.device)))

    def with_memo(self, batch: TimeStep) -> TimeStep:
        """What the world would have stored beside these rows, unless the batch brings its own."""
        if batch.memo:
            return batch
        memos, state = [], self.world.start(tree.size(batch.is_first))
        with torch.no_grad(), StillDice():
            for t in range(batch.is_first.shape[1]):
                state = self.world.observe(state, batch.at(t))
                memos.append(tree.clone(self.world.memo(state)))
        return replace(batch, memo=tree.stack(memos, 1) if memos[0] else {})

    def absorb(self, batch: TimeStep, state: State | None = None) -> State:
        """The state after real rows [B, T], chance held still; `state` (not consumed) or blank before them."""
        start = self.world.start(tree.size(batch.is_first)) if state is None else tree.clone(state)
        with torch.no_grad(), StillDice():
            return self.world.absorb(start, tree.clone(batch))

    def observe(self, state: State, row: TimeStep) -> State:
        """The state after one real row [B], chance held still; `state` is not consumed."""
        with torch.no_grad(), StillDice():
            return self.world.observe(tree.clone(state), tree.clone(row))

    def lived(self, seed: int = 0) -> State:
        """A state with a past: some real rows, then an imagined step."""
        state = self.absorb(self.batch(seed))
        with torch.no_grad(), StillDice():
            return self.world.step(state, self.actions(seed)[:, 0], 1.0).state

    def actions(self, seed: int = 0, n: int = ROWS, steps: int = 2) -> Tensor:
        """[n, steps, A] random actions in the world's codec."""
        g = torch.Generator().manual_seed(10_000 + seed)
        return random_actions(self.world.spaces.action, (n, steps), g).to(self.world.device)

    @cached_property
    def follow(self) -> tuple[Tensor, TimeStep]:
        """Two actions and one real row [4] that every compared state is asked to go on with."""
        return self.actions(77), self.batch(77).at(0)

    @cached_property
    def reset_row(self) -> tuple[TimeStep, Tensor]:
        """A real row [4] in which rows 0 and 2 begin an episode, and which rows those are."""
        first = torch.tensor([True, False, True, False], device=self.world.device)
        row = replace(self.batch(55).at(1), is_first=torch.zeros_like(first))
        return restart(row, first), first

    def outlook(self, state: State, index: Tensor | None = None) -> dict[str, Any]:
        """What `state` shows and what follows; `index` says which rows of `follow` its rows go on with."""
        actions, row = self.follow if index is None else tree.take(self.follow, index)
        return outlook(self.world, state, actions, row)


SHAKE = 0.05
"""Standard deviation of what is added to a behaviour's weights before it is tested."""


@dataclass
class BehaviourCase(Case):
    """The same, with a behaviour in eval mode."""

    behaviour: Behaviour


def world_case(world: WorldModel, make_batch: MakeBatch | None, atol: float) -> Case:
    """A case of its own: the caller's world stays as it is."""
    own = copy.deepcopy(world).eval()
    return Case(own, make_batch or random_rows(own.spaces), atol)


def behaviour_case(
    behaviour: Behaviour, world: WorldModel, make_batch: MakeBatch | None, atol: float
) -> BehaviourCase:
    """A case of its own. One copy of both together, so that what they share stays shared. The behaviour's weights
    are shaken a little: heads that begin at zero, with all actions and values alike, would keep many rules by chance.
    """
    own_world, own = copy.deepcopy((world, behaviour))
    with torch.no_grad():
        for weights in own.parameters():
            if weights.dtype.is_floating_point:
                weights.add_(SHAKE * torch.randn_like(weights))
    return BehaviourCase(own_world.eval(), make_batch or random_rows(own_world.spaces), atol, own.eval())
