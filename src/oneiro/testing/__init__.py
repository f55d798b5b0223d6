"""The public conformance suite: does my world, my behaviour, my code around them keep the contract?

    from oneiro.testing import check_world, require

    def test_my_world():
        require(check_world(MyConfig().build(spaces)))

or, without writing a test, `oneiro check my_file.py:MyConfig`. See docs/conformance.md.
"""

from oneiro.envs.toy import Counter as CounterEnv
from oneiro.envs.toy import counter_length
from oneiro.targets import load_target
from oneiro.testing.checks import Check, require
from oneiro.testing.oracles import CatchOracle, DodgeOracle
from oneiro.testing.rows import MakeBatch, played_rows, random_rows
from oneiro.testing.suite import check_behaviour, check_world
from oneiro.testing.targets import build_behaviour, build_world, check_target

__all__ = [
    "CatchOracle",
    "Check",
    "CounterEnv",
    "DodgeOracle",
    "MakeBatch",
    "build_behaviour",
    "build_world",
    "check_behaviour",
    "check_target",
    "check_world",
    "counter_length",
    "load_target",
    "played_rows",
    "random_rows",
    "require",
]
