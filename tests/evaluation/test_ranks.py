"""Average ranks and Friedman's test agree with a published example and with SciPy."""

import numpy as np
import pytest
from scipy import stats

from mlrpl_bench.evaluation.ranks import average_rank
from mlrpl_bench.utils.errors import UserError

# Ranks

# Demšar 2006, table 6: AUC of C4.5 with and without tuning on 14 data sets, and what its section 3.2.4 computes.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_ranks_and_critical_difference_are_those_of_the_published_example():
    found = average_rank(DEMSAR)
    np.testing.assert_allclose(found.ranks_M, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert average_rank(DEMSAR, level=0.9).critical_difference == pytest.approx(1.12, abs=0.005)
    assert found.blocks == 14


def test_ranks_and_friedmans_test_are_scipys():
    table_BM = np.random.default_rng(0).integers(0, 5, size=(9, 6)).astype(float)
    found = average_rank(table_BM)
    by_loop = np.mean([stats.rankdata([-value for value in block]) for block in table_BM], axis=0)
    np.testing.assert_allclose(found.ranks_M, by_loop)
    expected = stats.friedmanchisquare(*table_BM.T)
    assert (found.statistic, found.p_value) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


def test_two_methods_have_ranks_but_no_friedman_test():
    found = average_rank([[0.5, 0.4], [0.5, 0.4], [0.3, 0.4]])
    np.testing.assert_allclose(found.ranks_M, [4 / 3, 5 / 3])
    assert np.isnan(found.p_value)
    assert found.critical_difference == pytest.approx(1.960 / np.sqrt(3), abs=1e-3)


def test_methods_that_tie_everywhere_are_not_told_apart():
    found = average_rank(np.ones((4, 3)))
    assert (found.ranks_M.tolist(), found.statistic, found.p_value) == ([2, 2, 2], 0, 1)


@pytest.mark.parametrize("table", [np.zeros((1, 3)), np.zeros((3, 1)), np.zeros(3), [[1, 2], [np.nan, 1]]])
def test_what_cannot_be_ranked_is_refused(table):
    with pytest.raises(UserError, match="block"):
        average_rank(table)
