"""Rules about a behaviour: memory, act, greediness, fitting."""

import copy

import safetensors.torch
import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.agent import Agent
from oneiro.dreaming import dream
from oneiro.errors import Undecodable
from oneiro.testing.case import ROWS, BehaviourCase
from oneiro.testing.checks import skip, violated
from oneiro.testing.compare import StillDice, named_leaves, same, structure_change
from oneiro.testing.loss_rules import UPDATES, changed, snapshot, well_formed
from oneiro.types import Carry, Decision, Losses, State
from oneiro.world import part_module


def sees_something(case: BehaviourCase) -> None:
    """What it wants to see, the world can show."""
    if case.behaviour.sees not in ("feature", "image", "nothing"):
        violated(f"`sees` is {case.behaviour.sees!r}; it is 'feature', 'image' or 'nothing'")
    if case.behaviour.sees == "image":
        try:
            shown = case.world.decode(case.lived())
        except Undecodable as reason:
            violated(f"it sees images, but {reason}")
        if "image" not in shown:
            violated(f"it sees images, but the world decodes {sorted(shown)}")


def action_fits(case: BehaviourCase) -> None:
    """[B, A] finite floats within the codec's bounds, greedy and exploring, without a goal."""
    codec = case.world.spaces.action
    for explore in (False, True):
        action = _act(case, explore=explore).action
        if tuple(action.shape) != (ROWS, codec.dim) or not action.dtype.is_floating_point:
            violated(
                f"the action is {action.dtype} {list(action.shape)}, expected floats [{ROWS}, {codec.dim}]"
            )
        if not torch.isfinite(action).all():
            violated("the action is not finite")
        if codec.is_discrete:
            continue
        low, high = action.new_tensor(codec.low), action.new_tensor(codec.high)
        if (action < low - 1e-6).any() or (action > high + 1e-6).any():
            violated(
                f"the action lies in {action.min():.3g}..{action.max():.3g}, outside the bounds "
                f"{codec.low} .. {codec.high}"
            )


def memory_is_a_state(case: BehaviourCase) -> None:
    """`memory(n)` and the memory of a decision have the same tensors, axis 0 = batch."""
    fresh = case.behaviour.memory(ROWS)
    for path, leaf in named_leaves(fresh):
        if leaf.ndim == 0 or leaf.shape[0] != ROWS:
            violated(f"`memory({ROWS})`: axis 0 of {path} {list(leaf.shape)} is not the batch")
    if change := structure_change(_act(case).memory, fresh):
        violated(f"the memory of a decision is not like `memory(n)`: {change}")
    with torch.no_grad():
        watched = case.behaviour.watch(case.world, case.lived(), tree.clone(fresh))
    if change := structure_change(watched, fresh):
        violated(f"`watch` does not return a memory like `memory(n)`: {change}")


def memory_restarts(case: BehaviourCase) -> None:
    """At an is_first row the memory is a fresh one; its neighbours keep theirs."""
    fresh = case.behaviour.memory(ROWS)
    if not tree.leaves(fresh):
        skip("it has no memory")
    row, first = case.reset_row
    old = _experienced(case)
    carry = Agent(case.world, case.behaviour).observe(Carry(state=case.lived(), memory=tree.clone(old)), row)
    same(carry.memory, tree.where(first, fresh, old), 0.0, "memory restarts at is_first rows and only there")
    state = case.lived()
    restarted = _act(case, state=state, memory=carry.memory).action
    expected = _act(case, state=state, memory=case.behaviour.memory(ROWS)).action
    same(restarted[first], expected[first], case.atol, "a restarted row acts as at first")


def greedy_is_deterministic(case: BehaviourCase) -> None:
    """Without `explore`, the seed does not matter."""
    actions = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        actions.append(_act(case, still=False).action)
    same(actions[1], actions[0], 0.0, "greedy acting does not depend on the seed")


def leaves_state_alone(case: BehaviourCase) -> None:
    """The state it looks at is still needed: `world.step` goes on from it."""
    state = case.lived()
    kept = tree.clone(state)
    for explore in (False, True):
        with torch.no_grad():
            case.behaviour.act(case.world, state, case.behaviour.memory(ROWS), goal=None, explore=explore)
        same(state, kept, 0.0, "`act` leaves the world's state unchanged")


def rows_are_independent(case: BehaviourCase) -> None:
    """A row acts the same in other company and in another place."""
    state, memory = case.lived(), _experienced(case)
    action = _act(case, state=state, memory=memory).action
    order = torch.tensor([2, 0, 3, 1])
    moved = _act(case, state=tree.take(state, order), memory=tree.take(memory, order)).action
    same(moved, action[order], case.atol, "permuted rows act as before")
    mine = torch.tensor([True, False, False, False], device=case.world.device)
    company = tree.where(mine, state, case.lived(1))
    other = _act(case, state=company, memory=memory).action
    same(other[mine], action[mine], case.atol, "a row acts regardless of its neighbours")
    pair = torch.tensor([2, 0])
    few = _act(case, state=tree.take(state, pair), memory=tree.take(memory, pair)).action
    same(few, action[pair], case.atol, "two rows act as they do among four")


def keeps_no_secrets(case: BehaviourCase) -> None:
    """Acting depends on what it is passed, not on what it did before."""
    state = case.lived()
    before = _act(case, state=state)
    _act(case, state=case.lived(1), explore=True)
    same(_act(case, state=state).action, before.action, case.atol, "the memory is all a behaviour remembers")


def dreams(case: BehaviourCase) -> None:
    """It can act in a dream: three steps are finite."""
    carry = Carry(state=case.lived(), memory=case.behaviour.memory(ROWS))
    with torch.no_grad():
        dreamed = dream(case.world, case.behaviour, carry, 3)
    for name, x in (("view", dreamed.view), ("action", dreamed.action), ("reward", dreamed.reward)):
        if tuple(x.shape[:2]) != (ROWS, 4) or not torch.isfinite(x.float()).all():
            violated(f"{name} of a dream of 3 steps is {list(x.shape)}, or not finite")


def losses_are_scalars(case: BehaviourCase) -> None:
    """One finite scalar per requested part."""
    for part in _parts(case):
        well_formed(_losses(case, 0, [part]), [part])
    if any(p.grad is not None for p in [*case.behaviour.parameters(), *case.world.parameters()]):
        violated("`losses` calls backward itself; the trainer takes the gradients")


def fitting_spares_the_world(case: BehaviourCase) -> None:
    """Updates move every parameter of a part; the world stays bit-identical."""
    for part in _parts(case):
        own = copy.deepcopy(case)
        world_before = {name: x.clone() for name, x in own.world.state_dict().items()}
        before = snapshot(own.behaviour)
        module = part_module(own.behaviour, part)
        mine = {id(p) for p in module.parameters()}
        _fit(own, part, module)
        for name, x in own.world.state_dict().items():
            if not torch.equal(x, world_before[name]):
                violated(f"fitting {part!r} changed the world's {name}")
        moved = changed(before, own.behaviour)
        names = {n for n, p in own.behaviour.named_parameters() if id(p) in mine and p.requires_grad}
        if strays := sorted(moved - names):
            violated(f"fitting {part!r} also changed {', '.join(strays[:3])}")
        if still := sorted(names - moved):
            violated(f"{UPDATES} updates of {part!r} did not move {', '.join(still[:3])}")


def survives_the_disk(case: BehaviourCase) -> None:
    """Saved as safetensors and loaded into a behaviour of other weights, it acts the same."""
    state_dict = case.behaviour.state_dict()
    if not state_dict:
        skip("it has no weights")
    if odd := [name for name, x in state_dict.items() if not isinstance(x, Tensor)]:
        violated(f"{odd[0]} in the state_dict is no tensor; safetensors holds tensors only")
    saved = safetensors.torch.save({k: v.detach().clone().contiguous().cpu() for k, v in state_dict.items()})
    state = case.lived()
    before = _act(case, state=state).action
    with torch.no_grad():
        for x in state_dict.values():
            x.fill_(0.5 if x.dtype.is_floating_point else 0)
    case.behaviour.load_state_dict(safetensors.torch.load(saved))
    same(_act(case, state=state).action, before, case.atol, "saved and loaded it acts as before")


def _act(
    case: BehaviourCase,
    *,
    state: State | None = None,
    memory: State | None = None,
    explore: bool = False,
    still: bool = True,
) -> Decision:
    """One decision; nothing passed in is consumed."""
    state = case.lived() if state is None else tree.clone(state)
    memory = case.behaviour.memory(ROWS) if memory is None else tree.clone(memory)
    with torch.no_grad():
        if not still:
            return case.behaviour.act(case.world, state, memory, goal=None, explore=explore)
        with StillDice():
            return case.behaviour.act(case.world, state, memory, goal=None, explore=explore)


def _experienced(case: BehaviourCase) -> State:
    """A memory after three decisions."""
    memory = case.behaviour.memory(ROWS)
    for seed in range(3):
        memory = _act(case, state=case.lived(seed), memory=memory).memory
    return memory


def _parts(case: BehaviourCase) -> list[str]:
    if not case.behaviour.parts:
        skip("it has no parts that are fitted by gradient")
    return list(case.behaviour.parts)


def _losses(case: BehaviourCase, seed: int, parts: list[str]) -> Losses:
    batch = case.batch(seed)
    trace = None
    if case.world.parts:
        trace = case.world.losses(batch, list(case.world.parts)).trace
    return case.behaviour.losses(case.world, batch, None if trace is None else tree.detach(trace), parts)


def _fit(case: BehaviourCase, part: str, module: nn.Module) -> None:
    own = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(own, 1e-3)
    case.behaviour.train()
    for seed in range(UPDATES):
        loss = _losses(case, seed, [part]).by_part[part]
        for p, gradient in zip(own, torch.autograd.grad(loss, own, allow_unused=True), strict=True):
            p.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        case.behaviour.after_update()
