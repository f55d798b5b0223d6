"""`check_world` and `check_behaviour`: every rule by name, with the usual cause of breaking it."""

from oneiro.behaviour import Behaviour
from oneiro.testing import behaviour_rules as act
from oneiro.testing import dream_rules as dreams
from oneiro.testing import form_rules as form
from oneiro.testing import loss_rules as loss
from oneiro.testing import state_rules as state
from oneiro.testing.case import behaviour_case, world_case
from oneiro.testing.checks import Check, Rule, Told, run
from oneiro.testing.rows import MakeBatch
from oneiro.world import WorldModel

WORLD_RULES = (
    Rule(
        "the world declares itself",
        form.declares_itself,
        "`spaces`, `feature_dim` or `parts` is not set in __init__, or a part is named unlike its module",
    ),
    Rule(
        "a start is blank",
        form.starts_blank,
        "a learned or random initial state that differs by row, or a tensor without the batch as axis 0",
    ),
    Rule(
        "states keep their structure",
        form.keeps_structure,
        "a key that only some calls set, a dtype that changes under a flag, or a dimension squeezed away",
    ),
    Rule(
        "features fit",
        form.features_fit,
        "`feature` concatenates along axis 1 instead of -1, or feature_dim was not updated with the config",
    ),
    Rule(
        "pictures are in range",
        form.decodes_in_range,
        "a decoder without a squashing last layer, 0..255 instead of 0..1, or [B, T] not folded into one batch",
    ),
    Rule(
        "a world that draws always draws",
        form.draws_or_says_so,
        "`decode` raises Undecodable for some states only",
    ),
    Rule(
        "predictions are well formed",
        form.predicts_well_formed,
        "a trailing axis of 1 on reward or cont, a logit instead of a probability, or a division by the temperature",
    ),
    Rule(
        "one seed, one future",
        state.repeats_with_seed,
        "random numbers from numpy, from Python's random or from a private generator",
    ),
    Rule(
        "the state is all it remembers",
        state.keeps_no_secrets,
        "a cache or hidden state kept on `self` between calls; put it into the state",
    ),
    Rule(
        "inputs are left alone",
        state.leaves_inputs_alone,
        "an in-place operation on `row.obs`, `row.action` or `action`",
    ),
    Rule(
        "an is_first row erases history",
        state.first_row_forgets,
        "the reset is missing, comes one row late, or applies to the whole batch",
    ),
    Rule(
        "absorb equals a loop of observe",
        state.absorbs_like_observing,
        "the parallel form ignores is_first or mask in mid-sequence, or shifts actions by one row",
    ),
    Rule(
        "masked rows change nothing",
        state.mask_changes_nothing,
        "an `absorb` of its own that folds padding in; select with `tree.where(row.mask, new, old)`",
    ),
    Rule(
        "rows are independent",
        state.rows_are_independent,
        "statistics over the batch (batch norm, `x.mean()`), a clock shared by all rows, or row 0 treated specially",
    ),
    Rule(
        "a row reset in mid-dream equals a fresh one",
        state.resets_in_a_dream,
        "a step counter or cache length shared by all rows instead of one per row",
    ),
    Rule(
        "states can be rearranged",
        state.states_can_be_rearranged,
        "an entry whose axis 0 is not the batch, or that refers to other rows by number",
    ),
    Rule(
        "temperature 0 is deterministic",
        state.zero_is_deterministic,
        "`temperature` is ignored, or scales only some of the noise",
    ),
    Rule(
        "a dream's step is step",
        state.steps_alike_in_a_dream,
        "`stepper` keeps a copy of weights that goes stale; keep it with `nets.prepared.Prepared`",
    ),
    Rule(
        "an agent's observe is observe",
        state.observes_alike_while_acting,
        "`observer` keeps a copy of weights that goes stale; keep it with `nets.prepared.Prepared`",
    ),
    Rule(
        "rows with one draw share their noise",
        state.draw_shares_noise,
        "noise drawn per row instead of per `draw`: draw for `draw.max() + 1` numbers, then index with `draw`",
    ),
    Rule(
        "memo and recall fit",
        form.memo_and_recall,
        "`recall` builds a state by hand that misses an entry of `start`",
    ),
    Rule(
        "context is enough",
        state.context_is_enough,
        "`context` is smaller than the window or recurrence that really is used",
    ),
    Rule(
        "every parameter has a part",
        form.parts_cover_everything,
        "a layer created outside the modules named in `parts`; move it, or freeze it with requires_grad_(False)",
    ),
    Rule(
        "losses are finite scalars",
        loss.losses_are_scalars,
        "`losses` ignores `parts`, returns [B, T] terms, or divides by a count that can be zero",
    ),
    Rule(
        "losses move exactly their part",
        loss.losses_move_their_part,
        "a detach() too many, a layer that the loss never reaches, or weights written in `losses`",
    ),
    Rule(
        "losses of parts do not mix",
        loss.parts_do_not_mix,
        "terms of one part are added to another when both are asked for",
    ),
    Rule(
        "losses ignore padding",
        loss.losses_ignore_padding,
        "a mean over all rows instead of the masked ones, or a recurrence that runs through padding",
    ),
    Rule(
        "losses forget at restarts",
        loss.losses_reset,
        "the recurrence in `losses` ignores is_first, or applies it one row late",
    ),
    Rule(
        "streams join",
        loss.streams_join,
        "`before` is ignored, or `after` is not the state of the last row",
    ),
    Rule(
        "it survives the disk",
        loss.survives_the_disk,
        "something learned that is neither parameter nor buffer (running statistics in a plain attribute)",
    ),
    Rule(
        "it runs where its parameters are",
        loss.runs_elsewhere,
        "torch.zeros, arange or tensor without device=; take the device from a parameter or an input",
    ),
    Rule(
        "a dream is an environment",
        dreams.is_an_environment,
        "a squeeze() that drops the batch axis of a single row, or pictures and features that grow without bound",
    ),
    Rule(
        "a seeded dream repeats",
        dreams.repeats_as_an_environment,
        "a cache or clock kept on `self`, or chance from elsewhere than torch's generator",
    ),
)

BEHAVIOUR_RULES = (
    Rule(
        "the world can show what it sees",
        act.sees_something,
        'sees = "image" with a world that has no decoder',
    ),
    Rule(
        "actions fit the codec",
        act.action_fits,
        "no squashing to the bounds, an index instead of a vector, or a goal that is required",
    ),
    Rule(
        "memory is a state",
        act.memory_is_a_state,
        "a decision that returns no memory (pass it on unchanged), or a new key",
    ),
    Rule(
        "memory restarts at is_first",
        act.memory_restarts,
        "`memory(n)` differs from call to call, or something is remembered on `self`",
    ),
    Rule(
        "greedy acting is deterministic",
        act.greedy_is_deterministic,
        "sampling regardless of `explore`; random behaviours draw with `oneiro.noise` from a key in their memory",
    ),
    Rule(
        "the world's state is left alone",
        act.leaves_state_alone,
        "`world.step` on the state itself; branch with `tree.clone` or `tree.repeat` first",
    ),
    Rule(
        "rows act independently",
        act.rows_are_independent,
        "normalising over the batch, or a plan shared by all rows",
    ),
    Rule(
        "the memory is all it remembers",
        act.keeps_no_secrets,
        "a plan or hidden state kept on `self` between calls",
    ),
    Rule(
        "it can act in a dream",
        act.dreams,
        "it reads something that only the real environment provides",
    ),
    Rule(
        "losses are finite scalars",
        act.losses_are_scalars,
        "`losses` ignores `parts`, or returns terms per row",
    ),
    Rule(
        "fitting spares the world",
        act.fitting_spares_the_world,
        "the world's weights or buffers are written while dreaming, or a loss does not reach its part",
    ),
    Rule(
        "it survives the disk",
        act.survives_the_disk,
        "something learned that is neither parameter nor buffer",
    ),
)


def check_world(
    world: WorldModel,
    make_batch: MakeBatch | None = None,
    *,
    atol: float = 1e-4,
    only: str | None = None,
    told: Told = lambda _: None,
) -> list[Check]:
    """Test a world against the contract. Nothing is printed, nothing is raised, the world stays as it is.

    `make_batch(rows, steps, seed)` returns arrival rows to test with; default: noise of the right shapes.
    `atol` is the relative and absolute tolerance of comparisons; worlds in bfloat16 need about 3e-2.
    `only` runs the rules whose name contains it; `told` is called with each verdict as it is found.
    In a test: `require(check_world(world))`.
    """
    return run(WORLD_RULES, lambda: world_case(world, make_batch, atol), only, told)


def check_behaviour(
    behaviour: Behaviour,
    world: WorldModel,
    make_batch: MakeBatch | None = None,
    *,
    atol: float = 1e-4,
    only: str | None = None,
    told: Told = lambda _: None,
) -> list[Check]:
    """Test a behaviour in a world that itself passes `check_world`; arguments as there."""
    return run(BEHAVIOUR_RULES, lambda: behaviour_case(behaviour, world, make_batch, atol), only, told)
