"""Options of a verb that takes a recipe: its own, and every field of the recipe by dotted name."""

import dataclasses
import inspect
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
        args=switches(options, arguments),
        prog=f"oneiro {verb}",
        description=about(options, example),
    )


def parse_with_recipe(
    options: type[Options], arguments: Sequence[str], verb: str, example: str
) -> tuple[Entry, Recipe, Options]:
    """`oneiro VERB RECIPE --size SIZE --own-option --dotted.field value`."""
    arguments = list(arguments)
    text = about(options, example)
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"usage: oneiro {verb} RECIPE [--size SIZE] [OPTIONS]\n\n{text}\n")
            print(f"oneiro {verb} RECIPE --help lists every option of that recipe; oneiro list the recipes.")
            sys.exit(0)
        raise OneiroError(f"which recipe? usage: oneiro {verb} RECIPE [OPTIONS]; oneiro list names them")
    entry = find(arguments[0])
    size, rest = _take_size(arguments[1:])
    recipe = entry.build(size)
    text += f"\n\nSizes (--size): {', '.join(entry.sizes)}."
    own, recipe = parse_with_record(options, rest, recipe, f"oneiro {verb} {arguments[0]}", text)
    return entry, recipe, own


def parse_with_record(
    options: type[Options], arguments: Sequence[str], record: Any, program: str, text: str, name: str = ""
) -> tuple[Options, Any]:
    """Options of a verb, and every field of `record` by dotted name, which begins with `name`."""
    given = Annotated[Any, tyro.conf.arg(name=name), tyro.conf.FlagConversionOff]
    fields: list[Any] = [
        ("own", Annotated[options, tyro.conf.arg(name="")], dataclasses.field(default_factory=options)),
        ("record", given, dataclasses.field(default=record)),
    ]
    parsed = tyro.cli(
        dataclasses.make_dataclass("Command", fields),
        args=switches(options, arguments),
        prog=program,
        description=text,
        config=(tyro.conf.AvoidSubcommands,),
    )
    return parsed.own, parsed.record


def about(options: type, example: str) -> str:
    """What the help of a verb begins with."""
    return f"{inspect.getdoc(options)}\n\nExample: {example}"


def switches(options: type, arguments: Sequence[str]) -> list[str]:
    """A verb's own switches may be given a value too: `--json True` is `--json`, `--time=False` is `--no-time`."""
    own = {
        f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(options) if isinstance(f.default, bool)
    }
    words: list[str] = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        if not equals and words and words[-1] in own and word in ("True", "False"):
            flag, value = words.pop(), word
        is_switch = flag.replace("_", "-") in own and value in ("True", "False")
        words.append(word if not is_switch else flag if value == "True" else f"--no-{flag[2:]}")
    return words


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
    return take("--size", arguments)


def take(name: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of one option (the last, if given twice), and the arguments without it."""
    found, rest = None, []
    words = iter(arguments)
    for word in words:
        if word == name:
            found = next(words, None)
            if found is None or found.startswith("--"):
                raise OneiroError(f"{name} needs a value")
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
        else:
            rest.append(word)
    return found, rest
