import itertools

import pytest
import torch
from scipy import stats

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.mixing import from_even_draws, symmetric_beta, union


@pytest.mark.parametrize("concentration", [0.1, 0.3, 1.0, 4.0])
def test_draws_follow_the_law(concentration):
    values_S = from_even_draws(torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0)), concentration)
    for value in torch.linspace(0.01, 0.99, 50):  # closer to 1 and 0 float32 rounds
        expected = stats.beta(concentration, concentration).cdf(value)
        assert abs((values_S <= value).float().mean() - expected) < 0.015  # about four standard errors


@pytest.mark.parametrize("concentration", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("first", [0.0, 1e-7, 1 - 1e-7])
@pytest.mark.parametrize("second", [0.0, 0.25, 0.5, 0.75])
def test_extreme_draws_give_values_in_range(concentration, first, second):
    assert 0 <= from_even_draws(torch.tensor([first, second]), concentration) <= 1


def test_the_generator_is_the_only_source_of_randomness():
    def value(global_seed, seed):
        torch.manual_seed(global_seed)
        return symmetric_beta(1.0, torch.Generator().manual_seed(seed)).item()

    assert value(0, seed=0) == value(1, seed=0) != value(0, seed=1)


def test_successive_draws_differ():
    generator = torch.Generator().manual_seed(0)
    assert (
        symmetric_beta(1.0, generator).shape == () and len({symmetric_beta(0.5, generator).item() for _ in "abcd"}) == 4
    )


# The union of labels

STATES = (PRESENT, UNKNOWN, ABSENT)


def union_of(*states):
    """Of images with one category, in a mixture that shows all of them."""
    members_1K = torch.arange(len(states))[None]
    return union(torch.tensor(states)[:, None], members_1K, torch.ones_like(members_1K, dtype=torch.bool)).item()


def test_the_union_is_a_logical_or_that_commutes_associates_and_repeats():
    for a, b, c in itertools.product(STATES, repeat=3):
        assert union_of(a, b) == union_of(b, a) and union_of(a, a) == a
        assert union_of(union_of(a, b), c) == union_of(a, union_of(b, c)) == union_of(a, b, c)
    assert (union_of(UNKNOWN, ABSENT), union_of(UNKNOWN, PRESENT), union_of(ABSENT, PRESENT)) == (
        UNKNOWN,
        PRESENT,
        PRESENT,
    )


def test_learning_an_unknown_label_never_changes_a_union_that_was_known():
    for a, b in itertools.product(STATES, repeat=2):
        for learned in (PRESENT, ABSENT) if a == UNKNOWN else ():
            assert union_of(a, b) in (UNKNOWN, union_of(learned, b))


def test_what_does_not_count_is_absent_and_members_are_rows():
    labels_BC = torch.tensor([[PRESENT, ABSENT, UNKNOWN], [ABSENT, ABSENT, PRESENT]], dtype=torch.int8)
    members_MK = torch.tensor([[0, 1], [0, 1], [1, 1]])
    counts_MK = torch.tensor([[True, True], [False, True], [False, False]])
    expected = [[PRESENT, ABSENT, PRESENT], [ABSENT, ABSENT, PRESENT], [ABSENT, ABSENT, ABSENT]]
    union_MC = union(labels_BC, members_MK, counts_MK)
    assert union_MC.tolist() == expected and union_MC.dtype == torch.int8
