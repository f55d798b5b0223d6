"""Options of a verb that takes a recipe: its own, and every field of the recipe by dotted name."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from oneiro.errors import OneiroError
from oneiro.recipes import Entry, find
from oneiro.training.recipe import Recipe

Options = TypeVar("Options")


def parse(options: type[Options], arguments: Sequence[str], verb: str, example: str) -> Options:
    """Plain options of a verb."""
    return tyro.cli(
        options,
        args=list(arguments),
        prog=f"oneiro {verb}",
        description=f"{(options.__doc__ or '').strip()}\n\nExample: {example}",
        config=(tyro.conf.FlagConversionOff,),
    )


def parse_with_recipe(
    options: type[Options], arguments: Sequence[str], verb: str, example: str
) -> tuple[Entry, Recipe, Options]:
    """`oneiro VERB RECIPE --size SIZE --own-option --dotted.field value`."""
    arguments = list(arguments)
    about = f"{(options.__doc__ or '').strip()}\n\nExample: {example}"
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"usage: oneiro {verb} RECIPE [--size SIZE] [OPTIONS]\n\n{about}\n")
            print(f"oneiro {verb} RECIPE --help lists every option of that recipe; oneiro list the recipes.")
            sys.exit(0)
        raise OneiroError(f"which recipe? usage: oneiro {verb} RECIPE [OPTIONS]; oneiro list names them")
    entry = find(arguments[0])
    size, rest = _take_size(arguments[1:])
    recipe = entry.build(size)
    fields: list[Any] = [
        ("own", Annotated[options, tyro.conf.arg(name="")], dataclasses.field(default_factory=options)),
        ("recipe", Annotated[Any, tyro.conf.arg(name="")], dataclasses.field(default=recipe)),
    ]
    command = dataclasses.make_dataclass("Command", fields)
    parsed = tyro.cli(
        command,
        args=rest,
        prog=f"oneiro {verb} {arguments[0]}",
        description=f"{about}\n\nSizes (--size): {', '.join(entry.sizes)}.",
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
    )
    return entry, parsed.recipe, parsed.own


def default_run(entry: Entry, size: str | None, seed: int) -> Path:
    """runs/<recipe>-<size>-<seed>."""
    return Path("runs") / f"{entry.name}-{size or entry.sizes[0]}-{seed}"


def size_of(arguments: Sequence[str]) -> str | None:
    """The value of --size."""
    return _take_size(list(arguments[1:]))[0]


def command_line(verb: str, arguments: Sequence[str]) -> str:
    """The command as typed, for the record."""
    return shlex.join(["oneiro", verb, *arguments])


def _take_size(arguments: list[str]) -> tuple[str | None, list[str]]:
    size, rest = None, []
    skip = False
    for i, word in enumerate(arguments):
        if skip:
            skip = False
        elif word == "--size" and i + 1 < len(arguments):
            size, skip = arguments[i + 1], True
        elif word.startswith("--size="):
            size = word.partition("=")[2]
        else:
            rest.append(word)
    return size, rest
