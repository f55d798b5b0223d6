"""`SB3VecEnv`: a dream, or any vector environment of Gymnasium, for the agents of Stable-Baselines3 (extra `sb3`).

Stable-Baselines3 has a vector interface of its own that is older than Gymnasium's: rows begin again in the step in
which they end, the last observation is in the row's info, and there is one `done`.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from oneiro.errors import MissingExtra

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise MissingExtra("stable-baselines3", "sb3") from error


class SB3VecEnv(VecEnv):
    """`model = PPO("MlpPolicy", SB3VecEnv(env))`. Wrap it in SB3's `VecMonitor` to have episodes logged."""

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        """ValueError unless rows of `env` begin again in the same step."""
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"Stable-Baselines3 needs autoreset_mode=AutoresetMode.SAME_STEP, this environment has {mode}"
            )
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions: Any = None

    def reset(self) -> Any:
        """New episodes in all rows; `seed(n)` before it seeds row i with n + i."""
        seed, options = self._seeds[0], self._options[0]
        obs, _ = self.env.reset(seed=seed, options=options or None)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observation, reward float32 [B], done bool [B], one info a row."""
        obs, reward, terminated, truncated, found = self.env.step(self._actions)
        done = terminated | truncated
        cut = truncated & ~terminated
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(x)} for x in cut]
        for i in done.nonzero()[0]:
            infos[i]["terminal_observation"] = found["final_obs"][i]
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture a row, if the environment renders."""
        return self.env.render() or [None] * self.num_envs  # type: ignore[return-value]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the vector environment, once for each row asked for."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set it for all rows, which share it: `set_attr("temperature", 1.3)`."""
        self._require_all(indices, attr_name)
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list:
        """Call the method of the vector environment once; its answer for each row."""
        self._require_all(indices, method_name)
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Wrappers of single environments there are none."""
        return [False] * len(list(self._get_indices(indices)))

    def _require_all(self, indices: Any, name: str) -> None:
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"{name!r} belongs to the batch; it cannot be reached for some rows only")
