"""Entries by name, with those that are made of two names when they are asked for."""

from pathlib import Path

import pytest

from mlrpl_bench.models.entries import Entries, StepEntry
from mlrpl_bench.models.finishing import FinishingStep
from tests.helpers.plain_method import Plain, entry_of


@pytest.fixture
def entries():
    steps = {"step": StepEntry("step", FinishingStep, Path(__file__))}
    found = Entries(steps)
    found["plain"] = entry_of(Plain)
    return found


def test_a_name_of_a_method_and_a_step_is_there_and_not_listed(entries):
    assert "plain+step" in entries and entries["plain+step"] is entries["plain+step"]
    assert entries.get("plain+step").step.name == "step"
    assert list(entries) == ["plain"] and len(entries.values()) == 1


@pytest.mark.parametrize("name", ["step", "+step", "plain+", "plain+other", "other+step", "plain+step+step", ""])
def test_no_other_name_is_there(name, entries):
    assert name not in entries and entries.get(name) is None and entries.get(name, 3) == 3
    with pytest.raises(KeyError):
        entries[name]
