"""Each line of the log for machines is one JSON object that says what happened."""

import math
from dataclasses import replace

import pytest

from mlrpl_bench.cli.json_log import JsonLog
from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.launchers.events import Began, FoundFinished, Waiting
from mlrpl_bench.training.trainer import EpochDone, Failed, Note, StepDone
from tests.helpers.clock import Clock
from tests.helpers.command import logged
from tests.helpers.tiny_study import cell, finished


@pytest.fixture
def lines(capsys):
    return lambda: logged(capsys.readouterr().err)


def test_a_group_and_each_of_its_epochs_are_lines(lines):
    with JsonLog(Clock()) as log:
        log.event("a", 2, Began(1, 3, 4, (0.1,)))
        for epoch in (0, 1):
            log.event("a", 2, StepDone(epoch, 3, 3))
            log.event("a", 2, EpochDone(cell(), {"epoch": epoch, "loss.a": math.nan, "test.mAP": 0.5}))
        log.event("a", 2, replace(finished(cell()), seconds=1.5))
    group, first, second, end = lines()
    assert group == {"event": "group", "epochs": 2, "cells": 1, "steps_per_epoch": 3, "batch": 4, "rates": [0.1]}
    assert first["event"] == second["event"] == "epoch"
    assert (first["epoch"], first["epochs"], first["cells"], first["test_mAP"]) == (1, 2, 1, 50.0)
    assert first["loss"] is None  # JSON has no number for it
    assert end["event"] == "finished" and end["cell"] == "a" and end["seconds"] == 1.5
    assert end["test_mAP"] == pytest.approx(100 * finished(cell()).metrics["mAP"], abs=1e-5)


def test_a_step_is_a_line_where_an_epoch_takes_long(lines):
    clock = Clock()
    log = JsonLog(clock)
    log.event("a", 2, Began(2, 10, 4, (0.1, 0.1)))
    for step in range(1, 4):
        clock.now += 40.0
        log.event("a", 2, StepDone(0, step, 10))
    assert lines()[1:] == [
        {"event": "step", "epoch": 1, "step": 2, "steps_per_epoch": 10, "cells": 2, "epochs": 2}
        | {"images_per_second": 0.2, "seconds_left": 720.0}
    ]


def test_whatever_else_happens_to_a_cell_is_a_line(lines):
    log = JsonLog()
    log.event("a", 2, Waiting(3, ("here", "there")))
    log.event("a", 2, Note(cell(), "goes on"))
    log.event("a", 2, FoundFinished(cell()))
    log.event("a", 2, Failed(cell(), "it broke", ""))
    assert lines() == [
        {"event": "waiting", "cells": 3, "hosts": ["here", "there"]},
        {"event": "note", "cell": "a", "text": "goes on"},
        {"event": "finished elsewhere", "cell": "a"},
        {"event": "failed", "cell": "a", "reason": "it broke"},
    ]


def test_words_for_people_are_lines_too(lines):
    log = JsonLog()
    log.note("a note")
    log.warn("odd")
    log.problem("damaged")
    assert [line["event"] for line in lines()] == ["note", "warning", "problem"]


def test_the_number_of_cells_is_told_when_it_changes(lines):
    log = JsonLog()
    for done in (0, 0, 1, 1, 2):
        log.cells(done, 2)
    assert [line["done"] for line in lines()] == [0, 1, 2]


def test_a_preparation_is_told_once_a_minute_and_at_its_end(lines):
    clock = Clock()
    log = JsonLog(clock)
    for done in range(1, 11):
        log.report("reading", done, 10)
        clock.now += 20
    clock.now += 100
    log.report("reading", 1, 10)  # begins again
    assert [(line["what"], line["done"]) for line in lines()] == [("reading", 4), ("reading", 7), ("reading", 10)]


def test_what_a_process_elsewhere_has_done_is_told_with_its_node(lines, tmp_path):
    log, one = JsonLog(Clock()), cell()
    at_work = AtWork("a", "far", 7, "H100", 3, 1, 4, 13, 40, 0.75, 45.0, 80.0, 130.0)
    log.workers([at_work])
    log.workers([at_work])
    record = ResultStore(tmp_path).write(finished(one), {"node": "far"})
    log.event("a", 2, FoundFinished(one, record))
    epoch, end = lines()
    assert epoch == {
        "event": "epoch",
        **{"node": "far", "process": 7, "device": "H100", "cells": 3, "epoch": 1, "epochs": 4},
        **{"loss": 0.75, "test_mAP": 45.0, "images_per_second": 80.0, "seconds_left": 130.0},
    }
    assert (end["event"], end["node"], end["seconds"]) == (
        "finished elsewhere",
        "far",
        record.content["cost"]["seconds"],
    )
    assert end["test_mAP"] == pytest.approx(100 * record.metrics["mAP"], abs=1e-5)
