"""Wins, Bradley-Terry strengths, and the bootstrap over data sets and seeds."""

import math
from itertools import permutations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlrpl_bench.evaluation import contests
from tests.helpers.tiny_study import refusal

RANDOM = np.random.default_rng(0)


def made_up(blocks=40, rows=5, absent=0.0):
    table_BM = RANDOM.normal(size=(blocks, rows)) + np.arange(rows)
    table_BM[RANDOM.random(table_BM.shape) < absent] = np.nan
    return table_BM.round(1)


def test_wins_are_counted_block_by_block():
    table_BM = made_up(absent=0.2)
    found_MM = contests.wins(table_BM)
    for i, j in permutations(range(5), 2):
        count = sum(1.0 if row[i] > row[j] else 0.5 if row[i] == row[j] else 0.0 for row in table_BM)
        assert found_MM[i, j] == count
    assert np.diag(found_MM).tolist() == [0] * 5


def test_strengths_are_those_of_a_logistic_regression():
    wins_MM = contests.wins(made_up()) + 0.5 * (1 - np.eye(5))
    places = list(permutations(range(5), 2))
    games = np.array([np.eye(5)[i] - np.eye(5)[j] for i, j in places])
    weights = np.array([wins_MM[pair] for pair in places])
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    fitted.fit(np.concatenate([games, -games]), [1] * len(games) + [0] * len(games), np.tile(weights, 2))
    expected_M = fitted.coef_[0] - fitted.coef_[0].mean()
    assert contests.log_strengths(wins_MM[None])[0] == pytest.approx(expected_M, abs=1e-4)


def test_many_tables_at_once_are_each_by_itself():
    tables = np.array([contests.wins(made_up(blocks)) + 0.5 for blocks in (3, 10, 300)])
    for found_M, table in zip(contests.log_strengths(tables), tables, strict=True):
        assert found_M == pytest.approx(contests.log_strengths(table[None])[0], abs=1e-8)


def test_strengths_are_found_where_nearly_all_contests_have_one_end():
    wins_MM = np.triu(np.full((30, 30), 1e5), 1) + 0.5 * (1 - np.eye(30))
    found_M = contests.log_strengths(wins_MM[None])[0]
    assert (np.diff(found_M) < 0).all() and abs(found_M.mean()) < 1e-6


def test_strengths_are_found_where_whole_steps_of_newton_go_astray():
    wins_MM = np.array([
        [0.0, 0.5, 18.9, 66.0, 0.0, 579.1, 10.8],
        [0.5, 0.0, 6489.7, 5127.2, 0.5, 15.7, 2276.4],
        [0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5, 5.0, 0.0, 0.5, 7032.8, 0.5],
        [0.0, 20485.0, 12450.3, 1958.7, 0.0, 30.3, 281.2],
        [0.5, 0.5, 8.9, 0.5, 0.5, 0.0, 0.5],
        [0.5, 0.5, 10.8, 54.5, 0.5, 1398.2, 0.0],
    ])  # fmt: skip
    logs_M = contests.log_strengths(wins_MM[None])[0]
    expected_MM = (wins_MM + wins_MM.T) / (1 + np.exp(logs_M[None, :] - logs_M[:, None]))
    assert expected_MM.sum(axis=1) == pytest.approx(wins_MM.sum(axis=1), rel=1e-5)


def test_400_points_are_odds_of_ten_to_one():
    # Nineteen wins and one loss, and the tie that every two rows are given: 19.5 to 1.5.
    found = contests.rate([[1, 0]] * 19 + [[0, 1]], [("a", seed) for seed in range(20)], resamples=2)
    assert found.elo_M[0] - found.elo_M[1] == pytest.approx(400 * math.log10(19.5 / 1.5))
    assert found.elo_M.mean() == pytest.approx(1500)
    assert found.win_rate_M.tolist() == [0.95, 0.05]


def test_the_order_of_blocks_and_rows_decides_nothing():
    table_BM, groups = made_up(12), [("a", place // 3) for place in range(12)]
    rows, blocks = RANDOM.permutation(5), RANDOM.permutation(12)
    found = contests.rate(table_BM, groups)
    other = contests.rate(table_BM[blocks][:, rows], [groups[place] for place in blocks])
    assert other.elo_M == pytest.approx(found.elo_M[rows], abs=1e-6)
    assert other.elo_ends_2M == pytest.approx(found.elo_ends_2M[:, rows], abs=1e-6)


def test_the_bootstrap_rates_each_resample_of_blocks_again():
    table_BM = made_up(18, rows=3)
    groups = [(name, seed) for name in "ab" for seed in range(3) for _ in range(3)]
    found = contests.rate(table_BM, groups, resamples=40)
    names = sorted(set(groups))
    tie_MM = 0.5 * (1 - np.eye(3))
    elo, rates = [], []
    for times_G in contests.times_drawn(names, 40):
        repeats = [times_G[names.index(group)] for group in groups]
        wins_MM = contests.wins(np.repeat(table_BM, repeats, axis=0))
        elo.append(1500 + 400 / math.log(10) * contests.log_strengths((wins_MM + tie_MM)[None])[0])
        rates.append(wins_MM.sum(axis=1) / (wins_MM + wins_MM.T).sum(axis=1))
    assert found.elo_ends_2M == pytest.approx(np.quantile(elo, [0.025, 0.975], axis=0))
    assert found.win_rate_ends_2M == pytest.approx(np.quantile(rates, [0.025, 0.975], axis=0))


def test_data_sets_are_drawn_and_within_them_seeds():
    groups = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)]
    times_RG = contests.times_drawn(groups, 4000)
    of_a_R, of_b_R = times_RG[:, :2].sum(axis=1), times_RG[:, 2:].sum(axis=1)
    assert set(zip(of_a_R.tolist(), of_b_R.tolist(), strict=True)) == {(4, 0), (2, 3), (0, 6)}
    assert times_RG.mean(axis=0) == pytest.approx(np.ones(5), abs=0.06)


def test_one_data_set_with_one_seed_has_no_interval():
    found = contests.rate([[2, 1], [2, 1], [1, 2]], [("a", 0)] * 3)
    assert np.isnan(found.elo_ends_2M).all() and np.isnan(found.win_rate_ends_2M).all()
    assert found.elo_M[0] > found.elo_M[1]


def test_a_row_of_one_seed_beside_rows_of_several_has_no_interval():
    table_BM = made_up(9, rows=3)
    table_BM[3:, 2] = np.nan
    found = contests.rate(table_BM, [("a", place // 3) for place in range(9)])
    for ends_2M in (found.elo_ends_2M, found.win_rate_ends_2M):
        assert np.isnan(ends_2M).tolist() == [[False, False, True]] * 2
    assert np.isfinite(found.elo_M).all()


def test_rows_are_linked_over_others():
    games_MM = np.zeros((4, 4))
    games_MM[0, 1] = games_MM[1, 0] = games_MM[1, 2] = games_MM[2, 1] = 1
    assert contests.linked(games_MM).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "table",
    [[[1.0]], [[1.0, np.nan], [np.nan, 2.0]], np.zeros((0, 2)), [1.0, 2.0]],
    ids=["one row", "never met", "no block", "flat"],
)
def test_rows_that_never_met_are_refused(table):
    assert "met each other" in refusal(lambda: contests.rate(table, [("a", 0)] * len(table)))


def test_a_level_out_of_range_is_refused():
    assert "level 1" in refusal(lambda: contests.rate([[1, 2]], [("a", 0)], level=1))
