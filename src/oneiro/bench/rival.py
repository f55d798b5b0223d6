"""The plain PyTorch form in a process of its own, on the same device, asked for timings in turns with ours."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from oneiro.bench.work import Flop
from oneiro.errors import OneiroError
from oneiro.training.recipe import Recipe
from oneiro.worlds.vmc import VMCConfig

ROWS, CANDIDATES, ENCODE_BATCH = 1024, 64, 256
"""Dream rollouts at once and how many controllers they share; frames encoded at once."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What V, M and C of a recipe work on."""

    z_dim: int
    channels: tuple[int, ...]
    hidden_dim: int
    num_mixtures: int
    action_dim: int
    states: int  # how many of h and c the controller reads
    vision_batch: int = 100
    memory_batch: int = 100
    memory_length: int = 500
    encode_batch: int = ENCODE_BATCH
    rows: int = ROWS
    candidates: int = CANDIDATES

    @classmethod
    def of(cls, recipe: Recipe, batches: dict[str, Any]) -> "Shapes | None":
        """Of a V-M-C recipe; None for other worlds. `batches` are the sampler configs by part."""
        config = recipe.world
        if not isinstance(config, VMCConfig):
            return None
        action_dim = 3 if config.action_input == "thirds" else recipe.env.spaces().action.dim
        sizes = {}
        if "vision" in batches:
            sizes["vision_batch"] = batches["vision"].size
        if "memory" in batches:
            sizes |= {"memory_batch": batches["memory"].size, "memory_length": batches["memory"].length}
        return cls(
            z_dim=config.z_dim,
            channels=config.channels,
            hidden_dim=config.hidden_dim,
            num_mixtures=config.num_mixtures,
            action_dim=action_dim,
            states=len(config.feature) - 1,
            **sizes,
        )

    def flop(self) -> dict[str, Flop]:
        """Operations of one call of each work; V's few dense layers are taken for convolutions."""
        a, b, c, d = self.channels
        encoder = 16 * (961 * 3 * a + 196 * a * b + 36 * b * c + 4 * c * d) + 2 * 4 * d * self.z_dim
        decoder = 25 * (4 * d * c + 25 * c * b) + 36 * (169 * b * a + 900 * a * 3) + self.z_dim * 4 * d
        inputs, width = self.z_dim + self.action_dim + 1, self.hidden_dim
        memory = 4 * width * (inputs + width) + width * (1 + 3 * self.num_mixtures * self.z_dim)
        controller = (self.z_dim + self.states * width) * self.action_dim
        return {
            "vision": Flop(conv=3.0 * 2 * self.vision_batch * (encoder + decoder)),
            "encode": Flop(conv=2.0 * self.encode_batch * encoder),
            "memory": Flop(gemm=3.0 * 2 * self.memory_batch * (self.memory_length - 1) * memory),
            "dream": Flop(gemm=2.0 * self.rows * (memory + controller)),
        }


class Rival:
    """A plain form at work, a script of this folder or anywhere else; use as a context.

    `python` runs it, with the variables of `environment` besides those of this process.
    """

    def __init__(
        self,
        script: str | Path,
        shapes: dict[str, Any],
        device: torch.device,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.script, self.shapes, self.device = script, shapes, device
        self.python, self.environment = python, environment or {}

    def __enter__(self) -> "Rival":
        folder = Path(__file__).parent
        self.process = subprocess.Popen(
            [self.python, str(folder / "plain.py"), str(folder / self.script), str(self.device)],
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a busy machine: it has nothing more to do
            self.process.kill()
            self.process.wait()

    def ask(self, work: str, seconds: float) -> list[float]:
        """Seconds of each repetition."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"work": work, "seconds": seconds, "shapes": self.shapes}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise OneiroError(
                f"the plain PyTorch process ended while measuring {work!r} (exit code {self.process.wait()}); it "
                "may have run out of memory: try --size demo"
            )
        return json.loads(answer)
