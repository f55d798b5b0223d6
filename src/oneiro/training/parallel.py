"""`Ranks`: the processes that train one run together, each on a device of its own (`torchrun`).

    rank r    slots and streams r, r + N, ...  -->  B / N items of them  -->  gradients --.
    rank s    slots and streams s, s + N, ...  -->  B / N items of them  -->  gradients --+--> mean --> the same step

One all-reduce of one long vector an update carries the gradients of all groups, the losses and the metrics, so every
rank takes the same decisions (skip, clip) and the weights stay equal bit by bit. What concerns the run as a whole
(rows arrived, a stop asked for, a checkpoint due) is agreed on with a few integers through the CPU, without waiting
for a GPU. Rank 0 alone writes the log and the checkpoints.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from oneiro.data.share import Share
from oneiro.errors import OneiroError
from oneiro.returns import PercentileScale

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for another that lives but does not answer; one that has died is noticed at once."""
_STAGE = timedelta(days=30)  # the same, while rank 0 works on a stage alone


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of its job. `Ranks()` is alone: nothing is sent, and everything is its own."""

    index: int = 0
    count: int = 1
    local: int = 0
    """Number of this process on its machine, and of its GPU."""
    waiting: Any = None
    """The process group in which others wait for rank 0."""

    @property
    def is_first(self) -> bool:
        """This process writes the log and the checkpoints."""
        return self.index == 0

    @property
    def share(self) -> Share:
        """The streams it owns."""
        return Share(self.index, self.count)

    def split(self, total: int, name: str) -> int:
        """Its part of a number that must be divisible by the number of processes; `name` is the option's."""
        if total % self.count:
            next_one = -(-total // self.count) * self.count
            raise OneiroError(
                f"{name} is {total}, which {self.count} processes cannot share evenly; set it to a multiple of "
                f"{self.count}, such as {next_one}"
                + f" (--env.num {next_one})" * (name == "env.num")
                + ", or start another number of processes"
            )
        return total // self.count

    def device(self, name: str) -> str:
        """The device that this process computes on; `name` as in `RuntimeConfig`."""
        if self.count == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local}"

    def seed(self, seed: int) -> int:
        """A seed of its own; that of rank 0 is `seed`."""
        if self.is_first:
            return seed
        return int(np.random.SeedSequence([seed, self.index]).generate_state(1)[0])

    # -- all of them call these in the same order ------------------------------------------------------------

    def sum(self, *numbers: int) -> tuple[int, ...]:
        """Each number, summed over the ranks."""
        return self._agree(numbers, dist.ReduceOp.SUM)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag: True if it is True in some rank."""
        return tuple(map(bool, self._agree([int(flag) for flag in flags], dist.ReduceOp.MAX)))

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in every rank."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _heard():
            dist.all_gather_object(found, value)
        return found

    @torch.no_grad()
    def mean(self, numbers: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor (float, the first one's device), averaged over the ranks: one all-reduce for all of them."""
        if self.count == 1 or not numbers:
            return list(numbers)
        device = numbers[0].device
        flat = torch.cat([x.detach().to(device, torch.float32).reshape(-1) for x in numbers])
        with _heard():
            dist.all_reduce(flat)
        flat /= self.count
        pieces = flat.split([x.numel() for x in numbers])
        return [piece.view(x.shape) for piece, x in zip(pieces, numbers, strict=True)]

    @torch.no_grad()
    def everywhere(self, x: Tensor) -> Tensor:
        """A tensor [n, ...] of every rank, one after the other: [N n, ...]."""
        if self.count == 1:
            return x
        found = [torch.empty_like(x) for _ in range(self.count)]
        with _heard():
            dist.all_gather(found, x.contiguous())
        return torch.cat(found)

    @torch.no_grad()
    def unite(self, module: nn.Module) -> None:
        """Give a module the parameters and buffers of rank 0, and let its running percentiles be those of all ranks."""
        for scale in module.modules():
            if isinstance(scale, PercentileScale):
                scale.everywhere = self.everywhere
        if self.count == 1:
            return
        for tensor in (*module.parameters(), *module.buffers()):
            sent = tensor.detach().contiguous()
            with _heard():
                dist.broadcast(sent, 0)
            tensor.copy_(sent)

    def first_alone(self, work: Callable[[], None]) -> bool:
        """Rank 0 works while the others wait for it. False in the others if it left with an exception."""
        if self.count == 1:
            work()
            return True
        done = torch.zeros((), dtype=torch.int64)
        if not self.is_first:
            with _heard():
                dist.broadcast(done, 0, self.waiting)
            return bool(done)
        try:
            work()
            done += 1
        finally:
            with _heard():
                dist.broadcast(done, 0, self.waiting)
        return True

    def _agree(self, numbers: Sequence[int], how: Any) -> tuple[int, ...]:
        if self.count == 1:
            return tuple(numbers)
        agreed = torch.tensor(numbers, dtype=torch.int64)  # on the CPU, so that no rank waits for its GPU
        with _heard():
            dist.all_reduce(agreed, how)
        return tuple(agreed.tolist())


def is_launched() -> bool:
    """True if torchrun started this process beside others."""
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def launched() -> Iterator[Ranks]:
    """The ranks of this job, connected; a process that was not started by torchrun is alone."""
    if not is_launched():
        yield Ranks()
        return
    local = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    with connect(local) as ranks:
        yield ranks


@contextmanager
def connect(local: int = 0, **where: Any) -> Iterator[Ranks]:
    """Join the process group; `where` says which (default: the environment variables that torchrun sets)."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _heard():
        dist.init_process_group(backend, timeout=PATIENCE, **where)
        waiting = dist.new_group(backend="gloo", timeout=_STAGE)
    yield Ranks(index=dist.get_rank(), count=dist.get_world_size(), local=local, waiting=waiting)
    dist.destroy_process_group()  # not after an exception: the others may be gone


@contextmanager
def _heard() -> Iterator[None]:
    """A neighbour that is gone is something the user can mend."""
    try:
        yield
    except RuntimeError as error:
        raise OneiroError(
            "another process of this job has ended, or did not answer for "
            f"{PATIENCE.seconds // 60} minutes; this one stops too. The run is as it was saved last: the same command "
            f"goes on from there, with any number of processes ({str(error).splitlines()[0]})"
        ) from error
