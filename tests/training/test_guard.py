"""Bad updates are found, named, skipped and counted; a series of them stops the run with its batch saved."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from oneiro.errors import OneiroError
from oneiro.training.guard import Guard, named_tensors
from oneiro.types import TimeStep


def good():
    return {"world.vision": torch.tensor(1.0)}, [{"conv.weight": torch.ones(3, 2), "unused": None}]


def batch():
    flags = torch.zeros(2, 3, dtype=torch.bool)
    return TimeStep(
        obs={"image": torch.zeros(2, 3, 3, 4, 4, dtype=torch.uint8)},
        action=torch.full((2, 3, 1), float("nan")),
        reward=None,
        is_first=flags,
        terminated=flags,
        mask=~flags,
    )


def test_finite_updates_pass(tmp_path):
    guard = Guard(tmp_path)
    assert guard.check(*good(), batch()) == [True]
    assert guard.check({"l": torch.tensor(2.0, dtype=torch.bfloat16, requires_grad=True)}, [{}]) == [True]
    assert guard.state() == {"skipped": 0, "in_a_row": 0}


@pytest.mark.parametrize(
    ("loss", "gradient", "cause"),
    [
        (float("nan"), 1.0, "loss world.vision is NaN"),
        (float("-inf"), 1.0, "loss world.vision is infinite"),
        (1.0, float("inf"), "gradient of conv.weight is infinite"),
        (1.0, float("nan"), "gradient of conv.weight is NaN"),
        (1.0, 3e38, "gradient of conv.weight overflows"),
    ],
)
def test_the_first_bad_tensor_is_named(tmp_path, loss, gradient, cause):
    guard = Guard(tmp_path)
    losses, [gradients] = good()
    losses["world.vision"] = torch.tensor(loss)
    bad = torch.ones(3, 2)
    bad[2, 1] = bad[0, 0] = gradient
    with pytest.warns(RuntimeWarning, match=f"update skipped: {cause}"):
        assert guard.check(losses, [{**gradients, "conv.weight": bad}], batch()) == [False]
    assert guard.state() == {"skipped": 1, "in_a_row": 1}
    assert guard.check(*good(), batch()) == [True]
    assert guard.state() == {"skipped": 1, "in_a_row": 0}


@pytest.mark.filterwarnings("ignore:update skipped")
@pytest.mark.parametrize("bad", [0, 1])
def test_an_update_of_several_groups_is_counted_once(tmp_path, bad):
    guard = Guard(tmp_path, limit=3)
    losses, gradients = {"l": torch.tensor(1.0)}, [{"a": torch.ones(2)}, {"b": torch.ones(3)}]
    gradients[bad] = {"c": torch.tensor([1.0, float("nan")])}
    expected = [group != bad for group in range(2)]
    assert guard.check(losses, gradients) == expected
    assert guard.check({"l": torch.tensor(float("nan"))}, [{"a": torch.ones(2)}] * 2) == [False, False]
    assert guard.state() == {"skipped": 2, "in_a_row": 2}
    with pytest.raises(OneiroError, match=r"3 updates in a row(.|\n)*gradient of c is NaN"):
        guard.check(losses, gradients)


@pytest.mark.filterwarnings("ignore:update skipped")
def test_too_many_in_a_row_stop_the_run_with_the_batch_saved(tmp_path):
    guard = Guard(tmp_path, limit=3)
    bad = {"world.memory": torch.tensor(float("nan"))}
    assert guard.check(bad, [{}], batch()) == [False]
    assert guard.check(*good(), batch()) == [True]
    assert guard.check(bad, [{}], batch()) == [False]
    assert guard.check(bad, [{}], batch()) == [False]
    resumed = Guard(tmp_path, limit=3)
    resumed.load_state(guard.state())
    with pytest.raises(
        OneiroError, match=r"3 updates in a row(.|\n)*world.memory is NaN(.|\n)*learning rate"
    ):
        resumed.check(bad, [{}], batch())
    saved = load_file(tmp_path / "nan_batch.safetensors")
    assert sorted(saved) == ["action", "is_first", "mask", "obs.image", "terminated"]
    assert saved["action"].isnan().all()
    assert saved["obs.image"].dtype == torch.uint8
    with safe_open(tmp_path / "nan_batch.safetensors", "pt") as file:
        assert file.metadata()["cause"] == "loss world.memory is NaN"
    assert resumed.skipped == 4


def test_names_of_a_tree():
    tree = {"a": (torch.ones(1), None), "b": batch()}
    names = ["a.0", "b.action", "b.is_first", "b.mask", "b.obs.image", "b.terminated"]
    assert sorted(named_tensors(tree)) == names
    assert list(named_tensors(torch.ones(1))) == ["batch"]


def test_bad_limit(tmp_path):
    with pytest.raises(ValueError, match="limit = 0"):
        Guard(tmp_path, limit=0)
