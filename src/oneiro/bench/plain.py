"""Time the plain forms of one script: `python plain.py SCRIPT DEVICE`, asked by `rival.Rival`.

It imports nothing of oneiro, and the script neither; what the script makes lies on the device. It reads one request
a line (JSON: work, seconds, shapes) and answers with the seconds of every repetition. The script's `WORK` gives each
work by name: shapes -> what is repeated.
"""

import json
import runpy
import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def serve(works: dict[str, Callable[[dict[str, Any]], Callable[[], Any]]], device: torch.device) -> None:
    """Answer requests until the input ends; the first repetition of a work is not timed."""
    torch.set_default_device(device)
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    made: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["work"]
        if name not in made:
            made[name] = works[name](request["shapes"])
            made[name]()
            wait()
        times: list[float] = []
        while sum(times) < request["seconds"]:
            began = time.perf_counter()
            made[name]()
            wait()
            times.append(time.perf_counter() - began)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    serve(runpy.run_path(sys.argv[1])["WORK"], torch.device(sys.argv[2]))
