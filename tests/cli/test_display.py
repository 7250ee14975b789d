"""Without a terminal a cell is one line at its end; with one, bars move meanwhile."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from mlrpl_bench.cli.display import Display
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools.conformance.sample import Sample
from mlrpl_bench.training.launchers.events import Began, FoundFinished, Waiting
from mlrpl_bench.training.trainer import EpochDone, Failed, Note, StepDone, train
from tests.helpers.plain_method import Plain, entry_of

TITLE = "sarb[prototypes=5] 10 % seed 0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    sample = Sample(entry_of(Plain), tmp_path_factory.mktemp("images"))
    (*_, end) = train([sample.job()], sample.workbench())
    assert isinstance(end, Finished)
    return replace(end, metrics={**end.metrics, "mAP": 0.61849}, seconds=12.6)


@pytest.fixture
def cell(finished):
    return finished.cell


@pytest.fixture
def display(capsys):  # standard error must be caught before a console is made
    with Display() as display:
        yield display


@pytest.fixture
def bars_of(monkeypatch):
    """What the live bars of a display say at the moment, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "50")

    def bars_of(display):
        console = Console(file=io.StringIO(), force_terminal=False, width=200)
        console.print(display.progress.get_renderable())
        return console.file.getvalue()

    return bars_of


@pytest.fixture
def bars(bars_of, display):
    """What the live bars say at the moment."""
    return lambda: bars_of(display)


def epoch_done(cell, epoch):
    row = {"epoch": epoch, "loss.a": 0.25, "loss.b": 0.5, "learning_rate": 1e-3, "test.mAP": 0.4567}
    return EpochDone(cell, row)


def test_a_finished_cell_is_a_line_with_its_name_and_map(display, capsys, finished):
    display.event(TITLE, 4, StepDone(0, 1, 10))
    display.event(TITLE, 4, finished)
    assert capsys.readouterr().err == f"{TITLE}: mAP 61.8 in 13 s\n"


def test_a_failed_cell_is_a_line_with_its_name_and_the_reason(display, capsys, cell):
    display.event(TITLE, 4, Failed(cell, "loss term 'bce' is nan at epoch 1, step 2", "Traceback ..."))
    assert capsys.readouterr().err == f"{TITLE}: failed, loss term 'bce' is nan at epoch 1, step 2\n"


def test_a_long_reason_is_not_broken_into_lines(display, capsys, cell):
    display.event(TITLE, 4, Failed(cell, "reason " * 60, ""))
    assert capsys.readouterr().err.count("\n") == 1


def test_a_log_file_gets_the_lines_of_the_cells_and_nothing_else(capsys, finished):
    with Display() as display:
        display.report("pre-training the backbone", 1, 1)
        display.cells(0, 1)
        display.event(TITLE, 4, StepDone(0, 1, 10))
        display.event(TITLE, 4, finished)
        display.cells(1, 1)
    assert capsys.readouterr().err == f"{TITLE}: mAP 61.8 in 13 s\n"


def test_standard_output_stays_free_for_the_table(display, capsys, finished):
    display.event(TITLE, 4, finished)
    assert capsys.readouterr().out == ""


def test_steps_and_epochs_alone_write_nothing_into_a_log_file(display, capsys, cell):
    for step in range(10):
        display.event(TITLE, 4, StepDone(0, step + 1, 10))
    display.event(TITLE, 4, epoch_done(cell, 0))
    assert capsys.readouterr().err == ""


def test_the_bar_of_a_group_counts_its_cells_and_the_steps_of_all_epochs(display, bars):
    display.event(TITLE, 4, Began(2, 10, 8, (1e-3, 2e-3)))
    for title in (TITLE, "ssgrl 10 % seed 0"):
        display.event(title, 4, StepDone(2, 3, 10))
    assert "training 2 cells" in bars() and "23/40" in bars() and "epoch 3/4" in bars()


def test_every_cell_of_a_group_has_a_line_with_its_loss_and_map(display, bars, cell):
    for title in (TITLE, "ssgrl 10 % seed 0"):
        display.event(title, 4, StepDone(1, 10, 10))
    display.event(TITLE, 4, epoch_done(cell, 1))
    lines = [line.rstrip() for line in bars().splitlines()]
    assert f"  {TITLE}  loss 0.7500  mAP 45.7" in lines
    assert "  ssgrl 10 % seed 0" in lines


def test_the_next_group_takes_the_place_of_the_one_before(display, bars):
    display.event(TITLE, 4, StepDone(0, 1, 10))  # its cell is left to another process, without an end here
    display.event("ssgrl 10 % seed 0", 4, Began(1, 20, 8, (1e-3,)))
    display.event("ssgrl 10 % seed 0", 4, StepDone(0, 1, 20))
    assert TITLE not in bars() and "training 1 cell " in bars() and "1/80" in bars()


def test_the_bar_of_all_cells_tells_the_time_that_is_left(finished, bars_of):
    now = [0.0]
    with Display(lambda: now[0]) as display:
        display.cells(0, 9)
        display.event(TITLE, 4, StepDone(0, 0, 10))
        now[0] += 600.0
        display.event(TITLE, 4, StepDone(2, 0, 10))
        assert "2 h 50 min left" in bars_of(display)  # half a cell of nine in ten minutes
        display.event(TITLE, 4, finished)
        display.cells(1, 9)
        assert "1 h 20 min left" in bars_of(display)


def test_a_log_file_tells_the_time_that_is_left_once_a_minute_where_cells_end(capsys, finished):
    now = [0.0]
    with Display(lambda: now[0]) as display:
        for done in range(5):
            display.cells(done, 5)
            display.event(TITLE, 4, StepDone(0, 0, 10))
            now[0] += 40.0
            display.event(TITLE, 4, finished)
        now[0] += 100.0
        display.cells(4, 5)  # no news
        display.cells(5, 5)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(TITLE)]
    assert lines == ["2 of 5 cells done, about 2 min left", "4 of 5 cells done, about 40 s left"]


def test_what_other_processes_make_of_the_cells_counts_for_the_time_that_is_left(display):
    now = [0.0]
    display.time_left.clock = lambda: now[0]
    display.cells(0, 4)
    display.made_elsewhere({"one": 0.0})
    now[0] = 100.0
    display.made_elsewhere({"one": 1.0})
    assert display.time_left.seconds() == pytest.approx(300)


def test_a_dumb_terminal_gets_lines_as_a_log_file_does(monkeypatch, capsys, cell):
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda console: True))
    monkeypatch.setenv("TERM", "dumb")
    with Display() as display:
        display.event(TITLE, 4, Began(2, 10, 8, (1e-3, 2e-3)))
        display.event(TITLE, 4, StepDone(0, 1, 10))
    assert capsys.readouterr().err == "training 2 cells, 4 epochs of 10 steps, learning rate 0.001 to 0.002\n"


def test_brackets_in_a_title_are_shown(display, bars):
    display.event(TITLE, 4, StepDone(0, 1, 10))
    assert TITLE in bars()


def test_the_bar_of_a_cell_goes_when_the_cell_ends(display, bars, finished):
    display.cells(0, 9)
    display.event(TITLE, 4, StepDone(0, 1, 10))
    display.event(TITLE, 4, finished)
    display.cells(1, 9)
    assert TITLE not in bars()
    assert "1/9" in bars()


def test_the_bar_of_a_preparation_goes_when_it_is_done(display, bars):
    display.report("pre-training the backbone", 1, 2)
    assert "pre-training the backbone" in bars() and "1/2" in bars()
    display.report("pre-training the backbone", 2, 2)
    assert "pre-training" not in bars()


def test_a_cell_that_goes_on_at_an_epochs_end_has_no_step_before_it(display, capsys, cell, finished):
    display.event(TITLE, 4, Note(cell, "goes on at epoch 1, step 10"))
    display.event(TITLE, 4, epoch_done(cell, 0))
    display.event(TITLE, 4, finished)
    assert capsys.readouterr().err.split("\n")[0] == f"{TITLE}: goes on at epoch 1, step 10"


def test_waiting_says_for_how_many_cells_and_where(display, capsys):
    display.event(TITLE, 4, Waiting(1, ("here",)))
    display.event(TITLE, 4, Waiting(3, ("here", "there")))
    assert capsys.readouterr().err == (
        "waiting for 1 cell that other processes train, on here\n"
        "waiting for 3 cells that other processes train, on here, there\n"
    )


def test_a_cell_that_another_process_trained_is_a_line(display, capsys, cell):
    display.event(TITLE, 4, FoundFinished(cell))
    assert capsys.readouterr().err == f"{TITLE}: trained by another process\n"


def test_a_cell_that_another_process_trained_has_its_map_from_its_record(display, capsys, cell, finished, tmp_path):
    record = ResultStore(tmp_path).write(finished, {"node": "far"})
    display.event(TITLE, 4, FoundFinished(cell, record))
    assert capsys.readouterr().err == f"{TITLE}: mAP 61.8 in 13 s on far\n"


AT_WORK = AtWork("a", "far", 7, "H100", 3, 1, 4, 13, 40, 0.75, 45.67, 80.0, 130.0)


def test_a_process_elsewhere_has_a_bar_until_it_ends(display, bars, monkeypatch):
    monkeypatch.setattr(display, "is_live", True)
    display.workers([AT_WORK, replace(AT_WORK, owner="b", process=8, epoch=0, test_mAP=None, step=2)])
    first, second = (line for line in bars().splitlines() if line.startswith("far"))
    assert first.startswith("far 7 ") and "13/40" in first and "3 cells, epoch 2/4, mAP 45.7, H100" in first
    assert second.startswith("far 8 ") and "epoch 1/4" in second and "mAP" not in second
    display.workers([replace(AT_WORK, step=21, epoch=2, steps=80)])
    assert "21/80" in bars() and "far 8" not in bars()
    display.workers([])
    assert "far" not in bars()


def test_a_log_file_gets_a_line_for_an_epoch_that_a_process_elsewhere_has_ended(display, capsys):
    display.workers([AT_WORK])
    display.workers([AT_WORK])
    line = "far 7 (H100): 3 cells, epoch 1/4: loss 0.7500, mAP 45.7, 80 images/s, 2 min left\n"
    assert capsys.readouterr().err == line


def train_two_cells(display, now, cell, epochs, steps, seconds):
    """The events of two cells, each step of which takes so many seconds of the clock `now`."""
    display.event(TITLE, epochs, Began(2, steps, 8, (1e-3, 2e-3)))
    for epoch in range(epochs):
        for step in range(steps):
            now[0] += seconds
            for _ in range(2):
                display.event(TITLE, epochs, StepDone(epoch, step + 1, steps))
        for _ in range(2):
            display.event(TITLE, epochs, epoch_done(cell, epoch))


def test_a_log_file_tells_of_a_group_and_of_an_epoch_a_minute_at_most_and_of_the_last(capsys, cell, finished):
    now = [0.0]
    with Display(lambda: now[0]) as display:
        train_two_cells(display, now, cell, 4, 10, 4.0)
        display.event(TITLE, 4, finished)
    assert capsys.readouterr().err.splitlines() == [
        "training 2 cells, 4 epochs of 10 steps, learning rate 0.001 to 0.002",
        "2 cells, epoch 1/4: loss 0.7500, mAP 45.7, 4 images/s, 2 min left",
        "2 cells, epoch 3/4: loss 0.7500, mAP 45.7, 4 images/s, 40 s left",
        "2 cells, epoch 4/4: loss 0.7500, mAP 45.7, 4 images/s, 0 s left",
        f"{TITLE}: mAP 61.8 in 13 s",
    ]


def test_a_log_file_tells_of_steps_where_an_epoch_takes_long(capsys, cell):
    """The first after a minute, which tells the time that is left; later ones after five without a line."""
    now = [0.0]
    with Display(lambda: now[0]) as display:
        train_two_cells(display, now, cell, 2, 100, 10.0)
    assert capsys.readouterr().err.splitlines() == [
        "training 2 cells, 2 epochs of 100 steps, learning rate 0.001 to 0.002",
        "2 cells, epoch 1/2, step 6 of 100: 2 images/s, 32 min left",
        "2 cells, epoch 1/2, step 36 of 100: 2 images/s, 27 min left",
        "2 cells, epoch 1/2, step 66 of 100: 2 images/s, 22 min left",
        "2 cells, epoch 1/2, step 96 of 100: 2 images/s, 17 min left",
        "2 cells, epoch 1/2: loss 0.7500, mAP 45.7, 2 images/s, 17 min left",
        "2 cells, epoch 2/2, step 31 of 100: 2 images/s, 12 min left",
        "2 cells, epoch 2/2, step 61 of 100: 2 images/s, 6 min left",
        "2 cells, epoch 2/2, step 91 of 100: 2 images/s, 2 min left",
    ]


def test_a_log_file_tells_of_a_preparation_that_takes_longer_than_some_seconds(capsys):
    now = [0.0]
    with Display(lambda: now[0]) as display:
        for done in range(1, 41):
            now[0] += 4.0
            display.report("pre-training the backbone", done, 40)
    assert capsys.readouterr().err.splitlines() == [
        "pre-training the backbone: 3 of 40, 8 s",
        "pre-training the backbone: 18 of 40, 1 min",
        "pre-training the backbone: 33 of 40, 2 min",
        "pre-training the backbone: 40 of 40, 3 min",
    ]
