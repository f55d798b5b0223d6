"""`oneiro check`, `oneiro bench` and `oneiro doctor`."""

import inspect
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.markup import escape

from oneiro.cli.first_line import first_line
from oneiro.cli.options import parse
from oneiro.recipes import entries, find
from oneiro.targets import load_target
from oneiro.testing.checks import Check

Target = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class CheckTarget:
    """Run the conformance suite on the world and the behaviour of a recipe, or on a class of your own."""

    target: Target = "all"  # recipe, "all", or file.py:Class of a world, a behaviour or their configs
    size: str | None = (
        None  # of the recipe; its smallest if not given, though other sizes may differ in more than widths
    )
    json: bool = False  # machine-readable output


def check_command(arguments: Sequence[str]) -> int:
    """See `oneiro check --help`."""
    own = parse(CheckTarget, arguments, "check", "oneiro check vmc-takecover --size demo")
    names = list(entries()) if own.target == "all" else [own.target]
    first_line(f"checking {', '.join(names)}")
    results = {name: check(name, own.size, aloud=not own.json) for name in names}
    if own.json:
        print(
            json.dumps({n: [vars(c) | {"passed": c.passed} for c in checks] for n, checks in results.items()})
        )
    else:
        for name, checks in results.items():
            print(f"{name}: {verdict(checks)}")
    return 0 if all(c.passed for checks in results.values() for c in checks) else 1


def check(name: str, size: str | None, aloud: bool) -> list[Check]:
    """Every check of one target; `aloud`: each is printed as it is found."""
    from oneiro.testing import check_behaviour, check_target, check_world
    from oneiro.training.run import build_agent

    told = print_check if aloud else lambda _: None
    if ":" in name and not inspect.isfunction(load_target(name)):
        return check_target(name, told=told)
    entry = find(name)
    recipe = entry.build(size := size or entry.sizes[-1])
    if aloud:
        print(f"{name}, size {size}")
    agent = build_agent(recipe, recipe.env.spaces())
    return [
        *check_world(agent.world, told=told),
        *check_behaviour(agent.behaviour, agent.world, told=told),
    ]


def print_check(found: Check) -> None:
    """One line, and what is wrong below its name."""
    from rich.console import Console

    colour = {"passed": "green", "failed": "red", "skipped": "yellow"}[found.outcome]
    text = escape(found.name + (f"\n          {found.message}" if found.message else ""))
    Console(soft_wrap=True, highlight=False).print(f"  [{colour}]{found.outcome:7}[/] {text}")


def verdict(checks: Sequence[Check]) -> str:
    """`40 passed, 4 skipped`."""
    counts = Counter(c.outcome for c in checks)
    return ", ".join(f"{counts[o]} {o}" for o in ("failed", "passed", "skipped") if counts[o])


@dataclass(frozen=True)
class Bench:
    """How fast this machine trains, dreams and plays, as a share of its own measured peak."""

    recipe: Annotated[str, tyro.conf.Positional] = "vmc-takecover"  # whose shapes
    size: str | None = None  # of the recipe
    against: Literal["nothing", "naive"] = (
        "nothing"  # naive: also time a plain PyTorch loop, in its own process
    )
    env: bool = True  # also time the environment, if its extra is installed
    only: tuple[str, ...] = ()  # works to time, by name as in the table; nothing = all
    seconds: float = 6.0  # for each work, in all turns; a slow one is timed once a turn
    turns: int = 3  # how often each work is timed, by turns with the others and the plain loop
    json: bool = False  # machine-readable output


def bench_command(arguments: Sequence[str]) -> None:
    """See `oneiro bench --help`."""
    own = parse(Bench, arguments, "bench", "oneiro bench vmc-takecover --against naive")
    from oneiro import bench

    recipe = find(own.recipe).build(own.size)
    first_line(f"measuring {own.recipe}, about a minute", recipe.runtime.device)
    result = bench.bench(
        recipe,
        against=own.against == "naive",
        env=own.env,
        seconds=own.seconds,
        rounds=own.turns,
        only=own.only,
    )
    print(json.dumps(result) if own.json else bench.table(result))


@dataclass(frozen=True)
class Doctor:
    """What is installed, which extras, device, threads, GL, disk, and the machine's measured peak."""

    peak: bool = True  # measure matrix products and convolutions (some seconds)
    json: bool = False  # machine-readable output


def doctor_command(arguments: Sequence[str]) -> None:
    """See `oneiro doctor --help`."""
    own = parse(Doctor, arguments, "doctor", "oneiro doctor")
    from oneiro.doctor import examine

    facts = examine(peak=own.peak)
    if own.json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, inner in value.items():
                print(f"  {key}: {inner}")
        else:
            print(f"{name}: {value}")
