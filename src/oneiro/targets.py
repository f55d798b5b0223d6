"""Names of code outside the package: "my_file.py:Name" or "package.module:Name"."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from oneiro.errors import OneiroError, nearest


def load_target(target: str) -> Any:
    """The object that `target` names. OneiroError says which half of the name is wrong."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise OneiroError(f"{target!r} names nothing; write 'file.py:Name' or 'package.module:Name'")
    module = load_file(Path(where)) if where.endswith(".py") or "/" in where else _from_package(where)
    found: Any = module
    for part in name.split("."):
        if part not in vars(found):
            public = [n for n, x in vars(found).items() if callable(x) and not n.startswith("_")]
            raise OneiroError(f"{where} has no {part!r}. {nearest(part, public or ['nothing'])}")
        found = vars(found)[part]
    return found


_PREFIX = "oneiro_target_"


def loaded_files() -> list[str]:
    """Files that were loaded in this process; `load_file` lets another one unpickle what is defined in them."""
    return [
        module.__file__
        for name, module in sys.modules.items()
        if name.startswith(_PREFIX) and module.__file__
    ]


def load_file(path: Path) -> ModuleType:
    """The module in a file, under a name that depends on its absolute path alone; OneiroError if there is none."""
    if not path.is_file():
        raise OneiroError(f"there is no file {path}; paths are relative to {Path.cwd()}")
    path = path.resolve()
    name = f"{_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OneiroError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise OneiroError(f"{path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _from_package(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise OneiroError(
                f"there is no module {error.name!r}; install it, run from its folder, or name a file: 'file.py:Name'"
            ) from error
        raise OneiroError(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise OneiroError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
