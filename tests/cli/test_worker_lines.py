"""An epoch that a process elsewhere has ended is one line, at most one a minute for each process."""

from dataclasses import replace

import pytest

from mlrpl_bench.cli.worker_lines import EndedEpochs, worker_line
from mlrpl_bench.records.leases.presence import AtWork
from tests.helpers.clock import Clock

ONE = AtWork("a", "far", 7, "H100", 3, 0, 4, 1, 40, None, None, 80.0, 130.0)
DONE = replace(ONE, epoch=1, step=10, loss=0.75, test_mAP=45.67)


@pytest.fixture
def clock():
    return Clock()


def test_a_line_names_who_trains_how_many_cells_and_what_came_of_the_epoch():
    line = "far 7 (H100): 3 cells, epoch 1/4: loss 0.7500, mAP 45.7, 80 images/s, 2 min left"
    assert worker_line(DONE) == line
    unknown = replace(DONE, loss=None, test_mAP=None)
    assert worker_line(unknown) == line.replace("0.7500, mAP 45.7", "nan")


def test_an_epoch_is_told_of_once_and_the_next_after_a_minute(clock):
    ended, told = EndedEpochs(60.0, clock), []
    for epoch, now in ((0, 0), (1, 10), (1, 20), (2, 40), (2, 70), (3, 90), (4, 95), (4, 99)):
        clock.now = now
        told += [(each.epoch, now) for each in ended.news([replace(ONE, epoch=epoch)])]
    assert told == [(1, 10), (2, 70), (4, 95)]  # the last of a group does not wait


def test_each_process_has_a_minute_of_its_own(clock):
    other = replace(DONE, owner="b")
    assert list(EndedEpochs(60.0, clock).news([DONE, other])) == [DONE, other]


def test_another_group_of_the_same_process_begins_at_the_first_epoch(clock):
    ended = EndedEpochs(0.0, clock)
    told = [each.epoch for epoch in (3, 0, 1, 1, 2) for each in ended.news([replace(ONE, epoch=epoch)])]
    assert told == [3, 1, 2]
