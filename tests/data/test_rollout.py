"""`Rollout`: waiting for the environment."""

from concurrent.futures import TimeoutError as NotYet

import pytest

from oneiro.data.rollout import Rollout
from oneiro.envs.toy import ToyConfig


class Answered:
    """A turn that arrives just after a wait for it has run out."""

    def __init__(self, outcome):
        self.outcome, self.waits = outcome, 0

    def result(self, seconds=None):
        self.waits += 1
        if self.waits == 1:
            raise NotYet
        return self.outcome()

    def done(self):
        return self.waits > 0


def test_a_turn_that_arrives_just_after_a_wait_is_received():
    env = ToyConfig(id="counter", num=1).make()
    rollout = Rollout(env, seed=0, overlap=False)
    rollout.send(None)
    turn = rollout._job()
    rollout._future = Answered(lambda: turn)
    assert rollout.receive() is turn


def test_a_timeout_of_the_environment_itself_is_raised():
    def fail():
        raise TimeoutError("of the game")

    env = ToyConfig(id="counter", num=1).make()
    rollout = Rollout(env, seed=0, overlap=False)
    rollout.send(None)
    rollout._future = Answered(fail)
    with pytest.raises(TimeoutError, match="of the game"):
        rollout.receive()
