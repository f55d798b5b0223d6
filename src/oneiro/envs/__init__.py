"""Room `envs`: environments as frozen configs; `make(config)` opens several at once as one vector environment.

Nothing here imports torch at load time, so that worker processes start quickly and stay small.
"""

from typing import TYPE_CHECKING

from oneiro.envs.config import EnvConfig as EnvConfig

if TYPE_CHECKING:
    from oneiro.envs.vector import VectorEnv


def make(config: EnvConfig, num: int | None = None) -> "VectorEnv":
    """`num` environments (default: `config.num`) behind one vector interface; close it after use."""
    return config.make(num)
