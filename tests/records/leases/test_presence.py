"""Processes that train say in the folder how far they are; whatever is no such word is passed over."""

import json
import os
import platform

import pytest

from mlrpl_bench.records.leases import lease
from mlrpl_bench.records.leases.claims import PRESENT_FOLDER, PROGRESS
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.leases.presence import AtWork, at_work

STANDING = {"device": "a CPU", "cells": 3, "epoch": 1, "epochs": 4, "step": 13, "steps": 40}
STANDING |= {"loss": 0.5, "test_mAP": 40.0, "images_per_second": 8.0, "seconds_left": 9.5}


@pytest.fixture
def said():
    return dict(STANDING)


@pytest.fixture
def owner(tmp_path, said):
    owner = Owner(says=lambda: said)
    owner.announce(tmp_path)
    return owner


def path_of(owner, among):
    return among / PRESENT_FOLDER / owner.id / PROGRESS


def test_what_a_process_says_at_its_heartbeat_is_read(owner, tmp_path):
    assert at_work(tmp_path, Owner()) == []
    owner.beat()
    (found,) = at_work(tmp_path, Owner())
    assert found == AtWork(owner=owner.id, node=platform.node(), process=os.getpid(), **STANDING)
    assert found.name == f"{platform.node()} {os.getpid()}"


def test_before_the_first_epoch_has_ended_there_is_neither_loss_nor_map(owner, said, tmp_path):
    del said["loss"], said["test_mAP"]
    owner.beat()
    (found,) = at_work(tmp_path, Owner())
    assert (found.loss, found.test_mAP) == (None, None)


def test_it_is_written_anew_only_where_it_has_changed(owner, said, tmp_path):
    owner.beat()
    before = path_of(owner, tmp_path).stat()
    owner.beat()
    assert path_of(owner, tmp_path).stat().st_mtime_ns == before.st_mtime_ns
    said["step"] = 14
    owner.beat()
    assert at_work(tmp_path, Owner())[0].step == 14


def test_who_trains_nothing_who_ended_and_who_fell_silent_is_left_out(owner, said, tmp_path, monkeypatch):
    owner.beat()
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.0)
    assert at_work(tmp_path, Owner()) == []
    monkeypatch.undo()
    said.clear()
    owner.beat()
    assert at_work(tmp_path, Owner()) == []
    said.update(STANDING)
    owner.beat()
    assert len(at_work(tmp_path, Owner())) == 1
    with owner:
        pass
    assert at_work(tmp_path, Owner()) == [] and not (tmp_path / PRESENT_FOLDER).exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", json.dumps({"cells": 3}), json.dumps({**STANDING, "epoch": "x"})]
    + [json.dumps({**STANDING, "seconds_left": value}) for value in (float("inf"), None)],
)
def test_a_damaged_word_is_passed_over(owner, tmp_path, text):
    path_of(owner, tmp_path).write_text(text)
    assert at_work(tmp_path, Owner()) == []


def test_a_disk_without_room_for_it_is_no_obstacle(owner, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease, "write_atomically", full)
    owner.beat()
    assert owner.holds(tmp_path / PRESENT_FOLDER / owner.id)
    monkeypatch.undo()
    owner.beat()
    assert len(at_work(tmp_path, Owner())) == 1
