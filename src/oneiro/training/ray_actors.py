"""`RayCluster`: experience actors as Ray actors. The only file that imports Ray.

Without an address Ray is started on this machine: it listens on the loopback interface only, has no dashboard, sends no
usage statistics, and is ended with the stage. With one, this process joins that cluster as a client of it and leaves it
as it was.
"""

import importlib.util
import logging
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from oneiro.errors import MissingExtra, OneiroError
from oneiro.training.actors import Actor, Actors, Lived, Parcel, Role
from oneiro.training.collectors import Gone

ADDRESS = "RAY_ADDRESS"
ATTEMPTS = 3  # to start Ray here: it gives itself 30 s, which a busy machine may not grant at first
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 starves actors where learner and actors share the cores
    "RAY_prestart_worker_first_driver": "0",  # else the learner waits for processes that nobody asked for
    "RAY_worker_register_timeout_seconds": "600",  # 60 by default, after which Ray hangs on a busy machine
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch: without it every service listens on all interfaces
}


class RemoteActor:
    """`Actor` as Ray runs it, in a process of its own."""

    def __init__(self, parcel: Parcel) -> None:
        self.actor = Actor(parcel.open())

    def begun(self) -> None:
        """Answered as soon as the actor is there."""

    def play(self, turns: int, weights: np.ndarray | None) -> list[Lived]:
        """See `Actor.play`."""
        return self.actor.play(turns, weights)


class RayCluster:
    """See `Cluster`. `connected` makes one."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.kind = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(RemoteActor)

    def start(self, role: Role) -> Any:
        """Begin to start an actor, on a machine that has a CPU to spare."""
        actor = self.kind.remote(Parcel.of(role))
        return _Begun(actor, actor.begun.remote())

    def is_up(self, actor: "_Begun") -> bool:
        """Its constructor has returned, or raised."""
        return bool(self.ray.wait([actor.begun], timeout=0)[0])

    def share(self, weights: np.ndarray) -> Any:
        """A copy in Ray's store, which machines fetch once."""
        return self.ray.put(weights)

    def ask(self, actor: "_Begun", turns: int, weights: Any) -> Any:
        """Request the next turns."""
        return actor.handle.play.remote(turns, weights)

    def answered(self, tickets: Sequence[Any], seconds: float) -> Collection[Any]:
        """Those that can be taken."""
        try:
            first, _ = self.ray.wait(list(tickets), num_returns=1, timeout=seconds)
            return self.ray.wait(list(tickets), num_returns=len(tickets), timeout=0)[0] if first else []
        except self.ray.exceptions.RayError as error:
            raise OneiroError(
                f"Ray does not answer any more: {_reason(error)}. The run is as it was saved last; the same command "
                "goes on from there"
            ) from error

    def take(self, ticket: Any) -> list[Lived]:
        """The turns; they lie in Ray's store and cannot be written to."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(ticket)
        except errors.RayTaskError as error:
            if isinstance(error.cause, OneiroError):
                raise OneiroError(f"an experience actor says: {error.cause}") from None
            raise
        except errors.RayError as error:
            raise Gone(_reason(error)) from None

    def end(self, actor: "_Begun") -> None:
        """Kill an actor; its environments' workers notice by themselves."""
        with suppress(self.ray.exceptions.RayError):  # it is gone, or Ray itself is
            self.ray.kill(actor.handle)


@dataclass(frozen=True)
class _Begun:
    """An actor of Ray's, and the answer that comes as soon as it is there."""

    handle: Any
    begun: Any


def require_ray() -> None:
    """MissingExtra without Ray."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "ray")


@contextmanager
def connected(config: Actors) -> Iterator[RayCluster]:
    """The cluster that `config` names, or one on this machine. MissingExtra, or OneiroError if it does not answer."""
    require_ray()
    address = config.address or os.environ.get(ADDRESS, "")
    if address in ("", "local"):
        folders = [os.path.abspath(folder or ".") for folder in sys.path]
        with _environment(SETTINGS | {"PYTHONPATH": os.pathsep.join(folders)}):
            ray = _begin("local", num_cpus=config.num, include_dashboard=False)
    else:
        ray = _begin(address)
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()


def _begin(address: str, **options: Any) -> Any:
    """Start or join; Ray's own handlers of signals are taken back, so that a run can save when it is asked to stop."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    try:
        import ray

        if ray.is_initialized():
            raise OneiroError(
                "this process is already connected to Ray; call ray.shutdown() before training with actors"
            )
        for attempt in range(ATTEMPTS):
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
                break
            except Exception:
                ray.shutdown()
                if address != "local" or attempt == ATTEMPTS - 1:
                    raise
    except OneiroError:
        raise
    except Exception as error:  # Ray raises plain ones, too
        raise OneiroError(_no_ray(address, _reason(error))) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ray


def _no_ray(address: str, why: str) -> str:
    if address == "local":
        return (
            f"Ray could not be started on this machine: {why}. What it wrote is in /tmp/ray/session_latest/logs. It "
            "gives up after 30 s, three times; wait until the machine is less busy, or leave out actors.num"
        )
    return (
        f"no Ray cluster answers at {address!r}: {why}. Start it with `ray start --head`, or correct actors.address or "
        f"{ADDRESS}; without both, Ray is started on this machine"
    )


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These environment variables, for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(error: BaseException) -> str:
    """What Ray says, in short: the first and the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(textwrap.shorten(line, 240) for line in dict.fromkeys((lines[0], lines[-1]))).rstrip(".")
