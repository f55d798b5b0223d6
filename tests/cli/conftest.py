from pathlib import Path

import pytest
from calling import TOY, oneiro


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy recipe, made by the command line; tests only read it."""
    path = tmp_path_factory.mktemp("trained") / "run"
    answer = oneiro("train", TOY, "--run", path)
    assert answer.code == 0, answer.err
    assert answer.err.startswith(f"vmc-dodge (tiny) in {path}\ndevice: "), answer.err
    assert "decision" in answer.out
    return path
