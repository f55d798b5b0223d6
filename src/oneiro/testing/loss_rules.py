"""Rules about a world's losses, and about what carries over to disk and to another device."""

import copy
from dataclasses import replace

import safetensors.torch
import torch
from torch import Tensor, nn

from oneiro import tree
from oneiro.testing.case import ROWS, Case
from oneiro.testing.checks import skip, violated
from oneiro.testing.compare import StillDice, named_leaves, same
from oneiro.testing.rows import pad, restart
from oneiro.types import Losses, State, TimeStep
from oneiro.world import WorldModel, part_module

UPDATES = 3


def losses_are_scalars(case: Case) -> None:
    """One finite scalar per requested part and no other; metrics are detached scalars."""
    parts = _parts(case)
    for asked in ([p] for p in parts):
        found = _losses(case.world, case.batch(), asked)
        well_formed(found, asked)
    if any(p.grad is not None for p in case.world.parameters()):
        violated("`losses` calls backward itself; the trainer takes the gradients")


def well_formed(found: Losses, asked: list[str]) -> None:
    """Violated unless the record holds what was asked for."""
    if sorted(found.by_part) != sorted(asked):
        violated(f"asked for {asked}, `losses` returned {sorted(found.by_part)}")
    for name, loss in found.by_part.items():
        if loss.ndim or not torch.isfinite(loss):
            violated(
                f"the loss of {name!r} has shape {list(loss.shape)} and value {loss}; a finite scalar is needed"
            )
        if not loss.requires_grad:
            violated(f"the loss of {name!r} carries no gradient")
    for name, metric in found.metrics.items():
        if metric.requires_grad or metric.ndim or not torch.isfinite(metric):
            violated(f"metric {name!r} is not a detached finite scalar")
    for path, leaf in named_leaves(found.after):
        if leaf.requires_grad:
            violated(f"`Losses.after` holds {path} on the graph; it must be detached")


def losses_move_their_part(case: Case) -> None:
    """A few updates by the trainer's rule move every parameter of the part and nothing else."""
    for part in _parts(case):
        world = copy.deepcopy(case.world)
        before = snapshot(world)
        own = {n for n, p in _named(world, part_module(world, part)) if p.requires_grad}
        fit(world, part, [case.batch(seed) for seed in range(UPDATES)])
        moved = changed(before, world)
        if strays := sorted(moved - own):
            violated(f"fitting {part!r} also changed {', '.join(strays[:3])}")
        if still := sorted(own - moved):
            violated(f"{UPDATES} updates of {part!r} did not move {', '.join(still[:3])}")


def fit(world: WorldModel, part: str, batches: list[TimeStep]) -> None:
    """As the trainer does: the gradient of the part's loss with respect to its own parameters, nothing else."""
    world.train()
    own = [p for p in part_module(world, part).parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(own, 1e-3)
    for batch in batches:
        loss = world.losses(batch, [part]).by_part[part]
        for p, gradient in zip(own, torch.autograd.grad(loss, own, allow_unused=True), strict=True):
            p.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        world.after_update()
    world.eval()


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the trainable parameters."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """Names of the parameters that are no longer bit-identical."""
    return {n for n, p in module.named_parameters() if n in before and not torch.equal(before[n], p)}


def parts_do_not_mix(case: Case) -> None:
    """A part's loss is the same whether it is asked for alone or with the others."""
    parts = _parts(case)
    if len(parts) < 2:
        skip("the world has one part")
    batch = case.batch()
    together = _losses(case.world, batch, parts).by_part
    for part in parts:
        alone = _losses(case.world, batch, [part]).by_part[part]
        same(
            alone,
            together[part],
            case.atol,
            f"the loss of {part!r} is the same asked for alone and with others",
        )


def losses_ignore_padding(case: Case) -> None:
    """What masked rows hold does not matter to a loss, nor, on the left, to how a stream goes on (a stream that is
    padded on the right has ended).
    """
    if case.steps < 4:
        skip(f"the world's context of {case.steps} leaves no room for padding")
    parts, batch = _parts(case), case.batch()
    for left, right, side in ((1, 0, "left"), (0, 1, "right")):
        one, two = (_losses(case.world, pad(batch, case.batch(g), left, right), parts) for g in (1, 2))
        for part in parts:
            claim = f"the loss of {part!r} ignores padding on the {side}"
            same(one.by_part[part], two.by_part[part], case.atol, claim)
        if left:
            same(
                _go_on(case, one), _go_on(case, two), case.atol, "a stream goes on as if padding had not been"
            )


def losses_reset(case: Case) -> None:
    """Where rows restart, a loss forgets too: the states it ends with do not depend on what was before."""
    parts, steps = _parts(case), case.steps
    if steps < 3:
        skip(f"the world's context of {steps} leaves no room for a restart")
    compared = False
    for at in (steps // 2, steps - 1):
        where = torch.zeros(ROWS, steps, dtype=torch.bool, device=case.world.device)
        where[:, at] = True
        after = restart(case.batch(0), where)
        found = []
        for history in (1, 2):
            mixed = tree.map(
                lambda x, y, at=at: torch.cat([x[:, :at], y[:, at:]], 1), case.batch(history), after
            )
            losses = _losses(case.world, mixed, parts)
            trace = (
                None if losses.trace is None else tree.map(lambda x, at=at: x[:, at:].detach(), losses.trace)
            )
            compared = compared or trace is not None or losses.after is not None
            found.append((trace, _go_on(case, losses)))
        same(
            found[1], found[0], case.atol, f"after a restart in row {at} of {steps} nothing before it matters"
        )
    if not compared:
        skip("the losses hand out neither a trace nor the state after the batch")


def streams_join(case: Case) -> None:
    """Two pieces of a stream, the second begun where the first ended, are one long batch: they end where it ends,
    and their losses make up its loss.
    """
    if case.steps < 4:
        skip(f"the world's context of {case.steps} leaves no room for two pieces")
    for batch in (_plain(case, 65), case.batch()):
        whole, *pieces = _whole_and_pieces(case, batch)
        claim = "two pieces handed on through `before` end where one long batch ends"
        same(_go_on(case, pieces[1]), _go_on(case, whole), case.atol, claim)
    whole, *pieces = _whole_and_pieces(case, _plain(case, 65))
    for part, loss in whole.by_part.items():
        one, two = (piece.by_part[part] for piece in pieces)
        if not any(
            torch.isclose(a * one + b * two, loss, case.atol, case.atol) for a, b in _shares(case.steps)
        ):
            violated(
                f"the losses of {part!r} in two pieces ({one:.4g}, {two:.4g}) do not make up that of both ({loss:.4g})"
            )


def _shares(steps: int) -> tuple[tuple[float, float], ...]:
    """How the losses of two pieces may add up: means over rows, means over transitions (the first piece has one
    less, for nothing leads to its first row), or sums.
    """
    half = steps // 2
    return (
        (half / steps, 1 - half / steps),
        ((half - 1) / (steps - 1), (steps - half) / (steps - 1)),
        (1.0, 1.0),
    )


def _whole_and_pieces(case: Case, batch: TimeStep) -> list[Losses]:
    parts, half = _parts(case), case.steps // 2
    whole = _losses(case.world, batch, parts)
    if whole.after is None:
        skip("`losses` returns no state to go on with")
    first, second = (tree.map(lambda x, s=s: x[:, s], batch) for s in (slice(0, half), slice(half, None)))
    begun = _losses(case.world, first, parts)
    return [whole, begun, _losses(case.world, second, parts, begun.after)]


def _plain(case: Case, seed: int) -> TimeStep:
    """Rows without any restart."""
    batch = tree.to(case.make_batch(ROWS, case.steps, seed), case.world.device)
    return case.with_memo(replace(batch, is_first=torch.zeros_like(batch.is_first)))


def _go_on(case: Case, losses: Losses) -> dict[str, Tensor] | None:
    """What matters of the state a batch ends with: the losses of the next piece of the stream."""
    if losses.after is None:
        return None
    return tree.detach(_losses(case.world, _plain(case, 66), list(case.world.parts), losses.after).by_part)


def survives_the_disk(case: Case) -> None:
    """A trained world, saved as safetensors and loaded into an untrained one, is the same world."""
    trained = copy.deepcopy(case.world)
    for part in case.world.parts:
        fit(trained, part, [case.batch(seed) for seed in range(UPDATES)])
    state_dict = trained.state_dict()
    if odd := [name for name, x in state_dict.items() if not isinstance(x, Tensor)]:
        violated(f"{odd[0]} in the state_dict is no tensor; safetensors holds tensors only")
    saved = safetensors.torch.save({k: v.detach().clone().contiguous().cpu() for k, v in state_dict.items()})
    loaded = copy.deepcopy(case.world)
    loaded.load_state_dict(safetensors.torch.load(saved))
    outlooks = []
    for world in (trained, loaded):
        case.world = world.eval()
        outlooks.append(case.outlook(case.absorb(case.batch(9))))
    same(outlooks[1], outlooks[0], case.atol, "a world that was saved and loaded goes on as before")


def runs_elsewhere(case: Case) -> None:
    """All tensors are made where the world is. Without an accelerator, torch's default device is set to one
    that cannot mix with the world's: a tensor made without a device then gives itself away.
    """
    batch, actions, parts = case.batch(), case.actions()[:, 0], list(case.world.parts)
    if torch.cuda.is_available() and case.world.device.type == "cpu":
        case.world = case.world.to("cuda")
        batch, actions = tree.to(batch, "cuda"), actions.to("cuda")
        _everything(case, batch, actions, parts)
    else:
        with torch.device("meta"):
            _everything(case, batch, actions, parts)


def _everything(case: Case, batch: TimeStep, actions: Tensor, parts: list[str]) -> None:
    world, device = case.world, case.world.device
    made: dict[str, object] = {}
    with torch.no_grad():
        made["start"] = tree.clone(state := world.start(ROWS))
        made["observe"] = tree.clone(state := world.observe(state, batch.at(0)))
        made["absorb"] = tree.clone(state := world.absorb(state, batch))
        made["memo"] = world.memo(state)
        made["step"] = (prediction := world.step(state, actions, 1.0)).state
        made["reward and cont"] = {"reward": prediction.reward, "cont": prediction.cont}
        made["feature"] = world.feature(prediction.state)
    if parts:
        made["losses"] = world.losses(batch, parts).by_part
    for name, record in made.items():
        for path, leaf in named_leaves(record):
            if leaf.device != device:
                violated(f"`{name}` makes {path} on the default device instead of {device}")


def _losses(world: WorldModel, batch: TimeStep, parts: list[str], before: State | None = None) -> Losses:
    """In training mode, chance held still; neither argument is changed or consumed."""
    world.train()
    with StillDice():
        found = world.losses(tree.clone(batch), parts, None if before is None else tree.clone(before))
    world.eval()
    return found


def _parts(case: Case) -> list[str]:
    if not case.world.parts:
        skip("the world has no parts: nothing is learned")
    return list(case.world.parts)


def _named(world: nn.Module, module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters of `module` by the names they have in `world`."""
    own = {id(p) for p in module.parameters()}
    return [(name, p) for name, p in world.named_parameters() if id(p) in own]
