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
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt), signals.graceful_stop():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on")
    finally:
        signal.signal(signal.SIGINT, before)


def test_afterwards_signals_are_as_they_were():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.graceful_stop():
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
