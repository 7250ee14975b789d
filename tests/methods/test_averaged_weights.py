"""The rows with averaged weights are other files' rows under another recipe."""

import pytest

from mlrpl_bench.models.method import AVERAGED
from mlrpl_bench.models.registry import load_methods

METHODS = load_methods()


@pytest.mark.parametrize("name", ["asl", "csl", "hill", "partial_bce", "pu_mlc", "splc", "ssgrl"])
def test_a_row_differs_from_its_method_in_the_average_alone(name):
    averaged, plain = METHODS[f"{name}_ema"], METHODS[name]
    assert (averaged.cls.recipe.ema, averaged.cls.recipe.scored) == (2.0, AVERAGED)
    assert averaged.cls.recipe.to_json() == plain.cls.recipe.to_json() | {"ema": 2.0}
    assert averaged.settings == plain.settings and averaged.source_digest() == plain.source_digest()
    assert averaged.differs.startswith(f"as {name}, ") and not averaged.published
