"""Fitting by gradient: parts are addressed, and a loss moves only the parameters of its own group."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from oneiro import runtime, tree
from oneiro.agent import Agent
from oneiro.errors import OneiroError, nearest
from oneiro.training.adamw import AdamW
from oneiro.training.guard import Guard
from oneiro.training.laprop import LaProp
from oneiro.training.optim import Adam
from oneiro.training.parallel import Ranks
from oneiro.types import Losses, State, TimeStep
from oneiro.world import part_module

Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parts under one optimizer, by dotted address: "world.memory", "behaviour.actor", "world" (all its parts)."""

    address: tuple[str, ...]
    optimizer: Adam | AdamW | LaProp


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Groups fitted together on one batch; every owner computes its losses once.

    A group may hold addresses of both owners. Then the behaviour is given the world's trace on its graph, so that
    what it learns from recorded rows reaches the world (DreamerV3's replay value loss); otherwise detached.
    """

    groups: tuple[Group, ...]
    pieces: int = 1
    """A batch is gone through in so many pieces whose gradients are averaged: as many times less memory."""

    def __post_init__(self) -> None:
        if self.pieces < 1:
            raise ValueError(f"pieces must be at least 1, got {self.pieces}")


class Fitter:
    """A `Fit` at work: its optimizers and how often each has stepped."""

    def __init__(self, fit: Fit, agent: Agent, guard: Guard, ranks: Ranks | None = None) -> None:
        """`ranks`: the processes that fit it together, each on rows of its own; the weights stay equal in all."""
        self.fit, self.agent, self.guard, self.ranks = fit, agent, guard, ranks or Ranks()
        self.parts = [[part for a in group.address for part in _split(agent, a)] for group in fit.groups]
        self.named = [_parameters(agent, group.address) for group in fit.groups]
        self.optimizers = [
            group.optimizer.build([p for _, p in named])
            for group, named in zip(fit.groups, self.named, strict=True)
        ]
        self.steps = [0] * len(fit.groups)
        """Updates of each group."""
        self._is_captured = runtime.captures()
        self._world_losses = self._captured("world")
        self._behaviour_losses = self._captured("behaviour")

    def _captured(self, owner: str) -> Callable[..., Losses]:
        """`losses` of the owner; as a whole its graph can give gradients only once, so not if groups share it."""
        found = getattr(self.agent, owner).losses
        groups = sum(any(own == owner for own, _ in parts) for parts in self.parts)
        return runtime.captured(found) if groups == 1 else found

    @property
    def updates(self) -> int | list[int]:
        """Updates of every group, or of each one where they differ; a checkpoint holds this."""
        return self.steps if len(set(self.steps)) > 1 else self.steps[0]

    @updates.setter
    def updates(self, value: int | list[int]) -> None:
        self.steps = list(value) if isinstance(value, list) else [value] * len(self.steps)

    def apply(
        self, batch: TimeStep, before: State | None = None, only: Sequence[int] | None = None
    ) -> Losses:
        """One update on `batch` [B, T] of every group, or `only` of those with these numbers.

        The groups in which something is not finite are skipped; the update is counted and reported.
        """
        chosen = range(len(self.fit.groups)) if only is None else only
        losses, gradients = self._learned(batch, before, chosen)
        losses, gradients = self._joint(losses, gradients)
        by_name = [
            dict(zip([n for n, _ in self.named[i]], found, strict=True))
            for i, found in zip(chosen, gradients, strict=True)
        ]
        good = self.guard.check(losses.by_part, by_name, batch)
        for i, found, is_good in zip(chosen, gradients, good, strict=True):
            group, named, optimizer, step = (
                self.fit.groups[i],
                self.named[i],
                self.optimizers[i],
                self.steps[i],
            )
            self.steps[i] += 1
            if not is_good:
                continue
            parameters = [p for _, p in named]
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            losses.metrics["optim/grad_norm"] = group.optimizer.clip_(parameters)
            group.optimizer.set_rate(optimizer, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for owner in {owner for i in chosen for owner, _ in self.parts[i]}:
            getattr(self.agent, owner).after_update()
        return _kept(losses) if self._is_captured else losses

    def _learned(
        self, batch: TimeStep, before: State | None, chosen: Sequence[int]
    ) -> tuple[Losses, list[Gradients]]:
        """Losses and the gradients of each group, all of them before any weight moves; means over the pieces."""
        pieces, size = self.fit.pieces, len(batch.mask)
        if pieces == 1:
            losses = self._losses(batch, before, chosen)
            return losses, [self._gradients(i, losses) for i in chosen]
        if size % pieces:
            raise OneiroError(f"a batch of {size} cannot be cut into {pieces} equal pieces; change either")
        total: Losses | None = None
        gradients: list[list[Tensor | None]] = []
        for start in range(0, size, size // pieces):
            part = tree.map(lambda x, at=start: x[at : at + size // pieces], batch)
            losses = self._losses(part, None, chosen)
            if before is not None or losses.after is not None:
                raise OneiroError(
                    "what carries a state from batch to batch cannot be fitted in pieces; set pieces 1"
                )
            found = [self._gradients(i, losses) for i in chosen]
            if total is None:
                total, gradients = Losses({}, {}), [[None] * len(each) for each in found]
            for mean, own in ((total.by_part, losses.by_part), (total.metrics, losses.metrics)):
                for name, value in own.items():
                    mean[name] = mean.get(name, 0.0) + value.detach() / pieces
            for sums, own in zip(gradients, found, strict=True):
                for j, (known, gradient) in enumerate(zip(sums, own, strict=True)):
                    if gradient is not None:
                        share = gradient / pieces
                        sums[j] = share if known is None else known.add_(share)
        assert total is not None
        return total, [tuple(each) for each in gradients]

    def _gradients(self, i: int, losses: Losses) -> Gradients:
        """Of the sum of the losses of group i, with respect to its parameters alone."""
        total = sum(losses.by_part[f"{owner}.{part}"] for owner, part in self.parts[i])
        assert isinstance(total, Tensor)
        return torch.autograd.grad(total, [p for _, p in self.named[i]], allow_unused=True)

    def _joint(self, losses: Losses, gradients: list[Gradients]) -> tuple[Losses, list[Gradients]]:
        """Gradients, losses and metrics as means over all ranks; the trace stays that of the own rows."""
        if self.ranks.count == 1:
            return losses, gradients
        parts, names = list(losses.by_part), list(losses.metrics)
        own = [g for found in gradients for g in found if g is not None]
        mean = iter(self.ranks.mean([*own, *losses.by_part.values(), *losses.metrics.values()]))
        joint = [tuple(g if g is None else next(mean) for g in found) for found in gradients]
        by_part, metrics = ({name: next(mean) for name in found} for found in (parts, names))
        return replace(losses, by_part=by_part, metrics=metrics), joint

    def _losses(self, batch: TimeStep, before: State | None, chosen: Iterable[int]) -> Losses:
        wanted: dict[str, list[str]] = {}
        groups = [self.parts[i] for i in chosen]
        is_joint = any({owner for owner, _ in parts} == {"world", "behaviour"} for parts in groups)
        for parts in groups:
            for owner, part in parts:
                wanted.setdefault(owner, []).append(part)
        by_part: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        trace = after = None
        if self._is_captured:
            torch.compiler.cudagraph_mark_step_begin()
        if "world" in wanted:
            found = self._world_losses(batch, wanted["world"], before)
            by_part |= {f"world.{k}": v for k, v in found.by_part.items()}
            metrics |= found.metrics
            trace, after = found.trace, found.after
        if "behaviour" in wanted:
            own = trace if trace is None or is_joint else tree.detach(trace)
            found = self._behaviour_losses(self.agent.world, batch, own, wanted["behaviour"])
            by_part |= {f"behaviour.{k}": v for k, v in found.by_part.items()}
            metrics |= found.metrics
        return Losses(by_part, metrics, trace, after)


def _kept(losses: Losses) -> Losses:
    """Out of the memory of the graphs, which the next update writes over."""

    def copied(branch: Any) -> Any:
        return tree.map(lambda x: x.detach().clone(), branch)

    return Losses(*(copied(getattr(losses, field.name)) for field in fields(losses)))


def _split(agent: Agent, address: str) -> list[tuple[str, str]]:
    """ "world.memory" -> [("world", "memory")]; "world" -> every part of it."""
    owner, _, part = address.partition(".")
    if owner not in ("world", "behaviour"):
        raise OneiroError(f"unknown address {address!r}: it starts with 'world' or 'behaviour'")
    known = getattr(agent, owner).parts
    if known and not part:
        return [(owner, name) for name in known]
    if part not in known:
        raise OneiroError(
            f"{type(getattr(agent, owner)).__name__} has no part {part or 'to fit'!r}. {nearest(part, known)}"
        )
    return [(owner, part)]


def _parameters(agent: Agent, addresses: Iterable[str]) -> list[tuple[str, nn.Parameter]]:
    """Trainable parameters by name, each once."""
    named: dict[str, nn.Parameter] = {}
    for owner, part in (found for address in addresses for found in _split(agent, address)):
        whole = getattr(agent, owner)
        prefix = owner if part == "all" else f"{owner}.{part}"
        for name, parameter in part_module(whole, part).named_parameters():
            if parameter.requires_grad:
                named[f"{prefix}.{name}"] = parameter
    return list(named.items())


def parameter_counts(agent: Agent) -> dict[str, int]:
    """Exact number of trainable numbers by address: every part, then the whole."""
    counts: dict[str, Any] = {}
    for owner_name in ("world", "behaviour"):
        owner = getattr(agent, owner_name)
        for part in owner.parts:
            if part != "all":
                counts[f"{owner_name}.{part}"] = _count(part_module(owner, part))
        counts[owner_name] = _count(owner)
    return counts


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
