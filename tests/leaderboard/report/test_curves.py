"""Curves are averaged over seeds and thinned without hiding where a term is switched off."""

import numpy as np
import pytest

from mlrpl_bench.leaderboard.report.curves import course, thinned
from tests.helpers.made_up_table import records
from tests.helpers.tiny_study import cells_of


@pytest.fixture
def cells(tmp_path):
    return cells_of(records(tmp_path, ["plain"]))["plain", 0.5]


def test_curves_are_means_over_seeds(cells):
    found = course(cells.values())
    assert found.epochs == 2
    assert found.columns["scalar.alpha"].tolist() == [1.0, 2.0]  # 0.5 and 1.5, then 1.5 and 2.5
    assert found.terms["bce"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(found.columns) == {"scalar.alpha", "test.mAP"}


def test_where_a_term_is_off_there_is_a_gap(cells):
    late = course(cells.values()).terms["late"]
    assert np.isnan(late[:3]).all() and late[3:].tolist() == [1, 2, 3]


def test_many_steps_become_few_points():
    assert len(thinned(np.ones(1001), 200)) <= 200
    assert np.nanmax(np.abs(thinned(np.ones(1001), 200) - 1)) == 0
    assert len(thinned(np.array([]), 5)) == 0


def test_files_that_cannot_be_read_are_not_drawn(cells):
    for evidence in cells.values():
        (evidence.record.folder / "steps.npz").write_bytes(b"no zip")
        (evidence.record.folder / "history.csv").unlink()
    found = course(cells.values())
    assert (found.epochs, found.terms, found.columns) == (0, {}, {})
