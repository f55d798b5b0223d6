"""`Guard`: a non-finite update is skipped, counted and reported; too many in a row stop the run."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optree
import torch
from torch import Tensor

from oneiro.errors import OneiroError
from oneiro.training.files import disk_errors, num_bytes, write_safetensors
from oneiro.tree import NAMESPACE


class Guard:
    """Watches losses and gradients of every update of a run."""

    def __init__(self, folder: Path, limit: int = 10, rank: int = 0) -> None:
        """`rank` of this process, if several train the run: each saves its own batch."""
        if limit < 1:
            raise ValueError(
                f"limit = {limit}: the run must be allowed at least one bad update; set it to 1 or more"
            )
        name = f"nan_batch_{rank}" if rank else "nan_batch"
        self.path, self.limit = Path(folder) / f"{name}.safetensors", limit
        self.skipped = 0
        """Bad updates since the run began."""
        self.in_a_row = 0

    def check(
        self, losses: Mapping[str, Tensor], groups: Sequence[Mapping[str, Tensor | None]], batch: Any = None
    ) -> list[bool]:
        """For each group of gradients: True if it may be applied, False to skip it.

        A warning names the first bad tensor. A bad loss makes every group bad. The update is counted once, as bad if
        any group is. One reduction and one device sync. After `limit` bad updates in a row the batch is saved and
        OneiroError raised. `batch` is any tree of tensors.
        """
        found = [[g for g in gradients.values() if g is not None] for gradients in groups]
        every = [g for own in found for g in own]
        norms = torch._foreach_norm(every) if every else ()
        numbers = torch.stack([x.detach().float().reshape(()) for x in (*losses.values(), *norms)])
        finite = iter(numbers.isfinite().tolist())
        losses_are_good = all([next(finite) for _ in losses])
        good = [all([next(finite) for _ in own]) and losses_are_good for own in found]
        if losses_are_good and all(good):
            self.in_a_row = 0
            return good
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        cause = _first_bad(losses, {name: g for gradients in groups for name, g in gradients.items()})
        if self.in_a_row >= self.limit:
            self._give_up(cause, batch)
        warnings.warn(
            f"update skipped: {cause} ({self.in_a_row} in a row, {self.skipped} in all; the run stops after "
            f"{self.limit} in a row)",
            RuntimeWarning,
            stacklevel=2,
        )
        return good

    def state(self) -> dict[str, int]:
        """Counters, as JSON."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Go on counting from `state`."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def _give_up(self, cause: str, batch: Any) -> None:
        tensors = named_tensors(batch)
        with disk_errors("the batch", self.path, num_bytes(tensors)):
            write_safetensors(self.path, tensors, {"cause": cause, "in_a_row": str(self.in_a_row)})
        raise OneiroError(
            f"{self.in_a_row} updates in a row were not finite, the last because {cause}. The batch is "
            f"saved in {self.path}. The weights are those of the last good update: lower the learning rate, clip the "
            "gradients (clip_norm), or compute in float32, and train into another folder with --run; if the "
            "batch itself holds NaN, mend the environment."
        )


def named_tensors(batch: Any) -> dict[str, Tensor]:
    """Tensors of a tree by dotted path: "obs.image", "action"."""
    paths, leaves, _ = optree.tree_flatten_with_path(batch, namespace=NAMESPACE)
    return {
        ".".join(map(str, path)) or "batch": leaf
        for path, leaf in zip(paths, leaves, strict=True)
        if isinstance(leaf, Tensor)
    }


def _first_bad(losses: Mapping[str, Tensor], gradients: Mapping[str, Tensor | None]) -> str:
    for kind, tensors in (("loss", losses), ("gradient of", gradients)):
        for name, tensor in tensors.items():
            if tensor is not None and not tensor.detach().isfinite().all():
                value = "NaN" if tensor.isnan().any() else "infinite"
                return f"{kind} {name} is {value}"
    names = [name for name, g in gradients.items() if g is not None and not g.float().norm().isfinite()]
    return f"gradient of {names[0] if names else '(unknown)'} overflows"
