"""Nested dicts of tensors and the records of the spine: rows go where they should and nothing is shared by accident."""

import pytest
import torch

from oneiro import Carry, TimeStep, tree


def nested(n: int = 3) -> dict:
    return {"a": torch.arange(float(n)), "b": {"c": torch.arange(2.0 * n).reshape(n, 2), "none": None}}


def test_map_walks_dicts_records_and_several_trees() -> None:
    doubled = tree.map(lambda x, y: x + y, nested(), nested())
    assert doubled["a"].tolist() == [0.0, 2.0, 4.0]
    assert doubled["b"]["none"] is None
    carry = tree.map(lambda x: x + 1, Carry(state=nested(), memory={"m": torch.zeros(3)}))
    assert isinstance(carry, Carry)
    assert carry.state["a"].tolist() == [1.0, 2.0, 3.0]
    assert carry.memory["m"].tolist() == [1.0] * 3


def test_size_is_the_common_axis_0() -> None:
    assert tree.size(nested(5)) == 5
    with pytest.raises(AssertionError, match="disagree"):
        tree.size({"a": torch.zeros(2), "b": torch.zeros(3)})


def test_leaves_are_in_a_fixed_order() -> None:
    one = {"b": torch.tensor(2), "a": torch.tensor(1)}
    other = {"a": torch.tensor(1), "b": torch.tensor(2)}
    assert [int(x) for x in tree.leaves(one)] == [int(x) for x in tree.leaves(other)]


def test_stack_and_concat() -> None:
    states = [nested(), nested()]
    assert tree.stack(states, 1)["b"]["c"].shape == (3, 2, 2)
    joined = tree.concat(states)
    assert joined["a"].tolist() == [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]


def test_where_picks_row_by_row_whatever_the_rank() -> None:
    yes, no = nested(), tree.map(lambda x: -x - 1, nested())
    mixed = tree.where(torch.tensor([True, False, True]), yes, no)
    assert mixed["a"].tolist() == [0.0, -2.0, 2.0]
    assert mixed["b"]["c"].tolist() == [[0.0, 1.0], [-3.0, -4.0], [4.0, 5.0]]


def test_repeat_keeps_copies_of_a_row_together() -> None:
    assert tree.repeat(nested(), 2)["a"].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]


def test_clone_shares_no_memory() -> None:
    original = nested()
    copy = tree.clone(original)
    copy["b"]["c"].zero_()
    assert original["b"]["c"].sum() == 15


@pytest.mark.parametrize(
    ("index", "rows"),
    [(torch.tensor([2, 0]), [2.0, 0.0]), (torch.tensor([False, True, True]), [1.0, 2.0]), (slice(1), [0.0])],
)
def test_take_by_numbers_mask_or_slice(index: object, rows: list[float]) -> None:
    assert tree.take(nested(), index)["a"].tolist() == rows


def test_put_replaces_rows_in_a_copy() -> None:
    original = nested()
    index = torch.tensor([2, 0])
    changed = tree.put(original, index, tree.map(lambda x: x + 10, tree.take(original, index)))
    assert changed["a"].tolist() == [10.0, 1.0, 12.0]
    assert original["a"].tolist() == [0.0, 1.0, 2.0]


def test_detach_cuts_the_graph_and_to_moves() -> None:
    graph = {"a": torch.ones(2, requires_grad=True) * 2}
    assert not tree.detach(graph)["a"].requires_grad
    assert tree.to(graph, "meta")["a"].is_meta


def test_time_steps_are_trees_and_at_takes_a_column() -> None:
    flags = torch.tensor([[True, False], [False, True]])
    rows = TimeStep(
        obs={"vector": torch.arange(4.0).reshape(2, 2, 1)},
        action=None,
        reward=torch.tensor([[0.0, 1.0], [2.0, 3.0]]),
        is_first=flags,
        terminated=~flags,
        mask=torch.ones(2, 2, dtype=torch.bool),
        memo={"mu": torch.zeros(2, 2, 3)},
    )
    column = rows.at(1)
    assert column.reward is not None
    assert column.reward.tolist() == [1.0, 3.0]
    assert column.obs["vector"].tolist() == [[1.0], [3.0]]
    assert column.action is None
    assert column.memo["mu"].shape == (2, 3)
    assert tree.take(rows, slice(1)).is_first.tolist() == [[True, False]]
