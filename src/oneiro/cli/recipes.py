"""`oneiro list` and `oneiro show`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from oneiro.cli.first_line import first_line
from oneiro.cli.options import parse, parse_with_recipe, size_of
from oneiro.recipes import entries


@dataclass(frozen=True)
class List:
    """Recipes and what they are."""

    json: bool = False  # machine-readable output


def list_command(arguments: Sequence[str]) -> None:
    """See `oneiro list --help`."""
    own = parse(List, arguments, "list", "oneiro list")
    known = entries()
    if own.json:
        print(json.dumps({name: {"about": e.about, "sizes": e.sizes} for name, e in known.items()}))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("recipe", "sizes", "what it is")
    for name, entry in known.items():
        table.add_row(name, ", ".join(entry.sizes), escape(entry.about))
    Console().print(table)
    print("oneiro show RECIPE tells what it would take; oneiro train RECIPE starts it.")


@dataclass(frozen=True)
class Show:
    """Parts with exact parameter counts, schedule, memory, disk and time, before anything starts."""

    time: bool = True  # try a moment of every stage to estimate rows, disk and hours (some seconds)
    json: bool = False  # machine-readable output
    fit: str = ""  # an amount of memory, such as 24GB: name the largest size and batch that fit instead


def show_command(arguments: Sequence[str]) -> None:
    """See `oneiro show --help`."""
    entry, recipe, own = parse_with_recipe(Show, arguments, "show", "oneiro show vmc-takecover --size demo")
    if own.fit:
        from oneiro.cli.fit import amount, fit

        amount(own.fit)  # what cannot be read is refused before anything is counted
        first_line(f"counting what each size of {entry.name} takes", recipe.runtime.device)
        fit(Show, arguments, own.fit, own.json)
        return
    from oneiro.training.estimate import estimate

    if own.time:
        first_line("trying a moment of every stage (--no-time leaves it out)", recipe.runtime.device)
    plan = estimate(recipe, timed=own.time)
    if own.json:
        print(
            json.dumps(
                {
                    "recipe": entry.name,
                    "size": size_of(arguments) or entry.sizes[0],
                    "env": recipe.env.describe(),
                    **plan.to_json(),
                }
            )
        )
        return
    print(f"{entry.name} ({size_of(arguments) or entry.sizes[0]}): {entry.about}\n")
    print(f"environment: {recipe.env.describe()}\n")
    print(plan)
