"""Worker processes: the same few commands for environments in this process and in another one.

A worker process is a fresh interpreter in a session of its own, started without multiprocessing: it inherits
neither threads nor locks, does not import the caller's main module, and does not see Ctrl-C. Observations and
actions go through one shared block of memory; the pipe only carries commands and failures. When the process that
started it is gone, a pipe reports it and the worker kills its whole process group, engines included.
"""

import contextlib
import faulthandler
import mmap
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from multiprocessing.connection import Connection
from typing import Any

from oneiro.envs.slots import Layout, Slots
from oneiro.errors import OneiroError

FAREWELL = 5.0  # seconds a worker has to close its environments


class WorkerDied(Exception):  # noqa: N818 - an event; the vector environment decides what it means
    """The process ended or hung; the message says how."""


class LocalWorker:
    """Environments in this process."""

    def __init__(self, config: Any) -> None:
        self.slots, self._answer = Slots(config), None

    def use(self, layout: Layout, block: Any) -> None:
        """Where the arrays are."""
        self.slots.arrays = layout.arrays(block)

    def send(self, command: str, argument: Any) -> None:
        """Carry out "spaces", "reset" or "step" of `Slots`."""
        self._answer = getattr(self.slots, command)(argument)

    def receive(self) -> Any:
        """The result."""
        return self._answer

    def close(self) -> None:
        """Close the environments."""
        self.slots.close()


class ProcessWorker:
    """Environments in a process of their own, started on first use and again after it died."""

    def __init__(self, config: Any, memory: int) -> None:
        self.config, self.memory = config, memory
        self._layout: Layout | None = None
        self._child: _Child | None = None
        self._pending = False

    def use(self, layout: Layout, block: Any) -> None:
        """Where the arrays are; the process maps the file `memory`, which `block` is a view of."""
        self._layout = layout
        if self._child is not None:
            self._request("use", layout)

    def send(self, command: str, argument: Any) -> None:
        """Ask for "spaces", "reset" or "step" of `Slots`. Raises WorkerDied."""
        if self._pending:  # an interrupted caller never fetched the last answer
            self._fetch()
        if self._child is None:
            self._child = _Child(self.config, self.memory)
            if self._layout is not None:
                self._request("use", self._layout)
        try:
            self._child.connection.send((command, argument))
        except OSError as error:
            raise self._died(str(error)) from None
        self._pending = True

    def receive(self) -> Any:
        """The result. Raises WorkerDied, and OneiroError if the environment broke a rule."""
        kind, value = self._fetch()
        if kind == "error":
            raise OneiroError(value)
        return value

    def close(self) -> None:
        """End the process and everything it started."""
        child, self._child, self._pending = self._child, None, False
        if child is not None:
            child.end(FAREWELL)

    def _request(self, command: str, argument: Any) -> None:
        assert self._child is not None
        try:
            self._child.connection.send((command, argument))
        except OSError as error:
            raise self._died(str(error)) from None
        self._pending = True
        self._fetch()

    def _fetch(self) -> tuple[str, Any]:
        assert self._child is not None
        try:
            if not self._child.connection.poll(self.config.timeout):
                raise self._died(f"it did not answer for {self.config.timeout:g} s")
            self._pending, answer = False, self._child.connection.recv()
        except (EOFError, OSError):
            raise self._died("") from None
        return answer

    def _died(self, how: str) -> WorkerDied:
        child, self._child, self._pending = self._child, None, False
        assert child is not None
        return WorkerDied(child.end(0.0 if how else 1.0, how))


class _Child:
    """The process: its pipes, and its end."""

    def __init__(self, config: Any, memory: int) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self.lifeline = os.pipe()  # ends with this process, however that happens
        self.folder = tempfile.mkdtemp(prefix="oneiro-worker-")
        paths = [os.path.abspath(path or ".") for path in sys.path]
        descriptors = (theirs.fileno(), lifeline, memory)
        arguments = [*map(str, descriptors), self.folder]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from oneiro.envs.worker import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what engines print must not mix with our output
            pass_fds=descriptors,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": self.folder} | SINGLE_THREAD,
        )
        theirs.close()
        os.close(lifeline)
        self.connection = Connection(ours.detach())
        self._end = weakref.finalize(self, _kill, self.process, self.lifeline, self.folder)
        self.connection.send_bytes(pickle.dumps(config))

    def end(self, patience: float, how: str = "") -> str:
        """Ask it to leave, wait `patience` seconds, kill its group; returns what became of it."""
        with contextlib.suppress(OSError):
            self.connection.send(("close", None))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        code = self.process.poll()
        self._end()
        self.connection.close()
        if how:
            return how
        if code is not None and code < 0:
            reason = " (the system does so when memory runs out)" if code == -signal.SIGKILL else ""
            return f"it was ended by {signal.Signals(-code).name}{reason}"
        return f"it ended with exit code {code}"


SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _kill(process: subprocess.Popen, lifeline: int, folder: str) -> None:
    """Kill the process group and remove its temporary files; also at interpreter exit."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader while an engine is in it
    process.wait()
    os.close(lifeline)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """The worker process."""
    faulthandler.enable()
    pipe, lifeline, memory = map(int, sys.argv[1:4])
    folder = sys.argv[4]
    threading.Thread(target=_leave_with_parent, args=(lifeline, folder), daemon=True).start()
    connection = Connection(pipe)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        _serve(connection, memory)
    shutil.rmtree(folder, ignore_errors=True)


def _serve(connection: Connection, memory: int) -> None:
    try:
        slots = Slots(pickle.loads(connection.recv_bytes()))
    except Exception as error:
        connection.recv()
        connection.send(("error", f"a worker process cannot load the environment's config: {error}"))
        return
    with contextlib.closing(slots):
        _obey(connection, slots, memory)


def _obey(connection: Connection, slots: Slots, memory: int) -> None:
    while True:
        command, argument = connection.recv()
        if command == "close":
            return
        try:
            if command == "use":
                slots.arrays = argument.arrays(mmap.mmap(memory, argument.nbytes))
                answer = None
            else:
                answer = getattr(slots, command)(argument)
            connection.send(("done", answer))
        except OneiroError as error:
            connection.send(("error", str(error)))


def _leave_with_parent(lifeline: int, folder: str) -> None:
    os.read(lifeline, 1)
    time.sleep(1.0)  # an idle worker has left by itself before that; this one is busy or stuck
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
