"""The first line of verbs that take a while: what is being done, and on which device. On stderr, at once."""

import sys

from oneiro import runtime


def first_line(text: str, device: str = "auto") -> None:
    """For example: `checking vmc-takecover, device: CPU (no GPU in use): ...`."""
    print(
        f"{text}, device: {runtime.describe_device(runtime.pick_device(device))}", file=sys.stderr, flush=True
    )
