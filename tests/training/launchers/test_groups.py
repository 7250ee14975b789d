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


def test_groups_are_as_large_as_can_be_for_one_worker():
    assert groups.size_for([36, 9, 1], 18, workers=1) == 18


@pytest.mark.parametrize(
    ("kinds", "most", "workers", "size"),
    [
        ([36], 18, 4, 9),  # not 18, which leave two workers idle
        ([36], 9, 2, 9),  # two rounds of as many as fit
        ([10], 9, 2, 5),
        ([2], 18, 2, 1),
        ([9] * 5, 18, 5, 9),  # a seed each
        ([3], 18, 64, 1),  # more workers than cells
    ],
)
def test_groups_are_sized_for_the_number_of_workers(kinds, most, workers, size):
    assert groups.size_for(kinds, most, workers) == size


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("kinds", [[36], [288] * 5, [45, 9, 1], [7] * 12])
def test_workers_end_soon_after_the_earliest_that_any_division_allows(kinds, workers):
    """No division ends before a worker's even share of all cells, nor before one group of a cell."""
    most, cells = 18, sum(kinds)
    size = groups.size_for(kinds, most, workers)
    sizes = [len(portion) for kind in kinds for portion in groups.portions(range(kind), size)]
    fewest = sum(-(-kind // most) for kind in kinds)
    bound = max((cells + groups.SHARED * fewest) / workers, groups.SHARED + 1, groups.SHARED + cells / workers)
    end = groups.seconds_until_all_ended(sizes, workers)
    assert bound <= end + 1e-9
    assert end <= 1.6 * bound
    largest = [len(portion) for kind in kinds for portion in groups.portions(range(kind), most)]
    assert end <= groups.seconds_until_all_ended(largest, workers)


def test_a_worker_that_is_done_takes_the_next_group():
    assert groups.seconds_until_all_ended([1, 1, 4], 2, shared=1, own=2) == 9
    assert groups.seconds_until_all_ended([], 2) == 0
    with pytest.raises(ValueError, match="0 workers train nothing"):
        groups.seconds_until_all_ended([1], 0)


def test_the_planned_groups_have_each_job_once_and_no_two_kinds(study, plain):
    jobs = [study.job(plain, ratio, seed, seed, {}) for ratio in (0.1, 0.5, 0.9) for seed in (0, 1)]
    found = groups.planned(jobs, most=18, workers=4)
    assert sorted(jobs.index(job) for group in found for job in group) == list(range(6))
    assert all(len({job.cell.seed for job in group}) == 1 for group in found)
    assert sorted(len(group) for group in found) == [1, 1, 2, 2]
