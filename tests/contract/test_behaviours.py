"""`check_behaviour` passes sound behaviours and fails each broken one, in the check that is about its bug."""

from collections.abc import Callable, Sequence

import pytest
import torch
from small_world import BOX, DISCRETE, SmallActor, SmallConfig, SmallWorld
from torch import Tensor

from oneiro import Agent, OpenLoop, tree
from oneiro.behaviour import Behaviour
from oneiro.behaviours.linear import LinearConfig
from oneiro.behaviours.population import Population
from oneiro.errors import Undecodable
from oneiro.spaces import Spaces
from oneiro.testing import check_behaviour, require
from oneiro.testing.suite import BEHAVIOUR_RULES
from oneiro.types import Decision, Losses, Obs, State, TimeStep
from oneiro.world import WorldModel

BROKEN: list[tuple[str, type[SmallActor]]] = []


def breaks(rule: str) -> Callable[[type[SmallActor]], type[SmallActor]]:
    def note(cls: type[SmallActor]) -> type[SmallActor]:
        BROKEN.append((rule, cls))
        return cls

    return note


@breaks("the world can show what it sees")
class SeesTheUnseen(SmallActor):
    def __init__(self, spaces: Spaces, feature_dim: int) -> None:
        super().__init__(spaces, feature_dim, "pictures")  # type: ignore[arg-type]


@breaks("actions fit the codec")
class OutOfBounds(SmallActor):
    def squash(self, raw: Tensor) -> Tensor:
        return 10 * raw


@breaks("actions fit the codec")
class FlatAction(SmallActor):
    def squash(self, raw: Tensor) -> Tensor:
        return super().squash(raw)[:, 0]


@breaks("memory is a state")
class DropsMemory(SmallActor):
    def act(self, world: WorldModel, state: State, memory: State, **options: bool) -> Decision:  # type: ignore[override]
        return Decision(super().act(world, state, memory, **options).action)  # type: ignore[arg-type]


@breaks("memory restarts at is_first")
class RemembersOnItself(SmallActor):
    calls = 0

    def memory(self, n: int) -> State:
        self.calls += 1
        return {"seen": torch.full((n,), float(self.calls))}


@breaks("greedy acting is deterministic")
class AlwaysSamples(SmallActor):
    def act(self, world: WorldModel, state: State, memory: State, **options: bool) -> Decision:  # type: ignore[override]
        return super().act(world, state, memory, **{**options, "explore": True})  # type: ignore[arg-type]


@breaks("the world's state is left alone")
class StepsTheState(SmallActor):
    def act(self, world: WorldModel, state: State, memory: State, **options: bool) -> Decision:  # type: ignore[override]
        state["h"].mul_(0.5)
        return super().act(world, state, memory, **options)  # type: ignore[arg-type]


@breaks("rows act independently")
class NormalisesOverTheBatch(SmallActor):
    def view(self, world: WorldModel, state: State) -> Tensor:
        x = super().view(world, state)
        return x - x.mean(0)


@breaks("the memory is all it remembers")
class KeepsAPlan(SmallActor):
    plan: Tensor | None = None

    def squash(self, raw: Tensor) -> Tensor:
        self.plan = raw if self.plan is None else self.plan * 0.9
        return super().squash(self.plan)


@breaks("it can act in a dream")
class NeedsTheRealThing(SmallActor):
    frames = 0

    def act(self, world: WorldModel, state: State, memory: State, **options: bool) -> Decision:  # type: ignore[override]
        self.frames += 1
        assert self.frames < 3, "no more frames from the environment"
        return super().act(world, state, memory, **options)  # type: ignore[arg-type]


@breaks("losses are finite scalars")
class LossPerRow(SmallActor):
    def losses(self, world: WorldModel, batch: TimeStep, trace: State | None, parts: Sequence[str]) -> Losses:
        found = super().losses(world, batch, trace, parts)
        return Losses({part: loss.expand(3) for part, loss in found.by_part.items()})


@breaks("fitting spares the world")
class TeachesTheWorld(SmallActor):
    def losses(self, world: WorldModel, batch: TimeStep, trace: State | None, parts: Sequence[str]) -> Losses:
        with torch.no_grad():
            for parameter in world.parameters():
                parameter.mul_(0.999)
        return super().losses(world, batch, trace, parts)


@breaks("fitting spares the world")
class NeverReached(SmallActor):
    def losses(self, world: WorldModel, batch: TimeStep, trace: State | None, parts: Sequence[str]) -> Losses:
        found = super().losses(world, batch, trace, parts)
        zero = sum(p.sum() * 0 for p in self.parameters())
        return Losses({part: loss.detach() + zero for part, loss in found.by_part.items()})


@breaks("it survives the disk")
class OddState(SmallActor):
    def get_extra_state(self) -> dict:
        return {"steps": 3}

    def set_extra_state(self, state: dict) -> None:
        pass


def actor(cls: type[SmallActor], world: SmallWorld) -> SmallActor:
    torch.manual_seed(1)
    return cls(world.spaces, world.feature_dim)


@pytest.mark.parametrize("spaces", [BOX, DISCRETE], ids=["box", "discrete"])
@pytest.mark.parametrize("sees", ["feature", "image"])
def test_a_sound_behaviour_passes(spaces: Spaces, sees: str) -> None:
    world = SmallConfig().build(spaces)
    checks = check_behaviour(SmallActor(spaces, world.feature_dim, sees), world)  # type: ignore[arg-type]
    require(checks)
    assert [check.name for check in checks] == [rule.name for rule in BEHAVIOUR_RULES]
    assert not [check for check in checks if check.outcome == "skipped"]


@pytest.mark.parametrize(("rule", "cls"), BROKEN, ids=[cls.__name__ for _, cls in BROKEN])
def test_a_bug_is_found(rule: str, cls: type[SmallActor]) -> None:
    world = SmallConfig().build(BOX)
    (check,) = check_behaviour(actor(cls, world), world, only=rule)
    assert check.outcome == "failed", f"{cls.__name__} passed {rule!r}"
    assert "Usual cause: " in check.message


def test_every_rule_can_fail() -> None:
    assert {rule.name for rule in BEHAVIOUR_RULES} == {rule for rule, _ in BROKEN}


def test_seeing_images_needs_a_world_that_draws() -> None:
    class Blind(SmallWorld):
        def decode(self, state: State) -> Obs:
            raise Undecodable("no pictures here")

    world = Blind(SmallConfig(), BOX)
    (check,) = check_behaviour(SmallActor(BOX, 12, "image"), world, only="the world can show")
    assert check.outcome == "failed"
    assert "no pictures here" in check.message


def linear(world: SmallWorld) -> Behaviour:
    behaviour = LinearConfig().build(world.spaces, world.feature_dim)
    for parameter in behaviour.parameters():
        torch.nn.init.normal_(parameter)
    return behaviour


@pytest.mark.parametrize("hidden", [0, 5])
def test_the_linear_controller_conforms(hidden: int) -> None:
    world = SmallConfig().build(BOX)
    behaviour = LinearConfig(hidden_dim=hidden, has_bias=True, squash="tanh").build(
        DISCRETE, world.feature_dim
    )
    require(check_behaviour(behaviour, SmallConfig().build(DISCRETE)))


def test_a_population_conforms() -> None:
    world = SmallConfig().build(DISCRETE)
    require(check_behaviour(Population(linear(world)), world))


def test_a_plan_conforms() -> None:
    world = SmallConfig().build(DISCRETE)
    plan = torch.eye(3)[torch.tensor([[0, 1, 2]] * 4)]
    require(check_behaviour(OpenLoop(plan), world))


def test_an_agent_of_both_acts() -> None:
    world = SmallConfig().build(BOX)
    agent = Agent(world, actor(SmallActor, world)).eval()
    action, carry = agent.act(agent.start(3))
    assert action.shape == (3, 2)
    assert carry.memory["seen"].tolist() == [1.0] * 3
    assert tree.size(carry) == 3
