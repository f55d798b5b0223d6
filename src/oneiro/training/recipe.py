"""`Recipe`: everything that decides a run, in one frozen record of records."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oneiro.agent import Agent
from oneiro.errors import OneiroError, nearest
from oneiro.runtime import RuntimeConfig
from oneiro.spaces import Spaces
from oneiro.training.log import LogConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How experience is kept."""

    ram: float = 1.0  # GiB of RAM the replay may use
    capacity: int = 12_000_000  # rows kept; the oldest episodes go first
    compress: bool = True  # lossless, see results/store_compression.md

    def __post_init__(self) -> None:
        if self.ram <= 0 or self.capacity < 1:
            raise ValueError("data.ram (GiB) and data.capacity (rows) must be positive")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save."""

    minutes: float = 5.0  # between checkpoints; one more is written after every stage
    keep: int = 3  # newest ones kept


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to run, with which numbers."""

    env: Any  # a config of oneiro.envs
    world: Any  # a config with build(spaces)
    behaviour: Any  # a config with build(spaces, feature_dim)
    schedule: Any  # a dataclass whose fields are stages, run in order
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    seed: int = 0  # of everything: episodes, batches, noise, evolution


def build_agent(recipe: Recipe, spaces: Spaces) -> Agent:
    """World and behaviour of a recipe, freshly initialised."""
    world = recipe.world.build(spaces)
    return Agent(world, recipe.behaviour.build(spaces, world.feature_dim))


def to_json(record: Any) -> Any:
    """A record of records as plain JSON values."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(v) for v in record]
    if record is None or isinstance(record, bool | int | float | str):
        return record
    raise TypeError(f"a recipe holds plain values and records, not {type(record).__name__}")


def tweak(record: Any, values: Mapping[str, Any]) -> Any:
    """A copy with other values: `tweak(recipe, {"world.z_dim": 16})`. Unknown names raise with the nearest."""
    for name, value in values.items():
        record = _set(record, name.split("."), value, name)
    return record


def restore(record: Any, saved: Any) -> Any:
    """`record` with every value replaced by what `to_json` saved; the types come from `record`."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        names = {f.name for f in dataclasses.fields(record)}
        if not isinstance(saved, Mapping):
            raise OneiroError(f"recipe.json does not fit {type(record).__name__}: expected named values")
        if unknown := sorted(set(saved) - names):
            raise OneiroError(
                f"recipe.json has the unknown option {unknown[0]!r} for {type(record).__name__}; it was written "
                "by another version of oneiro"
            )
        changed = {k: restore(getattr(record, k), v) for k, v in saved.items()}
        return dataclasses.replace(record, **changed)
    if isinstance(record, tuple):
        if record and dataclasses.is_dataclass(record[0]):
            return tuple(restore(r, s) for r, s in zip(record, saved, strict=True))
        return _tuples(saved)
    if isinstance(record, float) and saved in ("NaN", "Infinity", "-Infinity"):
        return float(saved)  # strict JSON has no other form for them
    return saved


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _set(record: Any, path: list[str], value: Any, name: str) -> Any:
    head, *rest = path
    if isinstance(record, tuple) and head.isdigit():
        items = list(record)
        items[int(head)] = _set(items[int(head)], rest, value, name) if rest else value
        return tuple(items)
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        raise OneiroError(f"unknown option {name!r}: there is nothing below {head!r}")
    known = [f.name for f in dataclasses.fields(record)]
    if head not in known:
        raise OneiroError(f"unknown option {name!r}: there is no {head!r}. {nearest(head, known)}")
    inner = _set(getattr(record, head), rest, value, name) if rest else value
    return dataclasses.replace(record, **{head: inner})
