"""Which runs are seeds of the same system, and whether their scores mean the same."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneiro.errors import OneiroError
from oneiro.evaluation.published import lookup
from oneiro.evaluation.run_result import RunResult
from oneiro.training.run_folder import diff

Differing = Mapping[str, Mapping[str, list[Path]]]
"""{setting: {its value as text: runs}}, only those with more than one value."""


def differing_settings(results: Sequence[RunResult], *, evaluated: bool) -> Differing:
    """Settings that differ between runs of one task, or of one suite whose tasks are aggregated.

    `evaluated`: settings of the evaluation and not of training; runs without one have no say.
    """
    results = [result for result in results if result.evaluation or not evaluated]
    kinds: dict[str, list[RunResult]] = defaultdict(list)
    for result in results:
        found = lookup(result.task)
        together = found is not None and found[0].is_normalised
        kinds[found[0].name if found and together else result.task].append(result)
    differing: dict[str, dict[str, list[Path]]] = {}
    for members in kinds.values():
        values: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for result in members:
            settings = _settings(result, evaluated)
            for name in dict.fromkeys(key for m in members for key in _settings(m, evaluated)):
                values[name][_text(settings.get(name, "not said"))].append(result.path)
        for name, found_values in values.items():
            if len(found_values) > 1:
                differing.setdefault(name, {}).update(found_values)
    return differing


def require_alike(differing: Differing) -> None:
    """OneiroError that names each setting and who has which value."""
    if not differing:
        return
    lines = [
        f"{name}: " + "; ".join(f"{value} in {', '.join(map(str, runs))}" for value, runs in values.items())
        for name, values in differing.items()
    ]
    raise OneiroError(
        "these runs are not scored alike:\n  "
        + "\n  ".join(lines)
        + "\nCompare them apart, or show them side by side as different systems with --mixed"
    )


def require_distinct(results: Sequence[RunResult]) -> None:
    """OneiroError if a run is named twice."""
    seen: set[Path] = set()
    for result in results:
        where = result.path.resolve()
        if where in seen:
            raise OneiroError(f"{result.path} is named twice; a run counts once")
        seen.add(where)


def require_seeds(members: Sequence[RunResult]) -> None:
    """OneiroError if two runs of a system have the same seed: they are not two samples."""
    seeds: dict[int, Path] = {}
    for run in members:
        if run.seed in seeds:
            raise OneiroError(
                f"{seeds[run.seed]} and {run.path} are the same system on {run.task} with the same seed "
                f"{run.seed}; an interval needs different seeds, so leave one of them out"
            )
        seeds[run.seed] = run.path


def labels(results: Sequence[RunResult], differing: Differing, *, evaluated: bool) -> list[str]:
    """A name of each run's system: recipe and size, and what differs where that is not enough."""
    first: dict[str, Mapping[str, Any]] = {}
    found = []
    for result in results:
        values = dict(result.values)
        kind = f"{result.recipe}"
        changed = diff(first.setdefault(kind, values), values)
        words = [f"{name}={now}" for name, (_, now) in sorted(changed.items())]
        settings = _settings(result, evaluated)
        words += [f"{name}={_text(settings.get(name, 'not said'))}" for name in differing]
        more = f" and {len(words) - 3} more" if len(words) > 3 else ""
        found.append(kind + (f" [{', '.join(words[:3])}{more}]" if words else ""))
    return _apart(found, results, differing, evaluated=evaluated)


def _apart(
    names: Sequence[str], results: Sequence[RunResult], differing: Differing, *, evaluated: bool
) -> list[str]:
    """Numbers for systems whose shortened names are the same."""
    known: dict[str, list[Any]] = defaultdict(list)
    found = []
    for name, result in zip(names, results, strict=True):
        settings = _settings(result, evaluated)
        identity = (result.values, {key: settings.get(key) for key in differing})
        if identity not in known[name]:
            known[name].append(identity)
        place = known[name].index(identity)
        found.append(name if not place else f"{name} ({place + 1})")
    return found


def _settings(result: RunResult, evaluated: bool) -> Mapping[str, Any]:
    return result.evaluation_settings if evaluated and result.evaluation else result.settings


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
