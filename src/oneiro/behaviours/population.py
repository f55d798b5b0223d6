"""`Population`: one behaviour, other weights in every row, so that all candidates of a generation act as one."""

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from oneiro.behaviour import Behaviour
from oneiro.types import Decision, State
from oneiro.world import WorldModel


class Population(Behaviour):
    """Each row carries its own weights in its memory, so rows can be dropped, reset and permuted like any."""

    def __init__(self, member: Behaviour) -> None:
        super().__init__()
        self.member = member
        self.sees = member.sees
        self.shapes = {name: p.shape for name, p in member.named_parameters()}
        self.num_weights = sum(shape.numel() for shape in self.shapes.values())

    def memory(self, n: int) -> State:
        """Rows with the member's present weights."""
        flat = torch.cat([p.detach().reshape(-1) for p in self.member.parameters()])
        return self.seat(flat.expand(n, -1))

    def seat(self, weights: Tensor) -> State:
        """The memory of rows that act with `weights` [B, num_weights], flat in the order of parameters()."""
        parts = weights.split([shape.numel() for shape in self.shapes.values()], 1)
        named = {
            name: part.reshape(-1, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
        return {"weights": named, "member": self.member.memory(len(weights))}

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """As the member would, row by row."""
        shown = _Shown(self.view(world, state))

        def one(weights: dict[str, Tensor], view: Tensor, own: State) -> tuple[Tensor, State]:
            row = _Shown(view[None])
            batched = {k: v[None] for k, v in own.items()}
            decision = functional_call(
                self.member, weights, (row, {}, batched), {"goal": goal, "explore": explore}
            )
            return decision.action[0], {k: v[0] for k, v in decision.memory.items()}

        action, own = vmap(one, randomness="different")(memory["weights"], shown.tensor, memory["member"])
        return Decision(action, {"weights": memory["weights"], "member": own})


class _Shown:
    """What a member sees of the world: the one view that is in front of it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def feature(self, state: State) -> Tensor:
        return self.tensor

    def decode(self, state: State) -> dict[str, Tensor]:
        return {"image": self.tensor}
