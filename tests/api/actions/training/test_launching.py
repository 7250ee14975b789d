"""What the results folder says of cells that others train, and how failures come back."""

import os
import platform

import pytest

from mlrpl_bench.api.actions.training import cells, launching
from mlrpl_bench.launchers import starting
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import Placement
from mlrpl_bench.records.leases import lease
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.training import checkpoint
from mlrpl_bench.training.launchers.events import FoundFinished
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Failed
from tests.helpers.tiny_study import finished


class Told:
    """A watcher that keeps what it is told of cells."""

    def __init__(self):
        self.events, self.counts, self.at_work, self.notes = [], [], [], []

    def event(self, title, epochs, event):
        self.events.append((title, event))

    def cells(self, done, total):
        self.counts.append((done, total))

    def workers(self, at_work):
        self.at_work = at_work

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def jobs(resolved):
    return cells.jobs_of(resolved, Study(resolved.dataset, resolved.request.options))[0]


def test_a_cell_is_left_until_it_has_a_record_or_has_failed_anew(resolved, jobs):
    store, told = resolved.store, Told()
    store.write_failure(jobs[2].cell, "before", "")
    found = launching.CellsInFolder(jobs, store, told)
    assert found.left == [job.cell.title for job in jobs] and found.free == 3
    store.write(finished(jobs[0].cell), {})
    store.write_failure(jobs[1].cell, "it broke", "")
    found.look()
    found.look()
    assert found.left == [jobs[2].cell.title]
    assert [(title, type(event)) for title, event in told.events] == [
        (jobs[0].cell.title, FoundFinished),
        (jobs[1].cell.title, Failed),
    ]
    assert [(each.cell, each.reason) for each in found.failures()] == [(jobs[1].cell, "it broke")]
    assert told.counts[-1] == (2, 3)
    assert told.events[0][1].record.metrics["mAP"] == store.find(jobs[0].cell).metrics["mAP"]


def test_who_trains_the_cells_elsewhere_is_told_from_the_folder(resolved, jobs):
    among, told = resolved.store.root / "tiny", Told()
    standing = {"cells": 3, "epoch": 1, "epochs": 4, "step": 13, "steps": 40, "images_per_second": 8.0}
    owner = Owner(says=lambda: {**standing, "seconds_left": 9.5, "device": "a CPU"})
    owner.announce(among)
    found = launching.CellsInFolder(jobs, resolved.store, told)
    assert told.at_work == []
    owner.beat()
    found.look()
    (each,) = told.at_work
    assert (each.process, each.device, each.cells, each.step) == (os.getpid(), "a CPU", 3, 13)


def test_a_record_that_cannot_be_read_ends_its_cell_all_the_same(resolved, jobs):
    told = Told()
    found = launching.CellsInFolder(jobs, resolved.store, told)
    record = resolved.store.write(finished(jobs[0].cell), {})
    (record.folder / "record.json").write_text("{")
    found.look()
    assert told.events == [(jobs[0].cell.title, FoundFinished(jobs[0].cell, None))]


def test_a_cell_is_free_if_nobody_trains_it_or_its_owner_fell_silent(resolved, jobs, monkeypatch):
    Owner().take(resolved.store.folder(jobs[0].cell))
    found = launching.CellsInFolder(jobs, resolved.store, Told())
    assert found.free == 2
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.0)
    found.look()
    assert found.free == 3


def test_checkpoints_and_records_are_progress_and_heartbeats_are_none(resolved, jobs):
    found = launching.CellsInFolder(jobs, resolved.store, Told())
    seen = [found.progress]
    owner = Owner()
    owner.take(resolved.store.folder(jobs[0].cell))
    owner.beat()
    found.look()
    assert found.progress == seen[0]
    for act in (
        lambda: checkpoint.write(resolved.store.folder(jobs[0].cell), jobs[0].cell, {"epoch": 0, "step": 1}),
        lambda: resolved.store.write(finished(jobs[1].cell), {}),
    ):
        act()
        found.look()
        assert found.progress not in seen
        seen.append(found.progress)


def test_a_launcher_is_given_the_order_and_what_fails_meanwhile_comes_back(resolved, jobs, monkeypatch):
    given = []

    def start(launch):
        given.append(launch)
        resolved.store.write_failure(jobs[0].cell, "it broke", "")

    monkeypatch.setattr(starting, "start", start)
    resolved.store.write_failure(jobs[1].cell, "before", "")
    failed = launching.launch(jobs, resolved, Told(), Placement("print", workers=3))
    assert [(each.cell, each.reason) for each in failed] == [(jobs[0].cell, "it broke")]
    (launch,) = given
    assert (launch.order.planned, launch.order.launcher) == (3, "print")
    assert list(launch.order.failed) == [jobs[1].cell.key]
    assert WorkOrder.read(launch.path) == launch.order


def test_whoever_trains_in_the_folder_already_is_named(resolved, jobs, monkeypatch):
    monkeypatch.setattr(starting, "start", lambda launch: None)
    told = Told()
    launching.launch(jobs, resolved, told, Placement("print"))
    assert told.notes == []
    standing = {"epoch": 0, "epochs": 2, "step": 1, "steps": 9, "images_per_second": 8.0, "seconds_left": 9.5}
    with Owner(says=lambda: {"cells": 3, "device": "cpu", **standing}) as other:
        other.announce(resolved.store.root / resolved.dataset.name, set())
        other.beat()
        launching.launch(jobs, resolved, told, Placement("print"))
    (note,) = told.notes
    name = f"{platform.node()} {os.getpid()}"
    assert note == f"others train in this folder already ({name}); workers are started beside them"
