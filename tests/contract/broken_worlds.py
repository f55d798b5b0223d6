"""`SmallWorld` with one bug at a time: (name of the check that must fail, world). Each bug was seen in the wild."""

import copy
import random
from collections.abc import Callable, Sequence

import torch
from small_world import BOX, SmallConfig, SmallWorld, masked_mean
from torch import Tensor, nn

from oneiro import tree
from oneiro.errors import Undecodable
from oneiro.spaces import Spaces, to_float
from oneiro.types import Losses, Obs, Prediction, State, TimeStep
from oneiro.world import Observe, Step

BROKEN: list[tuple[str, type[SmallWorld]]] = []


def breaks(rule: str) -> Callable[[type[SmallWorld]], type[SmallWorld]]:
    def note(cls: type[SmallWorld]) -> type[SmallWorld]:
        BROKEN.append((rule, cls))
        return cls

    return note


@breaks("the world declares itself")
class MisnamedPart(SmallWorld):
    parts = ("vision", "dynamics")


@breaks("a start is blank")
class RandomStart(SmallWorld):
    def start(self, n: int) -> State:
        state = super().start(n)
        return {**state, "h": torch.rand(n, self.config.hidden_dim)}


@breaks("a start is blank")
class GlobalClock(SmallWorld):
    def start(self, n: int) -> State:
        return {**super().start(n), "t": torch.zeros(())}


@breaks("states keep their structure")
class SometimesKey(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        prediction.state["logit"] = prediction.state["z"]
        return prediction


@breaks("states keep their structure")
class DoubleTrouble(SmallWorld):
    def observe(self, state: State, row: TimeStep) -> State:
        state = super().observe(tree.map(lambda x: x.float() if x.dtype == torch.float64 else x, state), row)
        return {**state, "mu": state["mu"].double()}


@breaks("features fit")
class WrongAxis(SmallWorld):
    def feature(self, state: State) -> Tensor:
        return torch.cat([state["z"], state["h"]], 1)


@breaks("features fit")
class WrongWidth(SmallWorld):
    def __init__(self, config: SmallConfig, spaces: Spaces) -> None:
        super().__init__(config, spaces)
        self.feature_dim = config.hidden_dim


@breaks("pictures are in range")
class Unsquashed(SmallWorld):
    def decode(self, state: State) -> Obs:
        return {"image": super().decode(state)["image"] * 255}


@breaks("pictures are in range")
class Bytes(SmallWorld):
    def decode(self, state: State) -> Obs:
        return {"image": super().decode(state)["image"].to(torch.uint8)}


@breaks("a world that draws always draws")
class DrawsSometimes(SmallWorld):
    def decode(self, state: State) -> Obs:
        if not state["h"].any():
            raise Undecodable("nothing to draw yet")
        return super().decode(state)


@breaks("predictions are well formed")
class TrailingAxis(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        assert prediction.reward is not None
        return Prediction(prediction.state, prediction.reward[:, None], prediction.cont)


@breaks("predictions are well formed")
class LogitCont(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        assert prediction.cont is not None
        return Prediction(prediction.state, prediction.reward, 3 * torch.logit(prediction.cont) - 2)


@breaks("one seed, one future")
class ForeignDice(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        prediction.state["z"] = prediction.state["z"] + temperature * random.random()
        return prediction


@breaks("the state is all it remembers")
class HiddenCache(SmallWorld):
    past: Tensor | None = None

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        if self.past is not None and self.past.shape == prediction.state["h"].shape:
            prediction.state["h"] = prediction.state["h"] + 0.1 * self.past
        self.past = prediction.state["h"]
        return prediction


@breaks("inputs are left alone")
class EditsRows(SmallWorld):
    def observe(self, state: State, row: TimeStep) -> State:
        assert row.action is not None
        row.action.mul_(0.5)
        return super().observe(state, row)


@breaks("an is_first row erases history")
class NeverResets(SmallWorld):
    def observe(self, state: State, row: TimeStep) -> State:
        return super().observe(state, TimeStep(**{**vars(row), "is_first": torch.zeros_like(row.is_first)}))


@breaks("an is_first row erases history")
class ResetsLate(SmallWorld):
    def start(self, n: int) -> State:
        return {**super().start(n), "was_first": torch.zeros(n, dtype=torch.bool, device=self.device)}

    def observe(self, state: State, row: TimeStep) -> State:
        late = TimeStep(**{**vars(row), "is_first": state["was_first"]})
        return {**super().observe(state, late), "was_first": row.is_first}


@breaks("an is_first row erases history")
class ResetsEverybody(SmallWorld):
    def observe(self, state: State, row: TimeStep) -> State:
        everybody = row.is_first.any().expand(len(row.is_first))
        return super().observe(state, TimeStep(**{**vars(row), "is_first": everybody}))


@breaks("absorb equals a loop of observe")
class ShiftedAbsorb(SmallWorld):
    def absorb(self, state: State, batch: TimeStep) -> State:
        assert batch.action is not None
        shifted = torch.cat([batch.action[:, 1:], batch.action[:, :1]], 1)
        return super().absorb(state, TimeStep(**{**vars(batch), "action": shifted}))


@breaks("masked rows change nothing")
class FoldsPadding(SmallWorld):
    def absorb(self, state: State, batch: TimeStep) -> State:
        for t in range(batch.is_first.shape[1]):
            state = self.observe(state, batch.at(t))
        return state


@breaks("rows are independent")
class BatchStatistics(SmallWorld):
    def encode(self, image: Tensor) -> Tensor:
        z = super().encode(image)
        return z - z.mean(0, keepdim=True)


@breaks("rows are independent")
class SpecialRow(SmallWorld):
    def remember(self, z: Tensor, action: Tensor | None, h: Tensor) -> Tensor:
        h = super().remember(z, action, h)
        return torch.cat([h[:1] * 0.5, h[1:]])


@breaks("rows are independent")
class NoiseOfTheBatch(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        spread = temperature * prediction.state["h"].std()
        prediction.state["z"] = prediction.state["z"] + spread * torch.randn_like(prediction.state["z"])
        return prediction


@breaks("a row reset in mid-dream equals a fresh one")
class SharedClock(SmallWorld):
    """A clock in the state, one number per row, but read from row 0 alone."""

    def start(self, n: int) -> State:
        return {**super().start(n), "t": torch.zeros(n, device=self.device)}

    def observe(self, state: State, row: TimeStep) -> State:
        return {**super().observe(state, row), "t": torch.where(row.is_first, 0.0, state["t"])}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step(state, action, temperature)
        prediction.state["z"] = prediction.state["z"] + 0.1 * state["t"][0]
        prediction.state["t"] = state["t"] + 1
        return prediction


@breaks("states can be rearranged")
class ByRowNumber(SmallWorld):
    def start(self, n: int) -> State:
        return {**super().start(n), "row": torch.arange(n, device=self.device)}

    def observe(self, state: State, row: TimeStep) -> State:
        return {**super().observe(state, row), "row": state["row"]}

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        return super().step({**state, "h": state["h"][state["row"]]}, action, temperature)


@breaks("temperature 0 is deterministic")
class IgnoresTemperature(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        return super().step(state, action, 1.0)


@breaks("a dream's step is step")
class StaleWeights(SmallWorld):
    def stepper(self) -> Step:
        return copy.deepcopy(self).step


@breaks("an agent's observe is observe")
class StaleEyes(SmallWorld):
    def observer(self) -> Observe:
        return copy.deepcopy(self).observe


@breaks("rows with one draw share their noise")
class NoisePerRow(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        own = torch.arange(len(action), device=action.device)
        prediction = super().step({**state, "draw": own}, action, temperature)
        prediction.state["draw"] = state["draw"]
        return prediction


@breaks("rows with one draw share their noise")
class OneNoiseForAll(SmallWorld):
    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        prediction = super().step({**state, "draw": state["draw"] * 0}, action, temperature)
        prediction.state["draw"] = state["draw"]
        return prediction


@breaks("memo and recall fit")
class PartialRecall(SmallWorld):
    def recall(self, memo: dict[str, Tensor], n: int) -> State:
        return {"z": memo["mu"], "h": torch.zeros(n, self.config.hidden_dim)}


@breaks("context is enough")
class LongerThanItSays(SmallWorld):
    context = 2


@breaks("every parameter has a part")
class Orphan(SmallWorld):
    def __init__(self, config: SmallConfig, spaces: Spaces) -> None:
        super().__init__(config, spaces)
        self.extra = nn.Linear(2, 2)


@breaks("losses are finite scalars")
class IgnoresParts(SmallWorld):
    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        return super().losses(batch, self.parts, before)


@breaks("losses are finite scalars")
class CallsBackward(SmallWorld):
    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        found = super().losses(batch, parts, before)
        sum(found.by_part.values()).backward(retain_graph=True)  # type: ignore[union-attr]
        return found


@breaks("losses are finite scalars")
class StateOnTheGraph(SmallWorld):
    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        found = super().losses(batch, parts, before)
        if found.trace is not None:
            found.after = tree.map(lambda x: x[:, -1], found.trace)
        return found


@breaks("losses move exactly their part")
class Detached(SmallWorld):
    def remember(self, z: Tensor, action: Tensor | None, h: Tensor) -> Tensor:
        return super().remember(z, action, h).detach()


@breaks("losses move exactly their part")
class Leaks(SmallWorld):
    """The loss of one part writes the weights of another."""

    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        if "memory" in parts and self.training:
            self.vision["down"].weight.data.mul_(0.99)
        return super().losses(batch, parts, before)


@breaks("losses of parts do not mix")
class Mixes(SmallWorld):
    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        found = super().losses(batch, parts, before)
        if len(found.by_part) == 2:
            found.by_part["vision"] = found.by_part["vision"] + 0.1 * found.by_part["memory"]
        return found


@breaks("losses ignore padding")
class AveragesPadding(SmallWorld):
    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        found = super().losses(batch, parts, before)
        if "vision" in parts:
            image = to_float(batch.obs["image"])
            everything = torch.ones_like(batch.mask)
            drawn = self.decode({"z": self.encode(image)})["image"]
            found.by_part["vision"] = masked_mean((drawn - image).pow(2).flatten(-3).sum(-1), everything)
        return found


@breaks("losses forget at restarts")
class TrainsAcrossRestarts(SmallWorld):
    def memory_loss(self, batch: TimeStep, before: State | None, result: Losses) -> None:
        never = torch.zeros_like(batch.is_first)
        super().memory_loss(TimeStep(**{**vars(batch), "is_first": never}), before, result)


@breaks("losses forget at restarts")
class TrainsWithLateReset(SmallWorld):
    def memory_loss(self, batch: TimeStep, before: State | None, result: Losses) -> None:
        late = torch.roll(batch.is_first, 1, 1)
        super().memory_loss(TimeStep(**{**vars(batch), "is_first": late}), before, result)


@breaks("streams join")
class ForgetsTheStream(SmallWorld):
    def losses(self, batch: TimeStep, parts: Sequence[str], before: State | None = None) -> Losses:
        found = super().losses(batch, parts, before)
        if found.after is not None:
            found.after["h"] = found.after["h"] * 0
        return found


@breaks("it survives the disk")
class PlainStatistics(SmallWorld):
    scale = 1.0

    def after_update(self) -> None:
        self.scale = self.scale * 0.9

    def feature(self, state: State) -> Tensor:
        return super().feature(state) * self.scale


@breaks("it runs where its parameters are")
class CpuOnly(SmallWorld):
    def start(self, n: int) -> State:
        return {**super().start(n), "h": torch.zeros(n, self.config.hidden_dim)}


@breaks("a dream is an environment")
class SqueezedAlone(SmallWorld):
    def decode(self, state: State) -> Obs:
        return {name: x.squeeze() for name, x in super().decode(state).items()}


@breaks("a seeded dream repeats")
class CountsItsDreams(SmallWorld):
    steps = 0

    def step(self, state: State, action: Tensor, temperature: float = 1.0) -> Prediction:
        self.steps += 1
        prediction = super().step(state, action, temperature)
        return Prediction(
            prediction.state, prediction.reward, torch.full_like(action[:, 0], self.steps % 3 > 0)
        )


def make(cls: type[SmallWorld]) -> SmallWorld:
    torch.manual_seed(0)
    return cls(SmallConfig(), BOX)
