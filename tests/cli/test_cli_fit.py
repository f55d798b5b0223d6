"""`oneiro show RECIPE --fit AMOUNT`."""

import dataclasses

import pytest
from calling import oneiro

from oneiro.cli import fit
from oneiro.cli.fit import amount
from oneiro.errors import OneiroError
from oneiro.recipes import find


@pytest.fixture(autouse=True)
def two_sizes(monkeypatch: pytest.MonkeyPatch):
    """Counting a size takes a second or two; two of them show all there is to see."""
    monkeypatch.setattr(fit, "find", lambda name: dataclasses.replace(find(name), sizes=("smoke", "1m")))


def test_the_largest_size_and_batch_that_fit():
    answer = oneiro("show", "dreamerv3-gym", "--fit", "4GB", "--json")
    found = answer.json
    assert [row["size"] for row in found["sizes"]] == ["smoke", "1m"]
    assert all(row["fits"] == (row["bytes"] <= 4e9) for row in found["sizes"])
    assert found["largest_size"] == found["size"] == "1m"
    assert found["largest_batch"] >= 16
    assert f"--schedule.online.batch.size {found['largest_batch']}" in found["command"]
    assert "counting" in answer.err


def test_what_fits_nowhere_or_cannot_be_read():
    assert oneiro("show", "dreamerv3-gym", "--fit", "2MB").is_error("nothing fits into 2MB", "smaller batch")
    assert oneiro("show", "dreamerv3-gym", "--fit", "much").is_error("cannot read", "24GB")


@pytest.mark.parametrize(
    ("text", "number"), [("24GB", 24 * 10**9), ("1.5 GiB", 3 * 2**29), ("8000mb", 8 * 10**9)]
)
def test_amounts(text: str, number: int):
    assert amount(text) == number
    with pytest.raises(OneiroError, match="write a number and a unit"):
        amount("0GB")
