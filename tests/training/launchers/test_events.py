"""A sweep's events: which of them end a cell, and what a stored one keeps of the training."""

from mlrpl_bench.training.launchers.events import FoundFinished, Stored, Waiting, ends_a_cell
from mlrpl_bench.training.trainer import EpochDone, Failed, Note, StepDone
from tests.helpers.tiny_study import cell, finished


def test_only_what_is_finished_or_failed_ends_a_cell():
    one = cell()
    through = [finished(one), FoundFinished(one), Failed(one, "", "")]
    goes_on = [StepDone(0, 1, 10), EpochDone(one, {"epoch": 0.0}), Note(one, ""), Waiting(1, ())]
    assert all(ends_a_cell(event) for event in through)
    assert not any(ends_a_cell(event) for event in goes_on)


def test_a_stored_cell_has_all_that_training_left_and_its_record():
    one, record = finished(cell()), object()
    stored = Stored.from_finished(one, record)
    assert stored.record is record and stored.scores_NC is one.scores_NC and stored.history == one.history
    assert ends_a_cell(stored)
