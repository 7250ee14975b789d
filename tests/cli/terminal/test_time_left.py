"""When all cells will be trained, from what is made of them."""

import doctest

import pytest

from mlrpl_bench.cli.terminal import time_left
from mlrpl_bench.cli.terminal.time_left import TimeLeft
from tests.helpers.clock import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def left(clock):
    return TimeLeft(clock)


def test_nothing_is_known_before_the_first_steps(left, clock):
    left.cells(0, 10)
    assert left.seconds() is None
    left.here("a", 0.1)
    assert left.seconds() is None  # no time has passed since


def test_a_group_that_is_half_done_tells_of_all_cells(left, clock):
    left.cells(0, 10)
    for title in "ab":
        left.here(title, 0.0)
    clock.now = 100.0
    for title in "ab":
        left.here(title, 0.5)
    # One cell of ten in 100 seconds, as two halves.
    assert left.seconds() == pytest.approx(900)


def test_cells_that_have_ended_count_and_the_estimate_does_not_jump_between_two_messages(left, clock):
    left.cells(0, 4)
    left.here("a", 0.0)
    clock.now = 100.0
    left.ended("a")
    assert left.seconds() == pytest.approx(300)
    left.cells(1, 4)
    assert left.seconds() == pytest.approx(300)


def test_what_was_made_before_the_command_began_was_not_made_by_it(left, clock):
    left.cells(0, 2)
    left.here("a", 0.8)
    clock.now = 100.0
    left.here("a", 0.9)
    assert left.seconds() == pytest.approx(100 * (2 - 0.9) / 0.1)


def test_what_other_processes_make_counts(left, clock):
    left.cells(0, 10)
    left.elsewhere({"one": 0.0, "two": 1.0})
    clock.now = 100.0
    left.elsewhere({"one": 1.0, "two": 2.0})
    assert left.seconds() == pytest.approx(100 * (10 - 3) / 2)
    left.cells(2, 10)
    left.elsewhere({"one": 1.0})  # the other one's two cells are done
    assert left.seconds() == pytest.approx(100 * (10 - 3) / 2)


def test_a_cell_alone_needs_no_number_of_cells(left, clock):
    left.here("a", 0.0)
    clock.now = 30.0
    left.here("a", 0.25)
    assert left.seconds() == pytest.approx(90)


def test_durations_are_written_for_people():
    assert doctest.testmod(time_left).failed == 0
