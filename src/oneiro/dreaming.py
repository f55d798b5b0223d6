"""`imagine` is the only imagination loop; `dream` keeps every row of it, `dream_score` only the returns."""

from collections.abc import Generator, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from oneiro import tree
from oneiro.behaviour import Behaviour
from oneiro.types import Carry, Decision, Dream, Prediction
from oneiro.world import WorldModel


def imagine(
    world: WorldModel,
    behaviour: Behaviour,
    carry: Carry,
    *,
    goal: Tensor | None = None,
    through: bool = False,
    temperature: float = 1.0,
    explore: bool = False,
    settings: Mapping[str, float] | None = None,
) -> Generator[tuple[Decision, Prediction, Carry], Carry | None, None]:
    """Act, step, repeat without end: yields (decision, prediction, carry after).

    The consumer may `send` back a carry to go on with (fewer rows, or rows reset); otherwise its own goes on.
    With `through` the graph through `world.step` is kept, else only the behaviour's own. `settings`: knobs of the
    world at other values (`WorldModel.knobs`), without `through`.
    """
    if through and settings:
        raise ValueError("a dream through which gradients pass takes no settings; change the world's config")
    # A compiler is given the plain step: it casts every weight once by itself.
    is_plain = through or (torch.compiler.is_compiling() and not settings)
    step = world.step if is_plain else world.turned(settings or {})
    while True:
        decision = behaviour.act(world, carry.state, carry.memory, goal=goal, explore=explore)
        with nullcontext() if through else torch.no_grad():
            action = decision.action if through else decision.action.detach()
            prediction = step(carry.state, action, temperature)
        carry = Carry(state=prediction.state, memory=decision.memory)
        sent = yield decision, prediction, carry
        carry = carry if sent is None else sent


def dream(
    world: WorldModel,
    behaviour: Behaviour,
    carry: Carry,
    horizon: int,
    *,
    goal: Tensor | None = None,
    through: bool = False,
    temperature: float = 1.0,
    explore: bool = False,
) -> Dream:
    """Imagine `horizon` steps from `carry` [N] (consumed) and keep every row: arrival rows [N, H+1]."""
    n = tree.size(carry.state)
    one, zero = torch.ones(n, device=world.device), torch.zeros(n, device=world.device)
    views, actions, aux = [], [], []
    rewards, conts = [zero], [one]
    rows = imagine(
        world, behaviour, carry, goal=goal, through=through, temperature=temperature, explore=explore
    )
    for _ in range(horizon):
        views.append(behaviour.view(world, carry.state))
        decision, prediction, carry = next(rows)
        actions.append(decision.action)
        aux.append(decision.aux)
        rewards.append(zero if prediction.reward is None else prediction.reward)
        conts.append(one if prediction.cont is None else prediction.cont)
    views.append(behaviour.view(world, carry.state))
    return Dream(
        view=torch.stack(views, 1),
        action=torch.stack([torch.zeros_like(actions[0]), *actions], 1),
        reward=torch.stack(rewards, 1),
        cont=torch.stack(conts, 1),
        aux=tree.stack(aux, 1),
        last=carry,
    )


@torch.no_grad()
def dream_score(
    world: WorldModel,
    behaviour: Behaviour,
    carry: Carry,
    horizon: int,
    *,
    temperature: float = 1.0,
    uniform: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Undiscounted return and length [N] of dreams that end when a sampled `terminated` says so.

    Row n ends at its first step t with `uniform[t, draw] >= cont`; the reward of that step still counts.
    `uniform` [H, R] holds the random numbers of R draws (default: fresh ones); with common random numbers
    rows share columns through the state's `draw`. Rows that have ended leave the batch, so the cost follows the
    number of rows alive.
    """
    n = tree.size(carry.state)
    device = world.device
    score, length = torch.zeros(n, device=device), torch.zeros(n, device=device, dtype=torch.long)
    place = torch.arange(n, device=device)  # where each row of the shrinking batch belongs
    alive = torch.ones(n, device=device)
    draw = carry.state.get("draw", place)
    if uniform is None:
        uniform = torch.rand(horizon, int(draw.max()) + 1, device=device)
    rows = imagine(world, behaviour, carry, temperature=temperature)
    _, prediction, carry = next(rows)
    for t in range(horizon):
        if prediction.reward is not None:
            score.index_add_(0, place, prediction.reward.float() * alive)
        length.index_add_(0, place, alive.long())
        if prediction.cont is not None:
            alive = alive * (uniform[t, draw] < prediction.cont)
            living = int(alive.sum())
            if not living:
                break
            if living < _FULL * len(alive):
                going = alive.nonzero()[:, 0]
                place, draw, alive, carry = place[going], draw[going], alive[going], tree.take(carry, going)
        if t + 1 < horizon:
            _, prediction, carry = rows.send(carry)
    return score, length


_FULL = 0.94  # rows that have ended are dropped once they are more than 6 % of the batch (copying costs too)
