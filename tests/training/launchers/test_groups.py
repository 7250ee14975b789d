"""Which cells are trained side by side, and in which groups."""

import pytest

from mlrpl_bench.training.launchers import groups
from tests.helpers.tiny_study import method


@pytest.fixture(scope="module")
def plain(folder):
    return method(folder / "plain.py")


def test_cells_that_stand_at_different_places_are_not_trained_together(study, plain):
    jobs = [study.job(plain, ratio, 0, 0, {}) for ratio in (0.1, 0.5, 0.9)]
    positions = {jobs[1].cell: (1, 2)}
    assert groups.alike(jobs, positions) == [[jobs[0], jobs[2]], [jobs[1]]]


def test_cells_of_two_seeds_are_not_alike(study, plain):
    jobs = [study.job(plain, ratio, seed, seed, {}) for ratio in (0.1, 0.5, 0.9) for seed in (0, 1)]
    assert groups.alike(jobs) == [jobs[0::2], jobs[1::2]]


@pytest.mark.parametrize(
    ("jobs", "size", "sizes"), [(1, 9, [1]), (9, 9, [9]), (10, 9, [5, 5]), (3, 2, [1, 2]), (3, 1, [1, 1, 1])]
)
def test_there_are_as_few_groups_as_can_be_and_these_are_even(jobs, size, sizes):
    found = groups.portions(list(range(jobs)), size)
    assert [len(portion) for portion in found] == sizes
    assert [number for portion in found for number in portion] == list(range(jobs))
