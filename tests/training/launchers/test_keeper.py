"""Checkpoints are written when one is due or somebody asked to stop, and only of cells that are ours."""

import signal

import pytest

from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training import checkpoint
from mlrpl_bench.training.launchers import keeper
from mlrpl_bench.training.launchers.keeper import Keeper
from mlrpl_bench.training.trainer import StepDone, Working
from mlrpl_bench.utils.shortages import Shortage
from mlrpl_bench.utils.signals import Interrupted, Requests
from tests.helpers.tiny_study import cell


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = [0.0]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def made(store, clock):
    """A keeper that writes every 100 seconds, and the requests that it hears; the cell of seed 0 is ours."""
    owner, requests = Owner(), Requests()
    owner.take(store.folder(cell()))
    return Keeper(store, 100.0, requests, owner), requests


def states(*seeds):
    return lambda: {cell(seed=seed): {"epoch": 0, "step": 1} for seed in seeds}


def is_kept(store, seed=0) -> bool:
    return (store.folder(cell(seed=seed)) / checkpoint.FILE).exists()


@pytest.mark.parametrize(
    ("seconds", "step", "kept"), [(99, 1, False), (100, 1, True), (9, 3, False), (10, 3, True), (10, 2, False)]
)
def test_a_checkpoint_is_written_when_one_is_due_and_sooner_at_an_epochs_end(made, store, clock, seconds, step, kept):
    clock[0] = seconds
    assert list(made[0].after(StepDone(0, step, 3, states(0)))) == []
    assert is_kept(store) is kept


def test_the_next_one_is_due_as_long_after_the_last(made, store, clock):
    for clock[0], kept in ((100, True), (150, False), (200, True)):
        list(made[0].after(StepDone(0, 1, 3, states(0))))
        assert is_kept(store) is kept
        checkpoint.remove(store.folder(cell()))


@pytest.mark.parametrize("look", ["after", "between"])
def test_who_asks_to_stop_is_obeyed_after_the_checkpoints_were_written(made, store, look):
    made[1].number = signal.SIGTERM
    event = StepDone(0, 1, 3, states(0)) if look == "after" else Working(states(0))
    with pytest.raises(Interrupted):
        list(getattr(made[0], look)(event))
    assert is_kept(store)


def test_nothing_is_written_while_images_are_scored_unless_somebody_asks(made, store, clock):
    clock[0] = 1000
    assert list(made[0].between(Working(states(0)))) == []
    assert not is_kept(store)


def test_of_a_cell_that_is_not_ours_nothing_is_written(made, store):
    list(made[0].write(StepDone(0, 1, 3, states(0, 1))))
    assert is_kept(store, 0) and not is_kept(store, 1)


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError(5, "Input/output error"), "Input/output error"), (MemoryError(), "no memory left")]
)
def test_a_checkpoint_that_cannot_be_written_is_a_note(made, monkeypatch, error, reason):
    def fail(*_):
        raise error

    monkeypatch.setattr(checkpoint, "write", fail)
    (note,) = made[0].write(StepDone(0, 1, 3, states(0)))
    assert note.text == f"its checkpoint cannot be written ({reason}); training goes on without"


def test_a_full_disk_ends_the_run(made, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", fail)
    with pytest.raises(Shortage, match="No space left on device"):
        list(made[0].write(StepDone(0, 1, 3, states(0))))
