"""Hyper-parameters take the values they document, from text or from code, and refuse all others in one line."""

import math
from dataclasses import dataclass

import pytest

from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.hyperparameters import parameter, rate_factor, recipe_changes
from mlrpl_bench.utils.errors import UserError


@dataclass(frozen=True)
class Example:
    prototypes: int = parameter(10, "per category", low=1)
    alpha: float = parameter(0.5, "share of the partner", low=0, high=1)
    ramp: float = parameter(2.0, "epochs", high=20)
    learned: bool = parameter(True, "whether alpha is learned")
    attention: str = parameter("sd", "what pools the positions", choices=("sd", "sam"))
    cap: int | None = parameter(None, "largest number of samples", low=1)


@dataclass(frozen=True)
class Nothing:
    pass


def build(**values):
    return hyperparameters.make_instance(Example, values, "mine")


def test_without_values_the_defaults_hold():
    assert build() == Example(10, 0.5, 2.0, True, "sd", None)


def test_text_from_the_command_line_is_converted_to_the_fields_type():
    built = build(prototypes="5", alpha="1e-1", learned="false", attention="sam", cap="7")
    assert built == Example(5, 0.1, 2.0, False, "sam", 7)
    assert type(built.prototypes) is int
    assert type(built.alpha) is float


def test_a_whole_number_given_for_a_float_is_stored_as_a_float():
    assert type(build(alpha=1).alpha) is float


@pytest.mark.parametrize("text", ["true", "True", "yes", "1"])
def test_words_for_true(text):
    assert build(learned=text).learned is True


@pytest.mark.parametrize("text", ["false", "NO", "0"])
def test_words_for_false(text):
    assert build(learned=text).learned is False


@pytest.mark.parametrize("value", [None, "none", "None"])
def test_an_optional_value_can_be_none(value):
    assert build(cap=value).cap is None


def test_bounds_belong_to_the_valid_values():
    assert (build(alpha=0).alpha, build(alpha=1).alpha, build(prototypes=1).prototypes) == (0, 1, 1)


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        ({"prototypes": "many"}, "int, at least 1"),
        ({"prototypes": "2.5"}, "int, at least 1"),
        ({"prototypes": 2.5}, "int, at least 1"),
        ({"prototypes": 0}, "int, at least 1"),
        ({"prototypes": None}, "int, at least 1"),
        ({"alpha": -0.01}, "float, 0 to 1"),
        ({"alpha": "1.01"}, "float, 0 to 1"),
        ({"alpha": "nan"}, "float, 0 to 1"),
        ({"ramp": "21"}, "float, at most 20"),
        ({"ramp": "-inf"}, "float, at most 20"),
        ({"learned": "maybe"}, "true | false"),
        ({"learned": 2}, "true | false"),
        ({"attention": "san"}, "sd | sam"),
        ({"cap": "0"}, "int, at least 1 or none"),
    ],
)
def test_a_value_that_is_not_valid_is_refused_with_what_would_be(values, valid):
    (name,) = values
    with pytest.raises(UserError) as refusal:
        build(**values)
    assert f"mine: {name}={values[name]} is not valid, it must be {valid};" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_name_is_refused_with_the_closest_and_all_valid_ones():
    with pytest.raises(UserError, match=r"mine has no hyper-parameter 'prototype' .*'prototypes'\?.*alpha=0\.5"):
        build(prototype=5)


def test_a_method_without_hyper_parameters_says_so():
    with pytest.raises(UserError, match="it has none"):
        hyperparameters.make_instance(Nothing, {"alpha": 1}, "mine")


def test_the_description_names_defaults_and_valid_values_in_one_line():
    assert hyperparameters.describe(Example) == (
        "valid: prototypes=10 (int, at least 1), alpha=0.5 (float, 0 to 1), ramp=2.0 (float, at most 20), "
        "learned=True (true | false), attention=sd (sd | sam), cap=None (int, at least 1 or none)"
    )


def test_a_pair_is_a_name_and_a_text_and_the_refusal_names_its_option():
    assert hyperparameters.parse_assignments([" cap = none ", "path=a=b"]) == {"cap": "none", "path": "a=b"}
    for pair in ("alpha", " =3"):
        with pytest.raises(UserError, match=f"^--set-data '{pair}' is not valid; write it as name=value$"):
            hyperparameters.parse_assignments([pair], "--set-data")


def test_settings_are_names_and_texts():
    assert hyperparameters.parse_assignments(["alpha=0.3", " cap = none ", "path=a=b"]) == {
        "alpha": "0.3",
        "cap": "none",
        "path": "a=b",
    }


def test_the_last_of_two_settings_of_one_name_holds():
    assert hyperparameters.parse_assignments(["alpha=0.3", "alpha=0.4"]) == {"alpha": "0.4"}


@pytest.mark.parametrize("pair", ["alpha", "=3", ""])
def test_a_setting_without_name_or_value_is_refused(pair):
    with pytest.raises(UserError, match="is not valid; write it as name=value"):
        hyperparameters.parse_assignments([pair])


def test_a_factor_on_the_learning_rate_is_split_from_the_others():
    assert rate_factor({"alpha": "0.3", "lr": "3"}, "sarb") == (3.0, {"alpha": "0.3"})
    assert rate_factor({"alpha": "0.3"}, "sarb") == (1.0, {"alpha": "0.3"})


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e7", "1e-7", "fast", "", None, True])
def test_a_factor_that_is_none_is_refused(value):
    with pytest.raises(UserError, match=r"sarb: lr=.* is not valid, it is a factor on the learning rate, from 1e-06"):
        rate_factor({"lr": value}, "sarb")


def test_what_is_of_the_recipe_is_split_from_the_others():
    changes, others = recipe_changes({"alpha": "0.3", "lr": "3", "ema": "2"}, "sarb")
    assert (changes.lr_factor, changes.fields, others) == (3.0, {"ema": 2.0}, {"alpha": "0.3"})
    assert recipe_changes({"alpha": "0.3"}, "sarb") == ((1.0, {}), {"alpha": "0.3"})
    assert recipe_changes({"ema": "none"}, "sarb")[0].fields == {"ema": None}


@pytest.mark.parametrize("value", ["0", "-1", "nan", "4.4", "0.9.9", "", True])
def test_a_time_constant_that_is_none_is_refused(value):
    with pytest.raises(UserError, match=r"sarb: ema=.* is not valid, .* in epochs of 20, from 0.01 to 4.3, or none"):
        recipe_changes({"ema": value}, "sarb")


def test_at_the_largest_time_constant_one_percent_is_still_untrained():
    assert 0.009 < math.exp(-20 / hyperparameters.LARGEST_EMA) < 0.01


@pytest.mark.parametrize("name", ["emaa", "EMA", "Lr"])
def test_a_name_that_is_almost_one_of_every_method_is_guessed(name):
    with pytest.raises(UserError, match=r"did you mean '(ema|lr)'\?.*for every method: lr \(.*\), ema \("):
        hyperparameters.make_instance(Nothing, {name: "1"}, "mine")


def test_an_option_of_a_dataset_is_not_guessed_from_a_methods():
    with pytest.raises(UserError) as refused:
        hyperparameters.make_instance(Nothing, {"emaa": "1"}, "mine", "option")
    assert "did you mean" not in str(refused.value) and "every method" not in str(refused.value)
