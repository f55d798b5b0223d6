"""The command line called in this process."""

import io
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiro.cli.main import main

HERE = Path(__file__).parent
TOY = f"{HERE.parent / 'recipes' / 'toy.py'}:vmc_dodge"
FAULTS = HERE / "faulty_recipes.py"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def is_error(self, *words: str) -> bool:
        """Exit code 2 and a message with these words, no traceback."""
        text = self.out + self.err
        missing = [word for word in words if word not in text]
        assert self.code == 2, (self.code, text)
        assert not missing, (missing, text)
        assert "Traceback" not in text, text
        return True


def oneiro(*arguments: Any) -> Answer:
    """`oneiro ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")  # as outside of tests
        code = main([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())
