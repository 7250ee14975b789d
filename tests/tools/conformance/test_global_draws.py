"""Who draws from which global generator is noted, and nothing else is."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mlrpl_bench.tools.conformance.global_draws import Watch
from mlrpl_bench.utils.randomness import torch_draws_from


def found_in(draw, hook="losses"):
    """What a watch notes of a call."""
    with torch.random.fork_rng(devices=[]), Watch(torch.device("cpu")) as watch, watch.inside(hook):
        draw()
    return watch.found


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda: torch.rand(2), "torch's global generator (rand)"),
        (lambda: torch.randperm(4), "torch's global generator (randperm)"),
        (lambda: torch.empty(2).uniform_(), "torch's global generator (uniform_)"),
        (lambda: torch.ones(2).multinomial(1), "torch's global generator (multinomial)"),
        (lambda: torch.distributions.Beta(1.0, 1.0).sample(), "torch's global generator (_sample_dirichlet)"),
        (lambda: F.gumbel_softmax(torch.zeros(2)), "torch's global generator (gumbel_softmax)"),
        (lambda: np.random.permutation(3), "numpy's global generator"),
        (lambda: np.random.seed(3), "numpy's global generator"),
        (lambda: random.choice("ab"), "Python's random"),
    ],
)
def test_a_draw_from_a_global_generator_is_noted_with_its_hook(draw, expected):
    assert found_in(draw) == f"losses() draws from {expected}"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(2, generator=torch.Generator()),
        lambda: np.random.default_rng(0).random(),
        lambda: random.Random(0).random(),
        lambda: F.dropout(torch.ones(3)),
        lambda: nn.Dropout2d()(torch.ones(1, 2, 3, 3)),
        lambda: nn.TransformerEncoderLayer(4, 2, dropout=0.5),
        lambda: F.scaled_dot_product_attention(*3 * [torch.ones(1, 2, 3, 4)], dropout_p=0.5),
    ],
)
def test_generators_of_ones_own_and_dropout_are_not_noted(draw):
    assert found_in(draw, "__init__") is None


def test_layers_that_drop_out_are_not_noted_where_they_are_called():
    layer, recurrent = nn.TransformerEncoderLayer(4, 2, dropout=0.5), nn.LSTM(4, 4, num_layers=2, dropout=0.5)
    assert found_in(lambda: layer(torch.ones(3, 2, 4))) is None
    assert found_in(lambda: recurrent(torch.ones(3, 2, 4))) is None


def test_weights_may_be_drawn_from_torch_s_generator_but_from_no_other():
    assert found_in(lambda: nn.Linear(3, 3), "__init__") is None
    assert found_in(lambda: np.random.normal(), "__init__") == "__init__() draws from numpy's global generator"


def test_what_is_drawn_outside_of_the_hooks_is_not_noted():
    with torch.random.fork_rng(devices=[]), Watch(torch.device("cpu")) as watch:
        torch.rand(2)
    assert watch.found is None


def test_the_first_draw_is_told_with_the_innermost_hook():
    class Network(nn.Module):
        def forward(self, values_B):
            return values_B * torch.rand(1)

        def losses(self, values_B):
            return {"sum": self(values_B).sum() + np.random.normal()}

    network, watch = Network(), Watch(torch.device("cpu"))
    for name in ("observe", "end_pass", "after_step", "passes", "scalars", "pseudo_labels_NC", "attention"):
        setattr(network, name, None)
    watch.hooks_of(network)
    with torch.random.fork_rng(devices=[]), watch:
        network.losses(torch.ones(2))
    assert watch.found == "forward() draws from torch's global generator (rand)"


def test_what_a_library_draws_under_a_given_generator_is_not_noted():
    def draw():
        with torch_draws_from(torch.Generator().manual_seed(1)):
            torch.rand(2)

    assert found_in(draw) is None
