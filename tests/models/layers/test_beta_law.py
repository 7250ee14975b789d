import pytest
import torch
from scipy import stats

from mlrpl_bench.models.layers.beta_law import from_even_draws, symmetric_beta


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
