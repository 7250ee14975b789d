"""Every launcher that can be named can be started, and is started by its name."""

import dataclasses

import pytest

from mlrpl_bench.launchers import local, printed, ray, starting, submitit
from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import LAUNCHERS, Placement

MODULES = {"local": local, "print": printed, "ray": ray, "submitit": submitit}
LAUNCH = Launch(WorkOrder({}, "", 1, "", {}, {}), None, Placement(), None, dict, print)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_is_found_by_its_name(name, monkeypatch):
    started = []
    for each, module in MODULES.items():
        monkeypatch.setattr(module, "start", lambda launch, each=each: started.append(each))
    starting.start(dataclasses.replace(LAUNCH, placement=Placement(name)))
    assert started == [name]


def test_what_is_no_launcher_cannot_be_started():
    with pytest.raises(ValueError, match="nobody"):
        starting.start(dataclasses.replace(LAUNCH, placement=Placement("nobody")))


def test_the_launchers_that_are_waited_for_are_launchers():
    assert set(starting.WAITING) < set(LAUNCHERS)


def test_the_number_of_workers_is_what_was_asked_for_or_one(monkeypatch):
    assert starting.planned_workers(Placement("print", workers=7), "auto") == 7
    assert starting.planned_workers(Placement("ray"), "auto") == 1
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1"])
    assert starting.planned_workers(Placement("local"), "auto") == 2
