"""A policy of another library as a behaviour: it learned in a `DreamEnv` and now plays wherever behaviours do."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from torch import Tensor

from oneiro.behaviour import Behaviour
from oneiro.spaces import to_uint8
from oneiro.types import Decision, State
from oneiro.world import WorldModel

Predict = Callable[..., tuple[Any, Any]]
"""`predict(obs, deterministic=bool) -> (actions, anything)`, as the models of Stable-Baselines3 have it."""


class OutsidePolicy(Behaviour):
    """Shows `predict` what a `DreamEnv` with the same `sees` and `channels` shows, real and imagined alike.

    agent = Agent(world, OutsidePolicy(model.predict, sees="feature"))

    For policies without a memory: what `predict` returns beside the actions is dropped.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        sees: Literal["feature", "image"] = "feature",
        channels: Literal["first", "last"] = "first",
    ) -> None:
        super().__init__()
        self.predict, self.sees, self.channels = predict, sees, channels

    def act(
        self,
        world: WorldModel,
        state: State,
        memory: State,
        *,
        goal: Tensor | None = None,
        explore: bool = False,
    ) -> Decision:
        """The action [B, A] that `predict` names for what is seen; sampled by it if `explore`."""
        view = self.view(world, state).detach()
        shown = (to_uint8(view) if self.sees == "image" else view.float()).cpu().numpy()
        if self.sees == "image" and self.channels == "last":
            shown = np.ascontiguousarray(shown.transpose(0, 2, 3, 1))
        actions, _ = self.predict(shown, deterministic=not explore)
        codec = world.spaces.action
        if not codec.is_discrete:
            actions = np.clip(actions, codec.low, codec.high)
        return Decision(codec.from_env(actions).to(world.device), memory)
