"""The suite passes a sound world and fails each broken one, in the check that is about its bug."""

import copy

import pytest
import torch
from broken_worlds import BROKEN, make
from small_world import BOX, DISCRETE, SmallActor, SmallConfig, SmallWorld

from oneiro.errors import Undecodable
from oneiro.spaces import ActionCodec, Spaces
from oneiro.testing import check_world, require
from oneiro.testing.suite import WORLD_RULES
from oneiro.types import Obs, State


@pytest.mark.parametrize("spaces", [BOX, DISCRETE], ids=["box", "discrete"])
def test_a_sound_world_passes(spaces: Spaces) -> None:
    checks = check_world(SmallConfig().build(spaces))
    require(checks)
    assert [check.name for check in checks] == [rule.name for rule in WORLD_RULES]
    assert [check.name for check in checks if check.outcome == "skipped"] == ["context is enough"]


@pytest.mark.parametrize(("rule", "cls"), BROKEN, ids=[cls.__name__ for _, cls in BROKEN])
def test_a_bug_is_found(rule: str, cls: type[SmallWorld]) -> None:
    (check,) = check_world(make(cls), only=rule)
    assert check.outcome == "failed", f"{cls.__name__} passed {rule!r}"
    assert "Usual cause: " in check.message
    assert len(check.message) > 60


def test_every_rule_can_fail() -> None:
    assert {rule.name for rule in WORLD_RULES} == {rule for rule, _ in BROKEN}


def test_the_world_and_the_dice_are_left_as_they_were() -> None:
    world = SmallConfig().build(BOX).train()
    weights = copy.deepcopy(world.state_dict())
    dice = torch.get_rng_state()
    check_world(world)
    assert world.training
    assert torch.equal(torch.get_rng_state(), dice)
    assert all(torch.equal(x, weights[name]) for name, x in world.state_dict().items())


def test_a_world_that_cannot_draw_is_excused() -> None:
    class Blind(SmallWorld):
        def decode(self, state: State) -> Obs:
            raise Undecodable("no pictures here")

    checks = {check.name: check for check in check_world(Blind(SmallConfig(), BOX), only="draws")}
    assert checks["a world that draws always draws"].outcome == "passed"
    (picture,) = check_world(Blind(SmallConfig(), BOX), only="pictures")
    assert (picture.outcome, picture.message) == ("skipped", "no pictures here")


def test_an_exception_is_reported_with_its_place() -> None:
    world = SmallConfig().build(Spaces({"image": (3, 8, 8), "goal": (5,)}, ActionCodec(3)))

    def explode(state: State) -> None:
        raise KeyError("goal")

    world.feature = explode  # type: ignore[method-assign, assignment]
    (check,) = check_world(world, only="features fit")
    assert check.outcome == "failed"
    assert "KeyError" in check.message
    assert "test_suite.py:" in check.message


def test_require_lists_every_failure() -> None:
    checks = check_world(make(dict((c.__name__, c) for _, c in BROKEN)["Bytes"]))
    with pytest.raises(AssertionError, match="pictures are in range"):
        require(checks)


def test_the_actor_of_these_tests_dreams() -> None:
    world = SmallConfig().build(BOX)
    assert SmallActor(BOX, world.feature_dim).memory(3)["seen"].tolist() == [0.0] * 3
