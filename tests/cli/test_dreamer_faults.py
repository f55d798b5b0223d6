"""`oneiro train dreamerv3-...` where it cannot work: exit code 2, cause and remedy."""

from pathlib import Path

import pytest
from calling import oneiro

GYM = ("train", "dreamerv3-gym", "--size", "smoke", "--env.workers", "sync", "--quiet")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--env.id", "odd_gym:Unbounded-v0"), ("unbounded", "TransformAction")),
        (("--env.id", "odd_gym:FloatPicture-v0"), ("float32", "uint8", "TransformObservation")),
        (("--env.id", "odd_gym:Picture-v0", "--env.size", "50"), ("50 x 50", "multiples of 16")),
        (("--env.id", "CartPol-v1"), ("CartPol-v1", "Did you mean 'CartPole-v1'")),
        (("--schedule.online.train-ratio", "0"), ("train_ratio is 0", "oneiro collect")),
        (("--schedule.online.steps", "20"), ("can never be met", "more steps")),
        (("--data.capacity", "100"), ("can never be met", "data.capacity")),
    ],
)
def test_what_cannot_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: tuple[str, ...]
):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    assert oneiro(*GYM, *options, "--run", tmp_path / "run").is_error(*words)


def test_an_unknown_game_names_the_nearest(tmp_path: Path):
    pytest.importorskip("ale_py")
    answer = oneiro("train", "dreamerv3-atari100k", "--env.game", "ms_pacmann", "--run", tmp_path / "run")
    assert answer.is_error("ms_pacmann", "Did you mean 'ms_pacman'")
    assert not (tmp_path / "run").exists()
