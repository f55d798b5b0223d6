"""Returns over arrival rows: alignment, ends of episodes, weights, and a scale that survives the disk."""

import torch

from oneiro.returns import PercentileScale, alive_weight, episode_ends, lambda_return


def rows(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float32)


def test_lam_1_is_the_discounted_sum_and_lam_0_one_step_ahead():
    reward, cont, value = rows(9, 1, 2, 3), rows(0, 1, 1, 1), rows(9, 10, 20, 30)
    found = lambda_return(reward, cont, value, discount=0.5, lam=1.0)
    assert found.tolist() == [[1 + 0.5 * (2 + 0.5 * (3 + 15)), 2 + 0.5 * (3 + 15), 3 + 15]]
    assert lambda_return(reward, None, value, discount=0.5, lam=0.0).tolist() == [[6, 12, 18]]


def test_nothing_is_expected_beyond_a_terminal_row():
    found = lambda_return(rows(0, 1, 5, 7), rows(1, 1, 0, 1), rows(0, 100, 100, 100), discount=1.0, lam=1.0)
    assert found[0, :2].tolist() == [6, 5]


def test_a_truncated_row_is_worth_its_value():
    is_last = torch.tensor([[False, False, True, False, False]])
    found = lambda_return(
        rows(0, 1, 2, 50, 60), None, rows(7, 7, 10, 7, 7), discount=1.0, lam=1.0, is_last=is_last
    )
    assert found[0, :2].tolist() == [1 + 2 + 10, 2 + 10]


def test_weights_count_the_start():
    assert alive_weight(rows(1, 0.5, 0, 1), discount=0.5).tolist() == [[0.5, 0.125, 0, 0]]


def test_ends_of_episodes():
    #          truncated before a first row, terminal, padding follows, end of the sequence
    is_first = torch.tensor([[1, 0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0]]).bool()
    terminated = torch.tensor([[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]).bool()
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]]).bool()
    expected = [[0, 1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1]]
    assert episode_ends(is_first, terminated, mask).long().tolist() == expected


def test_the_scale_is_saved_and_ignores_what_is_not_finite():
    scale = PercentileScale(rate=0.5)
    scale.update(torch.linspace(-10, 10, 201))
    before = scale().item()
    assert before == 9.0  # half of the way from 0 to 18
    scale.update(torch.tensor([float("nan"), 1.0]))
    assert scale().item() == before
    other = PercentileScale()
    other.load_state_dict(scale.state_dict())
    assert other().item() == before
