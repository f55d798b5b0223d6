"""`Behaviour`, the contract of everything that acts: actors, planners, fixed plans, people."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from oneiro.types import Decision, Losses, State, TimeStep
from oneiro.world import WorldModel


class Behaviour(nn.Module, ABC):
    """Chooses actions from a world's state; the same in the real environment and in a dream."""

    parts: tuple[str, ...] = ()
    """() = nothing to fit by gradient: a planner, or fitted by evolution."""
    sees: Literal["feature", "image", "nothing"] = "feature"
    """"image" = `world.decode(state)["image"]`, real and imagined alike; "nothing" = acts blindly (random
    policies, recorded plans), so that a real row need not be encoded before acting."""

    def memory(self, n: int) -> State:
        """Its own recurrent state for `n` fresh rows.

        A behaviour that draws random numbers keeps an int64 `key` [B] here and draws with `oneiro.noise`, so
        that an episode is a function of its key; the env loop sets `key` to the seed of the episode.
        """
        return {}

    def watch(self, world: WorldModel, state: State, memory: State) -> State:
        """Burn-in: look at a state without acting; returns the new memory."""
        return memory

    @abstractmethod
    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """The action [B, A] for each row; deterministic unless `explore`."""

    def forward(self, *args: Any, **kwargs: Any) -> Decision:
        """Calling a behaviour is acting (`torch.func.functional_call` needs it)."""
        return self.act(*args, **kwargs)

    def losses(self, world: WorldModel, batch: TimeStep, trace: State | None, parts: Sequence[str]) -> Losses:
        """One scalar per requested part.

        `trace` [B, T] holds the world's states of the rows, detached; or on their graph, if the trainer fits world
        and behaviour in one group: a behaviour detaches what shall not move the world. None: the world gave none.
        """
        return Losses({})

    def value(self, world: WorldModel, state: State, memory: State) -> Tensor | None:
        """[B] return that its critic expects from a state; None: it has no critic. Nothing is consumed."""
        return None

    def after_update(self) -> None:
        """Called after each optimizer step on one of its parts."""
        return None

    def view(self, world: WorldModel, state: State) -> Tensor:
        """What this behaviour is shown of `state`."""
        return world.decode(state)["image"] if self.sees == "image" else world.feature(state)


class OpenLoop(Behaviour):
    """A fixed plan [N, H, A]: planners' candidates and recorded action sequences."""

    def __init__(self, plan: Tensor) -> None:
        super().__init__()
        self.plan = plan

    def memory(self, n: int) -> State:
        """The position in the plan."""
        return {"t": self.plan.new_zeros(n).long()}

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """The planned action; past its end the plan's last one."""
        t = memory["t"]
        row = t.new_tensor(range(len(t)))
        return Decision(self.plan[row, t.clamp(max=self.plan.shape[1] - 1)], {"t": t + 1})
