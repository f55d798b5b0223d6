"""A world without learning whose every number can be worked out by hand: position, reward and end on a ladder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oneiro import ActionCodec, Behaviour, Decision, Losses, Prediction, Spaces, TimeStep, WorldModel, tree
from oneiro.types import Obs, State


class Ladder(WorldModel):
    """The action is added to the position; the reward is the new position; from `top` on it is over."""

    parts = ()

    def __init__(self, top: float = 1e9) -> None:
        super().__init__()
        self.spaces = Spaces({"vector": (1,)}, ActionCodec(1, (-5.0,), (5.0,)))
        self.feature_dim, self.top = 1, top
        self.scale = nn.Parameter(torch.ones(()))

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        return Losses({})

    def start(self, n: int) -> State:
        return {"at": torch.zeros(n), "seen": torch.zeros(n)}

    def observe(self, state: State, row: TimeStep) -> State:
        state = tree.where(row.is_first, self.start(len(row.is_first)), state)
        return {"at": row.obs["vector"][:, 0], "seen": state["seen"] + 1}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        at = state["at"] + self.scale * action[:, 0]
        return Prediction({"at": at, "seen": state["seen"]}, at, (at < self.top).float())

    def feature(self, state: State) -> Tensor:
        return state["at"][..., None]

    def decode(self, state: State) -> Obs:
        return {"image": state["at"][..., None, None, None].expand(*state["at"].shape, 3, 2, 2) / 100}


class Climb(Behaviour):
    """One rung up at a time, `pace` of them; counts its decisions."""

    def __init__(self, pace: float = 1.0) -> None:
        super().__init__()
        self.pace = nn.Parameter(torch.tensor(pace))

    def memory(self, n: int) -> State:
        return {"count": torch.zeros(n, dtype=torch.long)}

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        view = self.view(world, state)
        action = self.pace.expand(len(view), 1) + (1 if explore else 0)
        return Decision(action, {"count": memory["count"] + 1}, {"pace": action[:, 0]})


def rows(
    positions: list[list[float]], first: list[list[bool]], mask: list[list[bool]] | None = None
) -> TimeStep:
    """[B, T] rows at these positions."""
    at = torch.tensor(positions)
    is_first = torch.tensor(first)
    return TimeStep(
        obs={"vector": at[..., None]},
        action=torch.zeros(*at.shape, 1),
        reward=torch.zeros_like(at),
        is_first=is_first,
        terminated=torch.zeros_like(is_first),
        mask=torch.ones_like(is_first) if mask is None else torch.tensor(mask),
    )
