"""Time the plain forms of one script: `python plain.py SCRIPT`, asked by `rival.Rival`.

It imports nothing of oneiro, and the script neither. It reads one request a line (JSON: work, seconds, shapes) and
answers with the seconds of every repetition. The script's `WORK` gives each work by name: shapes -> what is repeated.
"""

import json
import runpy
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(works: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]]) -> None:
    """Answer requests until the input ends; the first repetition of a work is not timed."""
    made: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["work"]
        if name not in made:
            made[name] = works[name](request["shapes"])
            made[name]()
        times: list[float] = []
        while sum(times) < request["seconds"]:
            began = time.perf_counter()
            made[name]()
            times.append(time.perf_counter() - began)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    serve(runpy.run_path(sys.argv[1])["WORK"])
