"""The first signal asks, the second SIGINT interrupts; the timer is due once per interval."""

import os
import signal
import threading

import pytest

from oneiro.training.signals import Every, Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop(number):
    before = signal.getsignal(number)
    with Stop() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.signal == number
        os.kill(os.getpid(), signal.SIGTERM)  # a second SIGTERM is patient
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == number
    assert signal.getsignal(number) is before


def test_in_another_thread_nothing_is_caught():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with Stop() as stop:
            seen.append(signal.getsignal(signal.SIGINT) is before)
            stop.request()
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, True]


def test_every():
    now = [0.0]
    timer = Every(5.0, clock=lambda: now[0])
    seen = []
    for now[0] in (0.0, 299.9, 300.0, 301.0):
        seen.append(timer.due())
    assert seen == [False, False, True, True]
    timer.reset()
    assert not timer.due()
    now[0] = 601.0
    assert timer.due()
    with pytest.raises(ValueError, match="minutes = 0"):
        Every(0)
