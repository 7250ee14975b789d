"""The rows with averaged weights are other files' rows under another recipe."""

import pytest

from mlrpl_bench.models.method import AVERAGED
from mlrpl_bench.models.registry import load_methods

METHODS = load_methods()
NAMES = ["asl", "csl", "hill", "partial_bce", "pu_mlc", "splc", "ssgrl"]


@pytest.mark.parametrize("name", NAMES)
def test_a_row_differs_from_its_method_in_the_average_alone(name):
    averaged, plain = METHODS[f"{name}_ema"], METHODS[name]
    assert (averaged.cls.recipe.ema, averaged.cls.recipe.scored) == (2.0, AVERAGED)
    assert averaged.cls.recipe.to_json() == plain.cls.recipe.to_json() | {"ema": 2.0}
    assert averaged.settings == plain.settings and averaged.source_digest() == plain.source_digest()
    assert not averaged.published


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_how_it_differs_otherwise_in_its_methods_words(name):
    averaged, plain = METHODS[f"{name}_ema"].differs.split("; "), METHODS[name].differs.split("; ")
    assert averaged[0].startswith("scored by averaged weights")
    assert averaged[1:] == [clause for clause in plain if clause != "no averaged weights"]
