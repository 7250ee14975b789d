"""What others make of the cells that a process is to train counts, and what they train besides does not."""

import os
from types import SimpleNamespace

import pytest

from mlrpl_bench.api.actions.training import elsewhere
from mlrpl_bench.api.actions.training.elsewhere import Elsewhere
from mlrpl_bench.records.leases.lease import Owner
from tests.helpers.clock import Clock

STANDING = {"device": "a CPU", "cells": 2, "epoch": 1, "epochs": 4, "step": 10, "steps": 40}
STANDING |= {"loss": 0.5, "test_mAP": 40.0, "images_per_second": 8.0, "seconds_left": 9.5}


class Folder:
    """A results folder of which only the names and the records count."""

    def __init__(self, root):
        self.root, self.records = root, set()

    def folder(self, cell):
        return self.root / "tiny" / cell.name

    def has_own_record(self, cell):
        return cell in self.records


class CellOf:
    def __init__(self, name):
        self.name, self.setting = name, SimpleNamespace(dataset="tiny")


@pytest.fixture
def jobs():
    return [SimpleNamespace(cell=CellOf(name)) for name in "abcd"]


@pytest.fixture
def store(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def other(store, jobs, monkeypatch):
    """A process that has made a quarter of one of our cells and of one that is none of ours."""
    owner = Owner(says=lambda: STANDING)
    owner.announce(store.root / "tiny")
    for cell in (jobs[0].cell, CellOf("none of ours")):
        owner.take(store.folder(cell))
    owner.beat()
    monkeypatch.setattr(os, "getpid", lambda: 1)  # we are another process
    return owner


def test_the_share_of_the_cells_that_are_wanted_here_counts_alone(store, jobs, other):
    found = Elsewhere(jobs, store)
    assert found.look() == {other.id: 0.25} and found.finished == set()


def test_what_others_have_finished_is_seen_while_they_train_and_once_after(store, jobs, other):
    clock = Clock()
    found = Elsewhere(jobs, store, clock)
    found.look()
    store.records.add(jobs[1].cell)
    assert found.look() is None, "it is no time to look again"
    clock.now += elsewhere.LOOK_SECONDS
    assert found.look() == {other.id: 0.25} and found.finished == {jobs[1].cell}
    store.records.add(jobs[0].cell)
    for folder in list(other._numbers):
        other.release(folder)
    clock.now += elsewhere.LOOK_SECONDS
    assert found.look() == {} and found.finished == {jobs[0].cell, jobs[1].cell}


def test_a_process_alone_looks_at_no_cell_and_does_not_count_itself(store, jobs, monkeypatch):
    monkeypatch.setattr(store, "has_own_record", lambda cell: pytest.fail("it is alone"))
    owner = Owner(says=lambda: STANDING)
    owner.announce(store.root / "tiny")
    owner.take(store.folder(jobs[0].cell))
    owner.beat()
    assert Elsewhere(jobs, store).look() == {}


def test_where_looking_takes_long_it_is_done_more_rarely(store, jobs, other, monkeypatch):
    clock = Clock()

    def slow(cell):
        clock.now += 1.0
        return False

    monkeypatch.setattr(store, "has_own_record", slow)
    found = Elsewhere(jobs, store, clock)
    assert found.look() is not None
    clock.now += len(jobs) / elsewhere.PART_OF_THE_TIME - 1
    assert found.look() is None
    clock.now += 1
    assert found.look() is not None
