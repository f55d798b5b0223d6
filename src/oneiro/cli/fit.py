"""`oneiro show RECIPE --fit 24GB`: the largest size and the largest batch for a given amount of memory."""

import functools
import json
import re
import shlex
from collections.abc import Sequence

import psutil

from oneiro.cli.options import parse_with_recipe, take
from oneiro.errors import OneiroError
from oneiro.recipes import find

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def amount(text: str) -> int:
    """Bytes: "24GB" are 24e9, "24GiB" are 24 x 2^30. OneiroError if it cannot be read."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not float(found[1]):
        raise OneiroError(
            f"cannot read the amount of memory {text!r}; write a number and a unit, such as 24GB, 24GiB or 8000MB"
        )
    return int(float(found[1]) * unit)


def fit(options: type, arguments: Sequence[str], text: str, as_json: bool) -> None:
    """Print what fits into `text`: GPU memory if there is a GPU, else RAM. OneiroError if nothing does."""
    from oneiro import runtime
    from oneiro.training.memory_count import with_batch
    from oneiro.training.needs import largest_batch, memory_of, needs, online_stage

    budget, process, (name, *rest) = amount(text), psutil.Process().memory_info().rss, arguments
    given = take("--fit", take("--size", rest)[1])[1]
    asked = take("--size", rest)[0]
    train = [word for word in given if word not in ("--json", "--no-time", "--time")]
    rows, spaces_of = [], functools.cache(lambda env: env.spaces())  # sizes share an environment
    for size in find(name).sizes:
        _, recipe, _ = parse_with_recipe(options, [name, "--size", size, *given], "show", "")
        stage = online_stage(recipe)
        if stage is None:
            raise OneiroError(f"--fit is for recipes that act and learn at once; {name} has no such stage")
        device = runtime.start(recipe.runtime).device
        kind, spaces = memory_of(device)[0], spaces_of(recipe.env)

        def need(batch: int, recipe=recipe, spaces=spaces, stage=stage, device=device) -> tuple[int, int]:
            found, counted = needs(recipe, spaces, with_batch(stage, batch), device, process)
            return found.gpu or found.ram, counted.parameters["world"] + counted.parameters["behaviour"]

        taken, parameters = need(stage.batch.size)
        row = {"size": size, "parameters": parameters, "batch": stage.batch.size, "bytes": taken}
        rows.append({**row, "length": stage.batch.length, "fits": taken <= budget, "need": need})
    rows.sort(key=lambda row: (row["parameters"], row["bytes"]))
    fitting = [row for row in rows if row["fits"]]
    chosen = next((row for row in rows if row["size"] == asked), fitting[-1] if fitting else None)
    measure = chosen["need"] if chosen else None
    batch = largest_batch(lambda n: measure(n)[0] <= budget, chosen["batch"]) if measure and chosen else 0
    if chosen is None or not batch:
        least = min(row["bytes"] for row in rows)
        raise OneiroError(
            f"nothing fits into {text} of {kind}: the smallest size of {name} at its batch needs "
            f"{least / 2**30:.2f} GiB. Choose a smaller batch (--schedule.online.batch.size) or shorter sequences"
        )
    largest = fitting[-1]["size"] if fitting else None
    option = ["--schedule.online.batch.size", str(batch)]
    command = shlex.join(["oneiro", "train", name, "--size", chosen["size"], *option, *train])
    answer = {
        "budget": budget,
        "of": kind,
        "sizes": [{k: v for k, v in row.items() if k != "need"} for row in rows],
        "largest_size": largest,
        "size": chosen["size"],
        "largest_batch": batch,
        "command": command,
    }
    print(json.dumps(answer) if as_json else _table(answer, text))


def _table(answer: dict, text: str) -> str:
    lines = [f"{'size':8} {'parameters':>12} {'batch':>9} {answer['of']:>14}"]
    for row in answer["sizes"]:
        batch = f"{row['batch']} x {row['length']}"
        verdict = "fits" if row["fits"] else "too large"
        lines.append(
            f"{row['size']:8} {row['parameters']:>12,} {batch:>9} {row['bytes'] / 2**30:>10.2f} GiB  {verdict}"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"largest size that fits into {text} at its batch: {answer['largest_size'] or 'none'}",
            f"largest batch for size {answer['size']}: {answer['largest_batch']}",
            f"  {answer['command']}",
        ]
    )
