"""The front of costs and values."""

import numpy as np
import pytest

from mlrpl_bench.evaluation import pareto
from tests.helpers.tiny_study import refusal


def slow_front(costs_K, values_K):
    points = list(zip(costs_K, values_K, strict=True))
    return [not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points) for cost, value in points]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_other_point_beats(seed):
    random = np.random.default_rng(seed)
    costs_K, values_K = random.integers(8, size=30), random.integers(8, size=30)  # with many that are equal
    assert pareto.front(costs_K, values_K).tolist() == slow_front(costs_K.tolist(), values_K.tolist())


def test_no_points_have_no_front():
    assert pareto.front([], []).tolist() == []


@pytest.mark.parametrize(("costs", "values"), [([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([[1.0]], [[1.0]])])
def test_bad_input_is_refused(costs, values):
    assert "finite numbers" in refusal(lambda: pareto.front(costs, values))
