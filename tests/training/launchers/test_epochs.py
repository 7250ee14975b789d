"""An epoch of a group is told of once, when all of its cells have ended it."""

import math

import pytest

from mlrpl_bench.training.launchers.epochs import Epoch, Epochs, Silences
from mlrpl_bench.training.launchers.events import Began
from mlrpl_bench.training.trainer import EpochDone, Failed, Note, StepDone
from tests.helpers.clock import Clock
from tests.helpers.tiny_study import cell


@pytest.fixture
def clock():
    return Clock(100.0)


def ends(epoch: int, loss: float, precision: float) -> EpochDone:
    return EpochDone(cell(), {"epoch": epoch, "loss.a": loss, "loss.b": 1.0, "test.mAP": precision})


def group(epochs: Epochs, clock: Clock, number: int = 3, seconds: float = 10) -> list[Epoch]:
    """Two cells, ten steps of eight images an epoch."""
    told = [epochs.hear(number, Began(2, 10, 8, (0.1, 0.2)))]
    for epoch in range(number):
        told += [epochs.hear(number, StepDone(epoch, step, 10)) for step in range(1, 11)]
        clock.now += seconds
        told += [epochs.hear(number, ends(epoch, 0.5, 0.4)), epochs.hear(number, ends(epoch, 1.5, 0.6))]
        told.append(epochs.hear(number, Note(cell(), "a checkpoint cannot be written")))
    told.append(epochs.hear(number, StepDone(number, 1, 10)))
    return [each for each in told if each is not None]


def test_an_epoch_has_the_means_over_its_cells_and_the_time_that_is_left(clock):
    first, second, third = group(Epochs(0, clock), clock)
    assert first == Epoch(2, 1, 3, loss=2.0, test_mAP=50.0, images_per_second=16.0, seconds_left=20.0)
    assert (second.epoch, second.seconds_left) == (2, 10.0)
    assert (third.epoch, third.seconds_left) == (3, 0.0)


def test_the_time_left_is_that_of_the_last_two_epochs_as_methods_that_begin_to_blend_take_longer(clock):
    epochs, told = Epochs(0, clock), []
    epochs.hear(6, Began(1, 10, 8, (0.1,)))
    for epoch, seconds in enumerate((10, 10, 20, 30, 30, 30)):
        epochs.hear(6, StepDone(epoch, 1, 10))
        clock.now += seconds
        epochs.hear(6, StepDone(epoch, 10, 10))
        epochs.hear(6, ends(epoch, 0.5, 0.5))
        told.append(epochs.hear(6, StepDone(epoch + 1, 1, 10)))
    assert [over.seconds_left for over in told] == [50.0, 40.0, 45.0, 50.0, 30.0, 0.0]
    assert [over.images_per_second for over in told] == pytest.approx([8.0, 8.0, 160 / 30, 3.2, 160 / 60, 160 / 60])


def test_an_epoch_without_evaluation_has_no_map(clock):
    epochs = Epochs(0, clock)
    epochs.hear(3, Began(2, 10, 8, (0.1, 0.2)))
    epochs.hear(3, StepDone(0, 10, 10))
    for _ in range(2):
        epochs.hear(3, ends(0, 0.5, math.nan))
    over = epochs.hear(3, StepDone(1, 1, 10))
    assert (over.loss, over.test_mAP, epochs.standing["test_mAP"]) == (1.5, None, None)


def test_epochs_that_follow_soon_are_left_out_but_the_last_is_told(clock):
    assert [each.epoch for each in group(Epochs(25, clock), clock, number=6)] == [1, 4, 6]


def test_a_group_without_a_step_here_tells_nothing(clock):
    epochs = Epochs(0, clock)
    epochs.hear(3, Began(2, 10, 8, (0.1, 0.2)))
    epochs.hear(3, ends(0, 0.5, 0.5))
    assert epochs.hear(3, StepDone(1, 1, 10)) is None


def test_how_far_a_group_is_stands_there_at_every_step(clock):
    epochs = Epochs(0, clock)
    assert epochs.standing == {}
    epochs.hear(3, Began(2, 10, 8, (0.1, 0.2)))
    step = StepDone(0, 1, 10)
    clock.now += 2.0
    epochs.hear(3, step)
    epochs.hear(3, step)  # each cell's
    assert epochs.standing == {
        **{"cells": 2, "epoch": 0, "epochs": 3, "step": 1, "steps": 30},
        **{"images_per_second": 8.0, "seconds_left": 58.0},
    }
    for event in (StepDone(0, 10, 10), ends(0, 0.5, 0.4), ends(0, 1.5, 0.6), StepDone(1, 1, 10)):
        epochs.hear(3, event)
    assert (epochs.standing["epoch"], epochs.standing["step"], epochs.standing["test_mAP"]) == (1, 11, 50.0)
    assert epochs.standing["loss"] == 2.0
    epochs.hear(3, Failed(cell(), "it broke", ""))
    assert epochs.standing["cells"] == 1
    epochs.hear(3, Failed(cell(), "it broke", ""))
    assert epochs.standing == {}


def test_a_group_that_goes_on_counts_only_the_steps_made_here(clock):
    epochs = Epochs(0, clock)
    epochs.hear(3, Began(1, 10, 8, (0.1,)))
    clock.now += 2.0
    epochs.hear(3, StepDone(2, 1, 10))
    assert (epochs.standing["step"], epochs.standing["images_per_second"]) == (21, 4.0)
    assert epochs.standing["seconds_left"] == 18.0


def test_a_note_ends_an_epoch_that_all_cells_have_ended_and_no_other(clock):
    epochs, note = Epochs(0, clock), Note(cell(), "went nowhere")
    epochs.hear(3, Began(2, 10, 8, (0.1, 0.2)))
    epochs.hear(3, StepDone(2, 10, 10))
    assert [epochs.hear(3, event) for event in (ends(2, 0.5, 0.5), note, ends(2, 0.5, 0.5))] == [None] * 3
    over = epochs.hear(3, note)
    assert (over.epoch, over.cells) == (3, 2) and epochs.hear(3, note) is None


def test_a_step_is_due_after_a_minute_of_silence_and_then_after_five_and_an_epochs_line_ends_one(clock):
    silences, step = Silences(clock), StepDone(0, 1, 10)
    clock.now += 1000
    assert not silences.due(step, is_told=False)  # no group has begun
    assert not silences.due(Began(2, 10, 8, (0.1, 0.2)), is_told=False)
    due = []
    for number in range(1, 20):
        clock.now += 50
        told = number == 9
        if silences.due(step, told):
            due.append(number)
        assert not silences.due(ends(0, 0.5, 0.4), is_told=False)  # no step
    assert due == [2, 8, 15]
