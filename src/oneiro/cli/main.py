"""Verbs, and what every verb shares: levers at start-up, errors with a remedy, exit codes."""

import errno
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from oneiro import __version__
from oneiro.errors import OneiroError, nearest

VERBS = {
    "list": ("oneiro.cli.recipes", "recipes and what they are"),
    "show": (
        "oneiro.cli.recipes",
        "parts, schedule, memory, disk and time of a recipe before anything starts",
    ),
    "train": ("oneiro.cli.train", "train a recipe; the same command again resumes"),
    "evaluate": ("oneiro.cli.runs", "play the real environment with a trained run"),
    "compare": (
        "oneiro.cli.compare",
        "runs side by side: intervals over seeds, aggregates, published scores",
    ),
    "dream": ("oneiro.cli.runs", "film of truth, dream and difference"),
    "play": ("oneiro.cli.play", "a page where a person plays in the dream of a run, or of two"),
    "report": ("oneiro.cli.runs", "write report.html of a run"),
    "collect": (
        "oneiro.cli.collect",
        "record episodes with a random policy or a run; import and export Minari",
    ),
    "export": ("oneiro.cli.exchange", "a run as safetensors, JSON and a model card, ready for a model hub"),
    "import": (
        "oneiro.cli.exchange",
        "make a run folder of an exported one, or of DIAMOND's released weights",
    ),
    "check": ("oneiro.cli.checks", "conformance suite for a recipe's world and behaviour, or your own class"),
    "bench": ("oneiro.cli.checks", "how fast this machine trains, dreams and plays"),
    "doctor": ("oneiro.cli.checks", "what is installed, device, threads, disk, machine peak"),
}


def usage() -> str:
    """The table of verbs."""
    lines = [
        f"oneiro {__version__}: learn a world, dream in it, play in it.",
        "",
        "usage: oneiro VERB ...",
        "",
    ]
    lines += [f"  {verb:9} {about}" for verb, (_, about) in VERBS.items()]
    return "\n".join([*lines, "", "oneiro VERB --help explains a verb, with an example."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 2 wrong use or something the user can mend."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=os.environ.get("ONEIRO_LOG", "WARNING"), format="%(levelname)s: %(message)s")
    warnings.showwarning = _warn
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    verb, *rest = arguments
    try:
        if verb not in VERBS:
            raise OneiroError(f"unknown verb {verb!r}. {nearest(verb, VERBS)}")
        module = importlib.import_module(VERBS[verb][0])
        return getattr(module, f"{verb}_command")(rest) or 0
    except BrokenPipeError:
        return 0
    except (OneiroError, ValueError, OSError) as error:
        if os.environ.get("ONEIRO_TRACEBACK"):
            raise
        print(f"oneiro {verb}: {_explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"oneiro {verb}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except SystemExit as left:  # tyro's way to end after --help or a wrong option
        return left.code if isinstance(left.code, int) else 2


def _explain(error: Exception) -> str:
    """Cause and remedy, also for what the operating system refused outside the places that expect it."""
    if isinstance(error, OneiroError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full ({error.filename or error.strerror}). Free some space, then repeat the same "
            "command; what was saved before is untouched"
        )
    return f"{error}\n(ONEIRO_TRACEBACK=1 shows where this comes from)"


def _warn(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
