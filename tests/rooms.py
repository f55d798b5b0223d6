"""The order of rooms, and what the house style forbids, found by parsing: `test_rooms.py` applies it to the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 400
# Left may not import right; a set is one rank whose rooms do not import each other.
ORDER: tuple[set[str], ...] = (
    {
        "agent",
        "behaviour",
        "dreaming",
        "errors",
        "noise",
        "onehot",
        "returns",
        "runtime",
        "spaces",
        "targets",
        "tree",
        "types",
        "world",
    },
    {"nets"},
    {"worlds", "behaviours", "envs", "data"},
    {"training"},
    {"evaluation"},
    {"recipes"},
    {"testing", "bench", "doctor", "play"},
    {"cli"},
    {"__main__"},
)
SPINE = ORDER[0]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "base", "stuff"}
CONTRACTS = {"world", "behaviour"}
"""Names under which worlds and behaviours travel; asking for their class defeats the protocol."""


def problems(path: Path, source: str) -> list[str]:
    """What `path` (relative to the package, for example worlds/vmc.py) does against the rules, one line each."""
    found = []
    if path.stem in VAGUE:
        found.append(f"{path}: {path.stem!r} says nothing; name the file after what it holds")
    if (lines := source.count("\n")) > MAX_LINES:
        found.append(f"{path}: {lines} lines, more than {MAX_LINES}; split it by idea")
    module = ast.parse(source)
    room = room_of(path)
    if room == "__init__":
        return found
    if room not in RANK:
        return [*found, f"{path}: the room {room!r} has no place in the order of rooms; see tests/rooms.py"]
    for line, other in imported_rooms(module, path):
        if other not in RANK:
            found.append(f"{path}:{line}: imports oneiro.{other}, which is in no room")
        elif RANK[other] > RANK[room] or (RANK[other] == RANK[room] and other != room and room not in SPINE):
            found.append(f"{path}:{line}: {room} may not import {other}; they meet through the spine")
    if room != "testing":  # the suite tests what users name, whatever it is
        found += [f"{path}:{line}: {what}" for line, what in class_questions(module)]
    return found


def room_of(path: Path) -> str:
    """worlds/vmc.py -> worlds; tree.py -> tree."""
    return path.parts[0] if len(path.parts) > 1 else path.stem


def imported_rooms(module: ast.Module, path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import from the package, also those inside functions."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "oneiro" and len(parts) > 1:
                    yield node.lineno, parts[1]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            parts = (node.module or "").split(".")
            if node.level:  # relative: from the package's root, `level` folders up
                parts = [
                    "oneiro",
                    *path.parent.parts[: len(path.parent.parts) + 1 - node.level],
                    *filter(None, parts),
                ]
            if parts[0] != "oneiro":
                continue
            for room in [parts[1]] if len(parts) > 1 else [n for n in names if n not in PUBLIC]:
                yield node.lineno, room


PUBLIC = {"__version__"}
"""What may be imported from `oneiro` itself; rooms import the modules where things live."""


def class_questions(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, sentence) where isinstance, hasattr or type is asked about a world or a behaviour."""
    for node in ast.walk(module):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        subject = node.args[0]
        name = subject.id if isinstance(subject, ast.Name) else getattr(subject, "attr", None)
        if node.func.id in ("isinstance", "hasattr") and name in CONTRACTS:
            yield node.lineno, f"{node.func.id} on a {name}; the protocol has the same verbs for all"
