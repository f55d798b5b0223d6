"""Rules about what a world returns: states, features, pictures, predictions and memos of the right form."""

import torch
from torch import nn

from oneiro import tree
from oneiro.errors import Undecodable
from oneiro.spaces import Spaces
from oneiro.testing.case import ROWS, Case
from oneiro.testing.checks import skip, violated
from oneiro.testing.compare import decode_or_nothing, named_leaves, same, structure_change
from oneiro.types import Obs, State
from oneiro.world import part_module


def declares_itself(case: Case) -> None:
    """Spaces, feature_dim, parts and context are there and make sense."""
    world = case.world
    if not isinstance(getattr(world, "spaces", None), Spaces):
        violated("`world.spaces` is not a Spaces")
    if not isinstance(getattr(world, "feature_dim", None), int) or world.feature_dim < 1:
        violated("`world.feature_dim` is not a positive int")
    if world.context is not None and world.context < 1:
        violated(f"`world.context` is {world.context}; it is a number of rows, at least 1, or None")
    for part in world.parts:
        if part != "all" and not isinstance(getattr(world, part, None), nn.Module):
            violated(f"part {part!r} is declared, but `world.{part}` is not a module")


def starts_blank(case: Case) -> None:
    """`start(n)` has n equal rows on the world's device."""
    state = case.world.start(ROWS)
    is_state(case, state, ROWS, "start(n)")
    shown = case.outlook(state, torch.zeros(ROWS, dtype=torch.long))
    first = tree.take(shown, torch.zeros(ROWS, dtype=torch.long))
    same(shown, first, case.atol, "blank rows are alike")


def keeps_structure(case: Case) -> None:
    """observe, absorb and step return the tensors they were given: same names, shapes, dtypes."""
    start = case.world.start(ROWS)
    batch = case.batch()
    found = {
        "observe": case.observe(start, batch.at(0)),
        "absorb": case.absorb(batch),
        "step": case.lived(),
    }
    for name, state in found.items():
        if change := structure_change(state, start):
            violated(f"`{name}` does not return a state like `start(n)`: {change}")
        is_state(case, state, ROWS, name)


def is_state(case: Case, state: State, n: int, name: str) -> None:
    """Violated unless every tensor has the batch as axis 0 and is where the world is."""
    for path, leaf in named_leaves(state):
        if leaf.ndim == 0 or leaf.shape[0] != n:
            violated(f"`{name}`: axis 0 of {path} {list(leaf.shape)} is not the batch of {n}")
        if leaf.device != case.world.device:
            violated(f"`{name}`: {path} is on {leaf.device}, the world on {case.world.device}")


def features_fit(case: Case) -> None:
    """[B, feature_dim] and [B, T, feature_dim], finite floats, the same for a state alone and in a sequence."""
    world, states = case.world, [case.lived(seed) for seed in range(3)]
    with torch.no_grad():
        alone = [world.feature(tree.clone(state)) for state in states]
        in_sequence = world.feature(tree.stack(states, 1))
    for found, shape in ((alone[0], (ROWS, world.feature_dim)), (in_sequence, (ROWS, 3, world.feature_dim))):
        if tuple(found.shape) != shape:
            violated(f"`feature` has shape {list(found.shape)}, expected {list(shape)}")
        if not found.dtype.is_floating_point or not torch.isfinite(found).all():
            violated(f"`feature` must be finite floats, got {found.dtype}")
    same(in_sequence, torch.stack(alone, 1), case.atol, "`feature` of [B, T] states equals that of each [B]")


def decodes_in_range(case: Case) -> None:
    """Floats in 0..1 of the shape that the spaces name, for [B] and [B, T] states; or Undecodable."""
    states = [case.lived(seed) for seed in range(3)]
    try:
        with torch.no_grad():
            alone, in_sequence = case.world.decode(states[0]), case.world.decode(tree.stack(states, 1))
    except Undecodable as reason:
        skip(str(reason))
    _picture_fits(case, alone, (ROWS,))
    _picture_fits(case, in_sequence, (ROWS, 3))
    first = tree.map(lambda x: x[:, 0], in_sequence)
    same(first, alone, case.atol, "`decode` of [B, T] states equals that of each [B]")


def _picture_fits(case: Case, obs: Obs, lead: tuple[int, ...]) -> None:
    if not obs:
        violated("`decode` returned nothing; a world that cannot draw raises Undecodable")
    for name, x in obs.items():
        if not x.dtype.is_floating_point:
            violated(f"`decode` returned {name!r} as {x.dtype}; it must be floats in 0..1")
        if not torch.isfinite(x).all():
            violated(f"`decode` returned a {name!r} that is not finite")
        shape = case.world.spaces.obs.get(name)
        if shape is not None and tuple(x.shape) != (*lead, *shape):
            violated(f"`decode` returned {name!r} of shape {list(x.shape)}, expected {[*lead, *shape]}")
        if name == "image" and not (x.min() >= 0 and x.max() <= 1):
            violated(f"`decode` returned an image in {x.min():.3g}..{x.max():.3g}, outside 0..1")


def draws_or_says_so(case: Case) -> None:
    """Undecodable is a statement about the world, not about one state."""
    blank = decode_or_nothing(case.world, case.world.start(ROWS))
    lived = decode_or_nothing(case.world, case.lived())
    if blank.keys() != lived.keys():
        violated(f"`decode` of a blank state gives {sorted(blank)}, of a lived one {sorted(lived)}")


def predicts_well_formed(case: Case) -> None:
    """reward [B] finite or None, cont [B] in 0..1 or None, at temperature 0 and 1."""
    for temperature in (0.0, 1.0):
        with torch.no_grad():
            prediction = case.world.step(case.absorb(case.batch()), case.actions()[:, 0], temperature)
        for name, x in (("reward", prediction.reward), ("cont", prediction.cont)):
            if x is None:
                continue
            if tuple(x.shape) != (ROWS,) or not x.dtype.is_floating_point:
                violated(f"`{name}` is {x.dtype} {list(x.shape)}, expected floats [{ROWS}]")
            if not torch.isfinite(x).all():
                violated(f"`{name}` is not finite")
        cont = prediction.cont
        if cont is not None and not (cont.min() >= 0 and cont.max() <= 1):
            violated(f"`cont` lies in {cont.min():.3g}..{cont.max():.3g}; it is a probability")
        for path, leaf in named_leaves(prediction.state):
            if leaf.dtype.is_floating_point and not torch.isfinite(leaf).all():
                violated(f"{path} is not finite after one imagined step at temperature {temperature:g}")


def memo_and_recall(case: Case) -> None:
    """What is stored beside a row is a dict of tensors [B, ...], and a state can be made of it."""
    state = case.lived()
    memo = case.world.memo(state)
    for path, leaf in named_leaves(memo):
        if leaf.ndim == 0 or leaf.shape[0] != ROWS:
            violated(f"`memo`: axis 0 of {path} {list(leaf.shape)} is not the batch of {ROWS}")
    recalled = case.world.recall(tree.clone(memo), ROWS)
    if change := structure_change(recalled, case.world.start(ROWS)):
        violated(f"`recall` does not return a state like `start(n)`: {change}")
    is_state(case, recalled, ROWS, "recall")
    case.outlook(recalled)


def parts_cover_everything(case: Case) -> None:
    """Each trainable parameter belongs to a part, so that some loss can move it."""
    world = case.world
    owned = {id(p) for part in world.parts for p in part_module(world, part).parameters()}
    orphans = [name for name, p in world.named_parameters() if p.requires_grad and id(p) not in owned]
    if orphans:
        violated(f"{', '.join(orphans[:3])} belong to no part")
