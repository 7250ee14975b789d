"""The driver keeps workers going, starts new ones for those that died, and gives up on what never gets anywhere."""

import dataclasses
import os
import signal
from types import SimpleNamespace

import pytest

from mlrpl_bench.launchers import driver
from mlrpl_bench.launchers.driver import Ended, drive
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.signals import Interrupted


class World:
    """Cells that pretended workers train, one a worker and a look; as a folder and as a pool of workers.

    Args:
        ends: for each worker in the order of their starts how it ends, or None for one that does its cell.
    """

    def __init__(self, cells: int, size: int, *ends: Ended | None) -> None:
        self.cells, self.size, self.ends = cells, size, list(ends)
        self.at_work: list[tuple[str, Ended | None]] = []
        self.most: list[int | None] = []
        self.highest, self.stopped, self.said = 0, False, []
        self.ends_next = 0  # the worker that was started first

    def look(self):
        pass

    @property
    def left(self):
        return [f"cell {number}" for number in range(self.cells)]

    @property
    def free(self):
        return self.cells - min(self.cells, len(self.at_work))

    @property
    def progress(self):
        return self.cells

    @property
    def running(self):
        return len(self.at_work)

    def room(self):
        return self.size

    def start(self, most):
        self.most.append(most)
        name = f"worker {len(self.most)}"
        self.at_work.append((name, self.ends.pop(0) if self.ends else None))
        self.highest = max(self.highest, len(self.at_work))
        return name

    def wait(self, seconds):
        if not self.at_work:
            return []
        name, end = self.at_work.pop(self.ends_next)
        if end is None:
            self.cells -= 1
            end = Ended(name, 0)
        return [dataclasses.replace(end, name=name)]

    def stop(self):
        self.stopped = True

    def drive(self, **options):
        drive(self, self, self.said.append, **options)


DIED = Ended("worker", None, "killed by SIGKILL")
KILLED = Ended("worker", None, "out of memory", out_of_memory=True)


@pytest.mark.parametrize(("cells", "size", "highest"), [(7, 3, 3), (2, 8, 2), (1, 1, 1)])
def test_as_many_workers_run_as_there_is_work_and_room(cells, size, highest):
    world = World(cells, size)
    world.drive()
    assert (world.cells, world.highest, len(world.most)) == (0, highest, cells)


def test_no_more_workers_are_started_than_cells_are_left_though_they_have_taken_none_yet(monkeypatch):
    monkeypatch.setattr(World, "free", property(lambda self: self.cells))
    world = World(2, 8)
    world.drive()
    assert (world.cells, world.highest) == (0, 2)


def test_nothing_is_started_where_nothing_is_left():
    world = World(0, 3)
    world.drive()
    assert world.most == []


def test_a_worker_that_died_is_replaced_and_trains_as_many_side_by_side():
    world = World(3, 2, DIED)
    world.drive(most=6)
    assert world.cells == 0 and world.most == [6] * 4
    assert world.said == ["worker 1 ended before its work was done (killed by SIGKILL)"]


def test_after_a_death_for_memory_half_as_many_are_trained_side_by_side():
    world = World(3, 1, KILLED)
    world.drive(most=6)
    assert world.most == [6, 3, 3, 3]
    assert "from now on at most 3 cells are trained side by side" in world.said[-1]
    unlimited = World(2, 1, KILLED)
    unlimited.drive()
    assert unlimited.most == [None, driver.ASSUMED // 2, driver.ASSUMED // 2]


def test_three_workers_in_succession_that_leave_nothing_behind_are_the_last():
    world = World(5, 1, DIED, DIED, DIED)
    with pytest.raises(
        UserError, match=r"gave up: 3 workers in succession .*; left: cell 0, cell 1, cell 2 and 2 more"
    ):
        world.drive()
    assert len(world.most) == 3 and world.stopped


@pytest.mark.parametrize(("free", "code", "in_vain"), [(1, 0, 1), (1, None, 1), (0, None, 1), (0, 0, 0), (0, 1, 0)])
def test_a_worker_that_ends_well_as_others_train_all_that_is_left_is_no_try(free, code, in_vain):
    tries, folder = driver._Tries(None), SimpleNamespace(free=free, progress="as before")
    tries.began("worker", folder.progress)
    tries.ended(Ended("worker", code), folder)
    assert tries.in_vain == in_vain


def test_a_worker_that_gets_somewhere_makes_up_for_those_that_died_before():
    world = World(5, 1, DIED, DIED, None, DIED, DIED, None)
    world.drive()
    assert world.cells == 0


def test_workers_that_are_lost_together_count_as_one_try():
    """A zone of a cloud may take all of its machines away at once."""
    world = World(8, 4, *4 * [DIED])
    world.drive()
    assert world.cells == 0 and len(world.most) == 8 + 4


def test_workers_that_are_lost_together_after_they_got_somewhere_count_as_none():
    world = World(6, 4, None, DIED, DIED, DIED)
    world.drive()
    assert world.cells == 0


def test_each_set_of_lost_workers_is_a_try_of_its_own():
    world = World(8, 2, *6 * [DIED])
    together = world.wait
    world.wait = lambda seconds: together(seconds) + together(seconds)
    with pytest.raises(UserError, match="gave up: 3 workers in succession"):
        world.drive()
    assert len(world.most) == 6


def test_workers_that_are_killed_for_memory_together_halve_the_groups_once():
    world = World(6, 3, KILLED, KILLED, KILLED)
    world.drive(most=8)
    assert world.most[:3] == [8, 8, 8] and set(world.most[3:]) == {4}


def test_groups_do_not_grow_again_when_a_worker_with_larger_ones_is_killed_for_memory_later():
    world = World(3, 2, KILLED, KILLED, KILLED)
    world.ends_next = -1
    world.drive(most=8)
    assert world.most == [8, 8, 4, 2, 2, 2]


def test_what_no_worker_can_do_stops_all_in_one_line():
    world = World(5, 2, None, Ended("worker", 2, node="far", line="error: --data-root /x is not there on far"))
    with pytest.raises(UserError, match=r"^worker 2 on far: --data-root /x is not there on far$"):
        world.drive()
    assert world.stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_is_heard_between_two_looks_and_stops_the_workers(number):
    """A library in which the signal arrives is not torn from its work."""
    world, looks = World(5, 2), []

    def wait(seconds):
        os.kill(os.getpid(), number)
        looks.append(seconds)
        return []

    world.wait = wait
    with pytest.raises(Interrupted):
        world.drive()
    assert world.stopped and len(looks) == 1
