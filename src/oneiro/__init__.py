"""oneiro: every world model behind one protocol. Learn a world from pixels, dream in it, play in it."""

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from oneiro import errors as errors
    from oneiro import tree as tree
    from oneiro.agent import Agent as Agent
    from oneiro.behaviour import Behaviour as Behaviour
    from oneiro.behaviour import OpenLoop as OpenLoop
    from oneiro.dreaming import dream as dream
    from oneiro.errors import OneiroError as OneiroError
    from oneiro.recipes.saved import load as load
    from oneiro.spaces import ActionCodec as ActionCodec
    from oneiro.spaces import Spaces as Spaces
    from oneiro.types import Carry as Carry
    from oneiro.types import Decision as Decision
    from oneiro.types import Dream as Dream
    from oneiro.types import Losses as Losses
    from oneiro.types import Prediction as Prediction
    from oneiro.types import TimeStep as TimeStep
    from oneiro.world import WorldModel as WorldModel

__version__ = "0.1.0"

# Gymnasium knows an environment once its module was imported; it has no entry points for packages. Names only:
# neither torch nor a room is loaded before the environment is made.
gymnasium.register(
    id="oneiro/Dream-v0",
    entry_point="oneiro.recipes.dreams:single_dream",
    vector_entry_point="oneiro.recipes.dreams:dream_env",
)

# Public name -> module it lives in. Imported on first use, so that the command line answers at once and a
# program can set up its process (`oneiro.runtime`) before torch is loaded.
_HOME = {
    "ActionCodec": "oneiro.spaces",
    "Agent": "oneiro.agent",
    "Behaviour": "oneiro.behaviour",
    "Carry": "oneiro.types",
    "Decision": "oneiro.types",
    "Dream": "oneiro.types",
    "Losses": "oneiro.types",
    "OneiroError": "oneiro.errors",
    "OpenLoop": "oneiro.behaviour",
    "Prediction": "oneiro.types",
    "Spaces": "oneiro.spaces",
    "TimeStep": "oneiro.types",
    "WorldModel": "oneiro.world",
    "dream": "oneiro.dreaming",
    "errors": "",  # a module itself
    "load": "oneiro.recipes.saved",
    "tree": "",
}

__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'oneiro' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name] or f"oneiro.{name}")
    value = getattr(module, name) if _HOME[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
