"""Errors a user can mend: each names cause and remedy; the command line prints them and exits with 2."""

import difflib
from collections.abc import Iterable


class OneiroError(Exception):
    """Something the user can mend. The message names the cause and the remedy."""


class Undecodable(OneiroError):  # noqa: N818 - a statement about a world, as in the protocol
    """The world cannot turn its state into an observation."""


class MissingExtra(OneiroError):  # noqa: N818
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'oneiro[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: `Did you mean 'x'?` or the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
