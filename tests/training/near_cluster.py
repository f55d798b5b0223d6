"""A cluster for tests whose actors live in this process, answer when they are heard, and die when told to."""

import time
from collections.abc import Collection, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from oneiro.training.actors import Actor, Lived, Parcel, Role
from oneiro.training.collectors import Gone


@dataclass(eq=False)
class Ticket:
    """A request; it is answered when it is taken."""

    actor: "NearActor"
    turns: int
    weights: np.ndarray | None


@dataclass(eq=False)
class NearActor:
    """An actor and what it was asked."""

    role: Role
    actor: Actor
    open: list[Ticket] = field(default_factory=list)
    answers: int = 0
    is_alive: bool = True


class NearCluster:
    """`dies`: {(index, life): answers after which this actor is found dead}; `silent`: indices that never answer.

    `late`: {index: how often it is asked, 20 ms each time, until this actor has begun}.
    """

    def __init__(
        self,
        dies: dict[tuple[int, int], int] | None = None,
        silent: Collection[int] = (),
        late: dict[int, int] | None = None,
    ) -> None:
        self.dies, self.silent, self.late = dies or {}, silent, late or {}
        self.actors: list[NearActor] = []
        self.sent: list[tuple[int, int]] = []
        """(index of an actor, number of the weights it was sent)."""
        self.packed: list[np.ndarray] = []
        self.most = 0
        """Most requests that were ever open with one actor."""

    def start(self, role: Role) -> NearActor:
        state = torch.get_rng_state()
        self.actors.append(NearActor(role, Actor(Parcel.of(role).open())))
        torch.set_rng_state(state)  # a process of its own would not touch ours
        return self.actors[-1]

    def is_up(self, actor: NearActor) -> bool:
        left = self.late.get(actor.role.share.index, 0)
        if left:
            self.late[actor.role.share.index] = left - 1
            time.sleep(0.02)
        return not left

    def share(self, weights: np.ndarray) -> np.ndarray:
        self.packed.append(weights)
        return weights

    def ask(self, actor: NearActor, turns: int, weights: np.ndarray | None) -> Ticket:
        if weights is not None:
            self.sent.append((actor.role.share.index, len(self.packed) - 1))
        actor.open.append(Ticket(actor, turns, weights))
        self.most = max(self.most, len(actor.open))
        return actor.open[-1]

    def answered(self, tickets: Sequence[Ticket], seconds: float) -> list[Ticket]:
        up = [ticket for ticket in tickets if self.is_up(ticket.actor)]
        return [ticket for ticket in up if ticket.actor.role.share.index not in self.silent]

    def take(self, ticket: Ticket) -> list[Lived]:
        actor = ticket.actor
        assert ticket is actor.open.pop(0), "answers come in order"
        role = actor.role
        if self.dies.get((role.share.index, role.life), 10**9) <= actor.answers:
            actor.actor.play(3)  # what it lived through and never handed over
            raise Gone("the test has ended it")
        actor.answers += 1
        return actor.actor.play(ticket.turns, ticket.weights)

    def end(self, actor: Any) -> None:
        if actor.is_alive:
            actor.actor.env.close()
        actor.is_alive = False


def near(monkeypatch: Any, **how: Any) -> NearCluster:
    """Let `Online` find this cluster where it looks for Ray."""
    cluster = NearCluster(**how)

    @contextmanager
    def connected(_: Any):
        yield cluster

    monkeypatch.setattr("oneiro.training.online.connected", connected)
    return cluster
