"""A step's part of the hyper-parameters, and the usual step that holds nothing out."""

from dataclasses import dataclass

import pytest

from mlrpl_bench.models.finishing import FinishingStep, derived, followed_by, options_of_step
from mlrpl_bench.models.hyperparameters import make_instance, parameter
from mlrpl_bench.utils.errors import UserError
from tests.helpers.plain_method import Plain


class Step(FinishingStep):
    @dataclass(frozen=True)
    class Hyperparameters:
        rate: float = parameter(0.5, "a rate", low=0, high=1)


class Rated(Plain):
    @dataclass(frozen=True)
    class Hyperparameters:
        alpha: int = parameter(1, "a weight")


def test_a_class_with_a_step_takes_the_hyper_parameters_of_both_and_checks_them():
    both = followed_by(Rated, Step, "rated+step")
    made = make_instance(both.Hyperparameters, {"alpha": "3", "rate": "0.25"}, "rated+step")
    assert (made.alpha, made.rate, isinstance(made, Rated.Hyperparameters)) == (3, 0.25, True)
    assert options_of_step(Step, made) == Step.Hyperparameters(rate=0.25)
    with pytest.raises(UserError, match="it must be float, 0 to 1"):
        make_instance(both.Hyperparameters, {"rate": "2"}, "rated+step")


def test_a_hyper_parameter_of_both_is_refused():
    class Same(FinishingStep):
        @dataclass(frozen=True)
        class Hyperparameters:
            alpha: int = parameter(2, "another weight")

    with pytest.raises(UserError, match=r"rated\+same: the method and the step both have a hyper-parameter 'alpha'"):
        followed_by(Rated, Same, "rated+same")


def test_a_step_that_says_nothing_holds_no_row_out_and_sees_every_category_once():
    step = FinishingStep(None)
    assert not step.held_out(5, seed=0).any() and step.rounds() == 1 and step.scalars() == {}


def test_a_derived_class_counts_as_the_methods():
    cls = derived(Rated, finishing=Step)
    assert (cls.__module__, cls.__qualname__, cls.__doc__) == (Rated.__module__, Rated.__qualname__, Rated.__doc__)
    assert cls.finishing is Step and Rated.finishing is None
