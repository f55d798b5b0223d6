"""Rules about the state machine: what `observe`, `absorb` and `step` may depend on, and what they may not."""

from dataclasses import replace

import torch

from oneiro import tree
from oneiro.testing.case import ROWS, Case
from oneiro.testing.checks import skip, violated
from oneiro.testing.compare import first_difference, look, same
from oneiro.testing.rows import pad
from oneiro.types import State


def repeats_with_seed(case: Case) -> None:
    """One seed, one future: all chance comes from torch's generator."""
    state, actions, row = case.lived(), case.actions()[:, 0], case.batch().at(0)
    for name in ("step", "observe"):
        found = []
        for _ in range(2):
            torch.manual_seed(3)
            with torch.no_grad():
                s = tree.clone(state)
                s = case.world.step(s, actions, 1.0).state if name == "step" else case.world.observe(s, row)
            found.append(look(case.world, s))
        same(found[1], found[0], 0.0, f"`{name}` repeats with torch's seed")


def keeps_no_secrets(case: Case) -> None:
    """What follows from a state does not depend on what the world did meanwhile."""
    state = case.lived()
    before = case.outlook(state)
    case.outlook(case.absorb(case.batch(5), case.lived(6)))
    case.lived(7)
    same(case.outlook(state), before, case.atol, "a state is all a world remembers")


def leaves_inputs_alone(case: Case) -> None:
    """Rows and actions are read, not written."""
    batch, actions = case.batch(), case.actions()[:, 0]
    kept, kept_actions = tree.clone(batch), actions.clone()
    state = case.world.start(ROWS)
    with torch.no_grad():
        state = case.world.observe(state, batch.at(0))
        state = case.world.absorb(state, batch)
        case.world.step(state, actions, 1.0)
    same(batch, kept, 0.0, "`observe` and `absorb` leave the rows they are shown unchanged")
    same(actions, kept_actions, 0.0, "`step` leaves the actions unchanged")


def first_row_forgets(case: Case) -> None:
    """After an is_first row only that row is known; its neighbours remember."""
    row, first = case.reset_row
    past = case.lived()
    found = case.outlook(case.observe(past, row))
    blank = case.outlook(case.observe(case.world.start(ROWS), row))
    going = case.outlook(case.observe(past, replace(row, is_first=torch.zeros_like(first))))
    same(
        tree.take(found, first), tree.take(blank, first), case.atol, "an is_first row forgets what was before"
    )
    same(
        tree.take(found, ~first), tree.take(going, ~first), case.atol, "rows that go on are not reset with it"
    )


def absorbs_like_observing(case: Case) -> None:
    """The stretch at once and row by row lead to the same place, restarts and padding included."""
    before = case.lived(3)
    for left, right in ((0, 0), (1, 1)):
        if left + right >= case.steps:
            continue
        batch = pad(case.batch(), case.batch(1), left, right)
        state = tree.clone(before)
        with torch.no_grad():
            for t in range(case.steps):
                row = batch.at(t)
                state = tree.where(row.mask, case.observe(state, row), state)
        found = case.outlook(case.absorb(batch, before))
        same(found, case.outlook(state), case.atol, "`absorb` ends where a loop of `observe` ends")


def mask_changes_nothing(case: Case) -> None:
    """Padding on either side, whatever it holds, leads to where the rows alone lead."""
    if case.steps < 3:
        skip(f"the world's context of {case.steps} leaves no room for padding")
    before = case.lived(3)
    plain = case.batch()
    inside = tree.map(lambda x: x[:, 1:-1], plain)
    expected = case.outlook(case.absorb(inside, before))
    for garbage in (1, 2):
        found = case.absorb(pad(plain, case.batch(garbage), 1, 1), before)
        same(case.outlook(found), expected, case.atol, "masked rows leave the state unchanged")


def rows_are_independent(case: Case) -> None:
    """A row's future is the same in other company and in another place."""
    order = torch.tensor([2, 0, 3, 1])
    batch, state = case.batch(), case.lived(3)
    moved = case.absorb(tree.take(batch, order), tree.take(state, order))
    expected = tree.take(case.outlook(case.absorb(batch, state)), order)
    same(case.outlook(moved, order), expected, case.atol, "permuted rows have permuted futures")

    other, stranger = case.batch(1), case.lived(4)
    mine = torch.tensor([True, False, False, False], device=case.world.device)
    row = tree.where(mine, batch.at(0), other.at(0))
    among_strangers = tree.where(mine, state, _with_draw_of(state, stranger))
    action = torch.where(mine[:, None], case.actions(0)[:, 0], case.actions(1)[:, 0])
    for temperature in (0.0, 1.0):
        futures = []
        for s, r, a in ((state, batch.at(0), case.actions(0)[:, 0]), (among_strangers, row, action)):
            torch.manual_seed(8)
            with torch.no_grad():
                s = case.world.step(case.world.observe(tree.clone(s), r), a, temperature).state
            futures.append(tree.take(look(case.world, s), mine))
        same(
            futures[1],
            futures[0],
            case.atol,
            f"a row's future ignores its neighbours (temperature {temperature:g})",
        )


def _with_draw_of(state: State, other: State) -> State:
    return {**other, "draw": state["draw"]} if "draw" in state else other


def resets_in_a_dream(case: Case) -> None:
    """A row replaced by a fresh one in mid-dream goes on like the fresh one, the others like themselves."""
    row, first = case.reset_row
    dreamed = case.lived(2)
    for k in range(2):
        with torch.no_grad():
            dreamed = case.world.step(dreamed, case.actions(k)[:, 0], 0.0).state
    fresh = case.observe(case.world.start(ROWS), row)
    mixed = case.outlook(tree.where(first, fresh, dreamed))
    expected = tree.where(first, case.outlook(fresh), case.outlook(dreamed))
    same(mixed, expected, case.atol, "a dream whose rows 0 and 2 begin anew goes on row by row")
    again = case.outlook(case.observe(dreamed, row))
    same(
        tree.take(again, first),
        tree.take(case.outlook(fresh), first),
        case.atol,
        "an is_first row after imagined steps forgets them",
    )


def states_can_be_rearranged(case: Case) -> None:
    """take, repeat, where and put of states are states."""
    a, b = case.lived(0), case.lived(1)
    of_a, of_b = case.outlook(a), case.outlook(b)
    index = torch.tensor([2, 0], device=case.world.device)
    some = case.outlook(tree.take(a, index), index)
    same(some, tree.take(of_a, index), case.atol, "`tree.take` of a state is a state of fewer rows")
    twice = torch.arange(ROWS, device=case.world.device).repeat_interleave(2)
    double = case.outlook(tree.repeat(a, 2), twice)
    same(double, tree.take(of_a, twice), case.atol, "`tree.repeat` of a state is a state")
    here = torch.tensor([True, False, False, True], device=case.world.device)
    same(
        case.outlook(tree.where(here, a, b)),
        tree.where(here, of_a, of_b),
        case.atol,
        "`tree.where` of two states is a state",
    )


def zero_is_deterministic(case: Case) -> None:
    """Temperature 0 is the mode: no chance left."""
    state, found = case.lived(), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            prediction = case.world.step(tree.clone(state), case.actions()[:, 0], 0.0)
        found.append((look(case.world, prediction.state), prediction.reward, prediction.cont))
    same(found[1], found[0], 0.0, "`step` at temperature 0 does not depend on the seed")


def steps_alike_in_a_dream(case: Case) -> None:
    """What `stepper` returns is `step`, before and after the weights change in mid-dream."""
    state, action, step = case.lived(), case.actions()[:, 0], case.world.stepper()
    for moment in ("at once", "after the weights were written to"):
        for temperature in (0.0, 1.0):
            found = []
            for one in (step, case.world.step):
                torch.manual_seed(6)
                with torch.no_grad():
                    prediction = one(tree.clone(state), action, temperature)
                found.append((look(case.world, prediction.state), prediction.reward, prediction.cont))
            same(found[0], found[1], case.atol, f"`stepper` gives what `step` gives {moment}")
        with torch.no_grad():
            for parameter in case.world.parameters():
                parameter.mul_(0.5)


def observes_alike_while_acting(case: Case) -> None:
    """What `observer` returns is `observe`, before and after the weights change."""
    state, row, observe = case.lived(), case.batch().at(1), case.world.observer()
    for moment in ("at once", "after the weights were written to"):
        found = []
        for one in (observe, case.world.observe):
            torch.manual_seed(7)
            with torch.no_grad():
                found.append(look(case.world, one(tree.clone(state), row)))
        same(found[0], found[1], case.atol, f"`observer` gives what `observe` gives {moment}")
        with torch.no_grad():
            for parameter in case.world.parameters():
                parameter.mul_(0.5)


def draw_shares_noise(case: Case) -> None:
    """Rows with the same number `draw` meet the same chance; rows with another number another."""
    state = case.lived()
    if "draw" not in state:
        skip("the state has no `draw`")
    rows = torch.zeros(ROWS, dtype=torch.long, device=case.world.device)
    alike = tree.take(state, rows)
    action = tree.take(case.actions()[:, 0], rows)

    def future(draw: list[int], seed: int = 4) -> dict:
        torch.manual_seed(seed)
        with torch.no_grad():
            s = {**tree.clone(alike), "draw": torch.tensor(draw, device=case.world.device)}
            s = case.world.step(s, action, 1.0).state
            if not torch.equal(s["draw"].cpu(), torch.tensor(draw)):
                violated("`step` changes `draw`")
            return look(case.world, case.world.step(s, action, 1.0).state)

    shared = future([0, 0, 0, 0])
    same(shared, tree.take(shared, rows), case.atol, "equal rows with one `draw` have one future")
    pairs = future([0, 1, 0, 1])
    same(tree.take(pairs, [0, 1]), tree.take(pairs, [2, 3]), case.atol, "rows 0 and 2 share their `draw`")
    is_random = first_difference(future([0] * ROWS, seed=5), shared, case.atol)
    if is_random and not first_difference(tree.take(pairs, [0]), tree.take(pairs, [1]), case.atol):
        violated("rows with different `draw` have the same future although `step` is random")


def context_is_enough(case: Case) -> None:
    """Rows older than `context` do not matter."""
    k = case.world.context
    if k is None:
        skip("the world's memory is unbounded")
    if k > 32:
        skip(f"a context of {k} rows is too long to try out here")
    rows = [case.make_batch(ROWS, k + 1, seed) for seed in (0, 1)]
    states = []
    for batch in rows:
        mixed = tree.map(lambda x, y: torch.cat([x[:, :1], y[:, 1:]], 1), batch, rows[0])
        state = case.world.start(ROWS)
        for t in range(k + 1):
            state = case.observe(state, tree.to(mixed.at(t), case.world.device))
        states.append(case.outlook(state))
    same(states[1], states[0], case.atol, f"only the last {k} rows matter")
