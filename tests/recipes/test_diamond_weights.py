"""Released weights are read by position, whatever the names, and what does not fit is named."""

from pathlib import Path

import pytest
import torch

from oneiro.agent import Agent
from oneiro.errors import OneiroError
from oneiro.recipes.diamond import diamond_atari
from oneiro.recipes.diamond_weights import PREFIXES, load_released, read_released
from oneiro.training.run import build_agent


def fresh(seed: int) -> Agent:
    torch.manual_seed(seed)
    recipe = diamond_atari("smoke")
    return build_agent(recipe, recipe.env.spaces())


def released(agent: Agent) -> dict[str, torch.Tensor]:
    """As the code would name them: other names, the same order."""
    return {
        f"agent.{prefix}.layer.{k}": x.clone()
        for prefix, address in PREFIXES.items()
        for k, x in enumerate(agent.get_submodule(address).state_dict().values())
    }


def test_weights_are_read(tmp_path: Path) -> None:
    theirs, ours = fresh(1), fresh(2)
    torch.save(released(theirs), tmp_path / "agent.pt")
    load_released(ours, read_released(tmp_path / "agent.pt"))
    for name, x in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], x), name


def test_what_does_not_fit_is_named() -> None:
    tensors = {name.removeprefix("agent."): x for name, x in released(fresh(1)).items()}
    agent = fresh(2)
    before = {name: x.clone() for name, x in agent.state_dict().items()}
    odd = {**tensors, "denoiser.layer.1": torch.zeros(18, 4), "upsampler.layer.0": torch.zeros(1)}
    with pytest.raises(OneiroError, match="do not fit") as e:
        load_released(agent, odd)
    assert "denoiser.layer.1 is 18x4, our world.denoiser.net.action.weight 3x4" in str(e.value)
    assert "upsampler.layer.0 belongs to no part" in str(e.value)
    with pytest.raises(OneiroError, match="actor_critic has 0 tensors") as e:
        load_released(agent, {name: x for name, x in tensors.items() if "actor_critic" not in name})
    assert "our behaviour.net.encoder.0.weight 8x3x3x3 has no counterpart in the file" in str(e.value)
    assert all(torch.equal(x, before[name]) for name, x in agent.state_dict().items())


def test_names_where_the_counts_differ() -> None:
    """One tensor too many in the middle: what comes after it is shifted, and the last has no counterpart."""
    tensors = {name.removeprefix("agent."): x for name, x in released(fresh(1)).items()}
    theirs = list(tensors.items())
    last = [name for name in tensors if name.startswith("denoiser.")][-1]
    odd = dict([*theirs[:3], ("denoiser.extra.0", torch.zeros(7, 7)), *theirs[3:]])
    agent = fresh(2)
    count = len(agent.get_submodule("world.denoiser").state_dict())
    with pytest.raises(
        OneiroError, match=f"denoiser has {count + 1} tensors, our world.denoiser {count}:"
    ) as e:
        load_released(agent, odd)
    assert "denoiser.extra.0 is 7x7, our world.denoiser.net.cond.0.bias 16" in str(e.value)
    assert f"{last} 3 has no counterpart in our world.denoiser" in str(e.value)


def test_a_bias_is_no_weight() -> None:
    """Tensors of the same shape under real names are not taken for each other."""
    agent = fresh(2)
    tensors = {
        f"{prefix}.{name.replace('lstm.weight_hh', 'lstm.weight_hh_l0')}": x
        for prefix, address in PREFIXES.items()
        for name, x in fresh(1).get_submodule(address).state_dict().items()
    }
    load_released(agent, tensors)
    names = {
        "rew_end_model.lstm.bias_ih": "rew_end_model.lstm.bias_hh",
        "actor_critic.encoder.1.norm.weight": "actor_critic.encoder.1.norm.bias",
    }
    swapped = {**names, **{new: old for old, new in names.items()}}
    with pytest.raises(OneiroError, match="do not fit") as e:
        load_released(agent, {swapped.get(name, name): x for name, x in tensors.items()})
    for old, new in names.items():
        assert f"{new} is another kind of tensor than our {PREFIXES[old.partition('.')[0]]}" in str(e.value)


class Trap:
    def __reduce__(self) -> tuple:
        return (print, ("ran",))


def test_pickled_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"x": Trap()}, tmp_path / "bad.pt")
    with pytest.raises(OneiroError, match="weights only"):
        read_released(tmp_path / "bad.pt")
    assert "ran" not in capsys.readouterr().out
    torch.save({"x": 3}, tmp_path / "numbers.pt")
    torch.save({3: torch.zeros(1)}, tmp_path / "numbered.pt")
    for name in ("numbers.pt", "numbered.pt"):
        with pytest.raises(OneiroError, match="no tensors by name"):
            read_released(tmp_path / name)
    torch.save({"agent.denoiser.x": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    with pytest.raises(OneiroError, match=r"agent\.denoiser\.x .* NaN or infinity"):
        read_released(tmp_path / "nan.pt")
