"""What is read from records without training."""

import numpy as np
import pytest

from mlrpl_bench.api.actions import reading
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve, store_of
from mlrpl_bench.api.watching import Quiet
from mlrpl_bench.tools.predict import Wanted
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError


@pytest.fixture
def resolved(trained):
    request = Request(
        dataset="tiny",
        methods=(),
        ratios=(0.5, 0.9),
        options=Options(epochs=1, device="cpu"),
        plugins=tuple(trained["plugins"]),
        results=(trained["results"],),
    )
    return resolve(request, Quiet())


def test_a_comparison_is_over_common_seeds(resolved):
    found = reading.compare_rows(resolved, Quiet(), "plain", "other")
    assert {line["seeds"] for line in found.to_json()["rows"]} == {2}


def test_a_row_that_is_not_there_is_refused(resolved):
    with pytest.raises(UserError, match="no records of 'nobody'"):
        reading.compare_rows(resolved, Quiet(), "plain", "nobody")


def test_the_highest_ratio_and_the_lowest_seed_answer(resolved, trained):
    image = next((trained["results"].parent / "cache").rglob("1.png"))
    answer = reading.ask(resolved, Quiet(), "plain", [image, image], Wanted())
    assert answer.title == "plain 90 % seed 0 on tiny"
    assert answer.fitting >= 4
    first, second = (each.logits_C for each in answer.predictions)
    np.testing.assert_array_equal(first, second)
    assert len(answer.frame()) == 2 * len(answer.categories)


def test_an_alias_answers_for_its_method_at_its_ratio(resolved):
    with pytest.raises(UserError, match="leave --ratio out"):
        reading.ask(resolved, Quiet(), "upper_bound", [], Wanted(ratio=0.5))
    assert reading.ask(resolved, Quiet(), "upper_bound", [], Wanted()).title == "ssgrl 100 % seed 0 on tiny"


def test_records_of_all_folders_are_listed(trained):
    frame = reading.list_records(store_of([trained["results"]]), None, Quiet())
    assert set(frame.method) == {"plain", "other", "ssgrl"}
    assert frame[frame.method == "ssgrl"].known_ratio.eq(1).all()
