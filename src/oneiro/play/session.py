"""`Session`: one person in one dream, or in two dreams of different runs that are led by the same actions.

start    real rows --agent--> carry --> frame 0
step     frame t --(person or agent)--> action --world.step--> frame t+1        all kept, see `history`
rewind   back to any frame kept; a step from there lets go of what came after it: the dream branches

Chance: every dream has dice of its own, kept with each frame, and so has its agent. From a past frame the same actions
give the same dream again, unless new luck is asked for. No web in this file.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from oneiro import tree
from oneiro.envs.dice import Dice
from oneiro.errors import OneiroError
from oneiro.play.history import Frame, History, LaneFrame
from oneiro.play.limits import Limits
from oneiro.play.pictures import View
from oneiro.play.played_run import PlayedRun, with_luck
from oneiro.play.starts import Place
from oneiro.types import Carry, Knob, TimeStep

TEMPERATURES = (0.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a player may change at any time."""

    temperature: float = 1.0
    horizon: int = 1000
    """Steps after which a dream is cut off."""
    agent: bool = False
    """The agent of the first run acts."""
    explore: bool = False
    """And samples its actions."""
    past_ends: bool = False
    """A dream goes on where the world says that it has ended."""
    new_luck: bool = False
    """A dream that branches gets other random numbers, and so does the agent in it."""
    view: View = "image"
    knobs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """Where a dream is to begin: the place, and the real rows up to it as each run sees them."""

    place: Place
    rows: tuple[TimeStep, ...]


class Session:
    """See the module. Methods compute with torch: call them from one thread at a time."""

    def __init__(self, runs: Sequence[PlayedRun], limits: Limits | None = None, *, seed: int = 0) -> None:
        assert runs
        for other in runs[1:]:
            runs[0].require_alike(other)
        self.runs, self.limits = tuple(runs), limits or Limits()
        self.knobs = {knob.name: knob for run in reversed(runs) for knob in run.knobs}
        self.settings = Settings()
        self.history = History(self.limits.history_bytes)
        self.cursor = 0
        self.place = Place(0, 0)
        self._random = np.random.default_rng(seed)

    @property
    def frame(self) -> Frame:
        """Where the player is."""
        return self.history[self.cursor]

    def change(self, **changes: Any) -> Settings:
        """Change settings; ValueError for a number out of range, OneiroError for what this world has not."""
        settings = replace(self.settings, **changes)
        low, high = TEMPERATURES
        if not low <= settings.temperature <= high:
            raise ValueError(f"temperature must lie in {low:g} to {high:g}, got {settings.temperature}")
        if not 1 <= settings.horizon <= self.limits.horizon:
            raise ValueError(f"horizon must lie in 1 to {self.limits.horizon}, got {settings.horizon}")
        for name, value in settings.knobs.items():
            _check_knob(self.knobs.get(name), name, value)
        has_changed_view = settings.view != self.settings.view
        self.settings = settings
        if has_changed_view and len(self.history):
            self._show_again()
        return settings

    def start(self, place: Place | None = None) -> Frame:
        """A new dream, at `place` of the first run's replay or anywhere in it."""
        return self.open(self.find(place))

    def find(self, place: Place | None = None) -> Opening:
        """What `start` begins with. Where there is no replay, a real game is played to get there; no world is asked."""
        first = self.runs[0]
        place = place or first.starts.draw(self._random)
        rows = [first.rows(place)]
        for run in self.runs[1:]:
            is_alike = run.sees_like(first)
            own = place if is_alike else run.starts.draw(self._random)
            rows.append(run.rows(own, first if is_alike else None))
        return Opening(place, tuple(rows))

    @property
    def plays_to_begin(self) -> bool:
        """True if `find` opens a real game, which takes a while."""
        return any(run.starts.source == "game" for run in self.runs)

    def open(self, opening: Opening) -> Frame:
        """A new dream that begins there."""
        lanes = []
        for run, rows in zip(self.runs, opening.rows, strict=True):
            carry, _ = run.begin(rows)
            dice = Dice(run.agent.world.device, self._seed())
            lanes.append(self._look(run, with_luck(carry, self._seed()), dice))
        self.history.clear()
        self.history.append(Frame(number=0, lanes=tuple(lanes)))
        self.cursor, self.place = 0, opening.place
        return self.frame

    def step(self, numbers: tuple[float, ...] | None = None) -> Frame:
        """One imagined step from where the player is, by their action or, if it is on, the agent's.

        Whatever was dreamed after this frame before is let go. OneiroError at the end of a dream.
        """
        now = self.frame
        if now.number >= self.settings.horizon:
            raise OneiroError(
                f"the horizon of {self.settings.horizon} steps is reached; raise it or start again"
            )
        if all(lane.ended for lane in now.lanes) and not self.settings.past_ends:
            raise OneiroError("the dream has ended; start again, rewind, or let it go on past its end")
        if self.cursor < self.history.last and self.settings.new_luck:
            now = self._reseeded(now)
        memories = self._watch(now)
        if self.settings.agent:
            action, memories[0] = self._act(now)
        elif numbers is None:
            raise OneiroError("no action was given, and the agent is off")
        else:
            action = self.runs[0].action(numbers)
        lanes = [
            self._dream(run, lane, memory, action)
            for run, lane, memory in zip(self.runs, now.lanes, memories, strict=True)
        ]
        told = self.runs[0].told(action)
        frame = Frame(number=now.number + 1, lanes=tuple(lanes), action=told, by_agent=self.settings.agent)
        self.history.append(frame)
        self.cursor = frame.number
        return frame

    def rewind(self, number: int) -> Frame:
        """Go to a frame that is kept; OneiroError if there is no such."""
        try:
            frame = self.history[number]
        except KeyError:
            kept = f"{self.history.first} to {self.history.last}"
            raise OneiroError(f"frame {number} is not kept; these are: {kept}") from None
        self.cursor = number
        return frame

    def attach_real(self, shown: Any) -> Frame:
        """Keep what the real game showed beside the present frame."""
        frame = replace(self.frame, real=shown)
        self.history.replace(frame)
        return frame

    def suggestion(self, opening: Opening) -> tuple[Place, np.ndarray]:
        """A place where a dream may begin, with the real picture, or what the world makes of it."""
        run = self.runs[0]
        carry, shown = run.begin(opening.rows[0])
        return opening.place, run.picture(carry.state, "image") if shown is None else shown

    def _watch(self, frame: Frame) -> list[Any]:
        """The behaviours' memories after looking at a frame without acting."""
        with torch.no_grad():
            return [
                run.agent.behaviour.watch(run.agent.world, lane.carry.state, tree.clone(lane.carry.memory))
                for run, lane in zip(self.runs, frame.lanes, strict=True)
            ]

    def _act(self, frame: Frame) -> tuple[torch.Tensor, Any]:
        run, lane = self.runs[0], frame.lanes[0]
        with self._dice_of_agent(lane).thrown():
            carry = tree.clone(lane.carry)
            action, carry = run.agent.act(carry, self.settings.explore)
        return run.spaces.action.from_env(run.spaces.action.to_env(action)).to(action), carry.memory

    def _dice_of_agent(self, lane: LaneFrame) -> Dice:
        """Dice for the behaviour that follow from the world's, which they leave as they are."""
        with lane.dice.copy().thrown():
            seed = int(torch.randint(2**31, (), device="cpu"))
        return Dice(self.runs[0].agent.world.device, seed)

    def _reseeded(self, frame: Frame) -> Frame:
        """The frame with other random numbers of the worlds and the agents."""
        lanes = []
        for run, lane in zip(self.runs, frame.lanes, strict=True):
            dice = Dice(run.agent.world.device, self._seed())
            lanes.append(replace(lane, dice=dice, carry=with_luck(lane.carry, self._seed())))
        return replace(frame, lanes=tuple(lanes))

    def _dream(self, run: PlayedRun, lane: LaneFrame, memory: Any, action: torch.Tensor) -> LaneFrame:
        """One world's next frame; one that has ended stands still."""
        if lane.ended and not self.settings.past_ends:
            return replace(lane, reward=0.0, milliseconds=0.0)
        began = time.perf_counter()
        device = run.agent.world.device
        dice = lane.dice.copy()
        step = run.step(self.settings.knobs)
        with torch.no_grad(), dice.thrown():
            prediction = step(tree.clone(lane.carry.state), action.to(device), self.settings.temperature)
            luck = float(torch.rand((), device="cpu"))
        reward = 0.0 if prediction.reward is None else float(prediction.reward[0])
        cont = 1.0 if prediction.cont is None else float(prediction.cont[0])
        if not (math.isfinite(reward) and math.isfinite(cont)):
            raise OneiroError("the world has predicted numbers that are not finite; rewind or start again")
        carry = Carry(state=tree.detach(prediction.state), memory=memory)
        frame = self._look(run, carry, dice, reward=reward, cont=cont, ended=luck >= cont)
        return replace(frame, milliseconds=1000 * (time.perf_counter() - began))

    def _look(self, run: PlayedRun, carry: Carry, dice: Dice, **facts: Any) -> LaneFrame:
        with torch.no_grad():
            value = run.agent.behaviour.value(run.agent.world, carry.state, carry.memory)
        value = None if value is None or not torch.isfinite(value).all() else float(value[0])
        picture = run.picture(carry.state, self.settings.view)
        return LaneFrame(carry=carry, dice=dice, picture=picture, value=value, **facts)

    def _show_again(self) -> None:
        """The present frame in another view."""
        frame = self.frame
        lanes = [
            replace(lane, picture=run.picture(lane.carry.state, self.settings.view))
            for run, lane in zip(self.runs, frame.lanes, strict=True)
        ]
        self.history.replace(replace(frame, lanes=tuple(lanes)))

    def _seed(self) -> int:
        return int(self._random.integers(2**31))


def _check_knob(knob: Knob | None, name: str, value: float) -> None:
    if knob is None:
        raise OneiroError(f"this world has no knob {name!r}")
    if not knob.low <= value <= knob.high or (knob.is_whole and value != round(value)):
        kind = "a whole number" if knob.is_whole else "a number"
        raise ValueError(f"{name} must be {kind} in {knob.low:g} to {knob.high:g}, got {value}")
