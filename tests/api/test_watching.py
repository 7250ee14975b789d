"""Who is told of progress."""

import warnings

import pytest

from mlrpl_bench.api.watching import Quiet, watcher
from mlrpl_bench.training.trainer import EpochDone


def test_a_callback_hears_of_preparations_cells_and_epochs():
    heard = []
    told = watcher(lambda *what: heard.append(what))
    told.report("drawing", 1, 2)
    told.cells(0, 3)
    told.event("ssgrl 10 % seed 0", 5, EpochDone(None, {"epoch": 1.0}))
    assert heard == [("drawing", 1, 2), ("cells", 0, 3), ("ssgrl 10 % seed 0", 2, 5)]


def test_without_a_callback_nothing_is_heard_but_problems(capsys):
    told = watcher(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told.report("drawing", 1, 2)
        told.cells(0, 3)
        told.event("ssgrl 10 % seed 0", 5, EpochDone(None, {"epoch": 1.0}))
        told.note("a line")
    with pytest.warns(UserWarning, match="not used: damaged"):
        told.problem("damaged")
    with pytest.warns(UserWarning, match="a file could not be loaded"):
        told.warn("a file could not be loaded")
    assert capsys.readouterr() == ("", "")


def test_a_watcher_is_taken_as_it_is():
    one = Quiet()
    assert watcher(one) is one
