"""Ctrl-C and SIGTERM are obeyed between steps; a second one acts at once."""

import os
import signal

import pytest

from mlrpl_bench.utils import signals
from mlrpl_bench.utils.signals import Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_request_is_obeyed_where_the_caller_looks(number, code):
    with signals.graceful_stop() as requests:
        requests.raise_if_asked()
        os.kill(os.getpid(), number)  # nothing happens here
        with pytest.raises(Interrupted) as stop:
            requests.raise_if_asked()
    assert stop.value.exit_code == code
    assert str(stop.value) == number.name


def test_a_second_one_acts_at_once():
    with pytest.raises(KeyboardInterrupt), signals.graceful_stop():
        # To this thread: the system may hand a signal to another one, and Python takes two that still wait for one.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")


def test_afterwards_signals_are_as_they_were():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.graceful_stop():
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
