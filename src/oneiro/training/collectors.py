"""`Collectors`: rows that actors in other processes live through, stored as they arrive. The learner's side.

    actor 0   slots 0, N, ...    --- turns, turns -->  .                              .--> streams 0, N, ...
    actor 1   slots 1, N + 1 ..  --- turns, turns -->  |  whichever has handed over   |--> streams 1, N + 1, ...
        ^                                                                             |
        '---- weights, with the next turns it is asked for  <---  updates  <----------'

The rows of an actor arrive all or none, in order, and go to streams that are its own. At most `ahead` requests are
open with each actor: when its rows are taken in, it is asked for the next ones. So neither side runs away from the
other. An actor that has died is replaced; the episodes it was playing are cut off after the last row it handed over.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from oneiro.agent import Agent
from oneiro.data.replay import Replay
from oneiro.data.rollout import POLL, Turn
from oneiro.errors import OneiroError
from oneiro.training.actors import Actors, Lived, Role, pack, split

logger = logging.getLogger("oneiro")
PATIENCE = 60.0
"""Seconds after which it is said that actors have not begun yet."""


class Gone(Exception):  # noqa: N818 - an event; `Collectors` decides what it means
    """An actor's process has ended, or its machine cannot be reached; the message says how."""


class Cluster(Protocol):
    """Where actors live. Requests to one actor are answered in order."""

    def start(self, role: Role) -> Any:
        """Begin to start an actor."""
        ...

    def is_up(self, actor: Any) -> bool:
        """True once an actor has a process and has begun, or failed to; it may wait for a CPU before."""
        ...

    def share(self, weights: np.ndarray) -> Any:
        """Weights in a form that many actors can be sent."""
        ...

    def ask(self, actor: Any, turns: int, weights: Any) -> Any:
        """Request the next turns, with shared weights or None; returns a ticket."""
        ...

    def answered(self, tickets: Sequence[Any], seconds: float) -> Collection[Any]:
        """Tickets that can be taken now (also those that failed); waits up to `seconds` for the first one."""
        ...

    def take(self, ticket: Any) -> list[Lived]:
        """The turns. Raises Gone, and what the actor itself has raised."""
        ...

    def end(self, actor: Any) -> None:
        """Kill an actor."""
        ...


@dataclass(kw_only=True, eq=False)
class _Seat:
    """An actor and those who follow it if it dies."""

    slots: np.ndarray
    role: Role
    actor: Any = None
    tickets: deque[Any] = field(default_factory=deque)
    """Open requests, oldest first."""
    version: int = -1
    """Of the weights it was sent last."""
    is_up: bool = False
    """It has begun, and is expected to answer."""
    since: float = 0.0
    """When the oldest request became the oldest; until it is up, when it was started."""
    deaths: int = 0
    """In a row."""


class Collectors:
    """Has the verbs of `Acting`, but a turn is one of the actor that was ready first."""

    def __init__(
        self,
        config: Actors,
        cluster: Cluster,
        replay: Replay,
        *,
        player: Agent,
        role: Role,
        updates: Callable[[], int],
    ) -> None:
        """`player` has the weights to act with; `role` is filled in for each actor; `updates()` made so far."""
        assert replay.share.count == 1, "actors belong to one process"
        self.config, self.cluster, self.replay = config, cluster, replay
        self.player, self.updates = player, updates
        self._weights, self._version, self._packed_at = None, -1, 0
        self._said = False  # that actors wait
        self._turns: deque[tuple[np.ndarray, Lived]] = deque()  # taken, but not stored yet
        parts = split(role.recipe.env.num, config.num)
        share = [replace(role.share, index=index, count=config.num) for index in range(config.num)]
        self._seats = [_Seat(slots=s, role=replace(role, share=x)) for s, x in zip(parts, share, strict=True)]
        for seat in self._seats:
            self._fill(seat)

    def live(self, meanwhile: Callable[[], None] = lambda: None) -> Turn:
        """Store the next turn of some actor. While none is there, `meanwhile` is called twice a second (it may raise).

        If an actor was lost, the turn has a row that did not arrive for each of its slots.
        """
        if not self._turns:
            seat = self._wait(meanwhile)
            try:
                lived = self._take(seat)
            except Gone as gone:
                return self._bury(seat, str(gone))
            self._turns.extend((seat.slots, turn) for turn in lived)
        slots, (turn, memo) = self._turns.popleft()
        self.replay.append(
            turn.columns(),
            turn.is_first,
            turn.terminated,
            turn.last,
            memo or None,
            turn.arrived,
            slots=slots,
            ids=turn.ids,
        )
        return turn

    def go_on(self) -> None:
        """Nothing: an actor is asked for more as soon as its rows are taken."""

    def close(self) -> None:
        """End the actors."""
        for seat in self._seats:
            self.cluster.end(seat.actor)

    # -- inside ----------------------------------------------------------------------------------------------

    def _wait(self, meanwhile: Callable[[], None]) -> _Seat:
        """The actor to hear next: one that has answered, those that waited longest first, or one that is overdue."""
        while True:
            ready = self.cluster.answered([seat.tickets[0] for seat in self._seats], POLL)
            self._look_who_is_up()
            late = time.monotonic() - self.config.timeout
            for seat in self._seats:
                if seat.tickets[0] in ready or (seat.is_up and seat.since < late):
                    self._seats.remove(seat)
                    self._seats.append(seat)
                    return seat
            meanwhile()

    def _look_who_is_up(self) -> None:
        """The clock of an actor starts when it has begun. Once, say that some have not."""
        now = time.monotonic()
        for seat in [seat for seat in self._seats if not seat.is_up]:
            if self.cluster.is_up(seat.actor):
                seat.is_up, seat.since = True, now
        waiting = [seat for seat in self._seats if not seat.is_up and seat.since < now - PATIENCE]
        if waiting and not self._said:
            self._said = True
            logger.warning(
                "%d of %d experience actors have not begun after %g s: they wait for a free CPU of Ray, or are slow to "
                "start. The others play on; give the cluster more CPUs, or set a smaller actors.num",
                len(waiting),
                len(self._seats),
                PATIENCE,
            )

    def _take(self, seat: _Seat) -> list[Lived]:
        if seat.tickets[0] not in self.cluster.answered([seat.tickets[0]], 0.0):
            raise Gone(f"it did not answer for {self.config.timeout:g} s")
        lived = self.cluster.take(seat.tickets[0])
        seat.tickets.popleft()
        seat.since, seat.deaths = time.monotonic(), 0
        self._ask(seat)
        return lived

    def _fill(self, seat: _Seat) -> None:
        """Start the actor of a seat. Its ids are larger than all that are stored."""
        share, begun = seat.role.share, self.replay.begun
        role = replace(seat.role, begun=begun + (share.index - begun) % share.count)
        seat.actor, seat.version, seat.is_up = self.cluster.start(role), -1, False
        seat.since = time.monotonic()
        for _ in range(self.config.ahead):
            self._ask(seat)

    def _ask(self, seat: _Seat) -> None:
        """One more request, with weights if there are newer ones than it has."""
        made = self.updates()
        if self._version < 0 or made - self._packed_at >= self.config.refresh:
            self._weights = self.cluster.share(pack(self.player))
            self._version, self._packed_at = self._version + 1, made
        weights = self._weights if seat.version < self._version else None
        seat.version = self._version
        seat.tickets.append(self.cluster.ask(seat.actor, self.config.turns, weights))

    def _bury(self, seat: _Seat, how: str) -> Turn:
        """Cut off the episodes of an actor that is gone, and start another in its place."""
        seat.deaths += 1
        name, limit = f"experience actor {seat.role.share.index}", self.config.max_deaths
        self.cluster.end(seat.actor)
        if seat.deaths >= limit:
            raise OneiroError(
                f"{name} died {limit} times in a row and handed over no rows between. Mend the cause, or raise "
                f"actors.max_deaths. The last time: {how}"
            )
        logger.warning("%s is gone and is started again: %s", name, how)
        self.replay.cut_off(seat.slots.tolist())
        seat.tickets.clear()
        seat.role = replace(seat.role, life=seat.role.life + 1)
        self._fill(seat)
        return lost(len(seat.slots))


def lost(count: int) -> Turn:
    """The turn in which `count` episodes were lost."""
    none = np.zeros(count, np.bool_)
    return Turn(
        obs={},
        action=np.zeros((count, 0), np.float32),
        reward=np.zeros(count, np.float32),
        is_first=none,
        terminated=none,
        last=none,
        arrived=none,
        ids=np.full(count, -1, np.int64),
        ended=[],
    )


def check(config: Actors, num: int, processes: int) -> None:
    """OneiroError unless `num` slots can be dealt out to the actors of one process."""
    if num % config.num:
        raise OneiroError(
            f"env.num is {num}, which {config.num} actors cannot share evenly; set it to a multiple of {config.num}, "
            "or another actors.num"
        )
    if processes > 1:
        raise OneiroError(
            f"experience actors serve one learner, and torchrun has started {processes} processes. Start it without "
            "torchrun, or leave out actors.num: each process plays its own slots then"
        )
