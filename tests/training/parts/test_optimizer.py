"""A cell's optimiser, and states of other optimisers."""

import pytest
import torch
from torch import nn

from mlrpl_bench.models.method import ParameterGroup, Recipe
from mlrpl_bench.training.parts import optimizer
from tests.helpers.plain_method import Plain


class OnlyParameters(Plain):
    def __init__(self):
        nn.Module.__init__(self)
        self.layer = nn.Linear(2, 3)


@pytest.mark.parametrize(("name", "cls"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_a_recipe_gives_optimiser_rates_and_decay(name, cls):
    built, rates = optimizer.build(OnlyParameters(), Recipe(name, lr=0.5, weight_decay=0.25))
    assert (type(built), rates) == (cls, [0.5])
    assert built.param_groups[0]["weight_decay"] == 0.25
    assert built.param_groups[0].get("momentum") == {"adam": None, "sgd": 0.9}[name]


class Grouped(OnlyParameters):
    """Names its groups itself."""

    def parameter_groups(self):
        return [
            ParameterGroup([self.layer.weight], lr_multiplier=10, weight_decay=0),
            ParameterGroup([self.layer.bias]),
        ]


class Forgetful(OnlyParameters):
    """Leaves its bias out."""

    def parameter_groups(self):
        return [ParameterGroup([self.layer.weight])]


def test_a_group_has_its_own_rate_and_decay_or_the_recipes():
    built, rates = optimizer.build(Grouped(), Recipe(lr=0.5, weight_decay=0.25))
    assert rates == [5.0, 0.5] == [group["lr"] for group in built.param_groups]
    assert [group["weight_decay"] for group in built.param_groups] == [0, 0.25]


def test_a_parameter_that_no_group_has_is_our_own_mistake():
    with pytest.raises(AssertionError, match="leaves some out"):
        optimizer.build(Forgetful(), Recipe())


def test_a_state_of_other_shapes_or_of_no_number_of_steps_is_refused():
    method = OnlyParameters()
    built, _ = optimizer.build(method, Recipe())
    method.layer(torch.ones(1, 2)).sum().backward()
    built.step()
    optimizer.refuse_foreign(built)
    state = built.state[method.layer.weight]
    state["exp_avg"] = torch.zeros(4)
    with pytest.raises(ValueError, match="exp_avg has another shape"):
        optimizer.refuse_foreign(built)
    state["exp_avg"] = torch.zeros(3, 2)
    for steps in (-1.0, float("inf"), float("nan")):
        state["step"] = torch.tensor(steps)
        with pytest.raises(ValueError, match="no number of steps"):
            optimizer.refuse_foreign(built)
