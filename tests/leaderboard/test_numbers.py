"""The numbers that tables show, against what the record says."""

import numpy as np
import pytest

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard import numbers
from mlrpl_bench.leaderboard.claims import claims
from mlrpl_bench.leaderboard.numbers import METRICS
from mlrpl_bench.records import record as records
from tests.helpers import tiny_study as tiny


def test_every_share_of_a_record_is_shown_in_percent():
    of = tiny.evidence(tiny.record(OF1=0.25, average_precision=0.75))
    found = {name: METRICS[name].value(of) for name in metrics.SHARES}
    assert found == {name: {"OF1": 25.0, "average_precision": 75.0}.get(name, 50.0) for name in metrics.SHARES}
    assert set(metrics.SHARES) == {name for name, value in metrics.evaluate(*tiny.SOME).items() if type(value) is float}


def test_the_best_epoch_is_another_number_than_the_last():
    of = tiny.record(mAP=0.25)
    of.content["best_metrics"] = {"mAP": 0.5, "OF1": 0.1, "CF1": 0.2}
    cell = tiny.evidence(of)
    assert METRICS["mAP"].value(cell) == 25 and METRICS["mAP (best epoch)"].value(cell) == 50


def test_every_cost_of_a_record_is_shown_in_its_unit():
    of = tiny.evidence(tiny.record())
    found = [(name, METRICS[name].unit, METRICS[name].value(of)) for name in numbers.COSTS]
    assert found == [
        ("seconds", "s", 1.5),
        ("images_per_second", "1/s", 16.0),
        ("peak_memory", "GB", 0.1),
        ("cells_in_group", "", 1.0),
    ]
    assert set(numbers.COST_UNITS) == set(records.COSTS)


def test_recovery_and_fluctuation_come_from_the_evidence():
    of = tiny.evidence(tiny.record(), recovery=0.25)
    assert METRICS[numbers.RECOVERY].value(of) == 25
    assert METRICS[numbers.FLUCTUATION].value(of) == 0.01


def test_a_category_is_found_by_its_place():
    of = tiny.evidence(tiny.record(AP_C=np.array([0.5, 0.25, np.nan, 1.0])))
    cat = numbers.category(1, "cat")
    assert (cat.name, cat.value(of)) == ("AP: cat", 25.0)
    assert np.isnan(numbers.category(2, "dog").value(of))


@pytest.mark.parametrize("claim", claims.load(), ids=lambda claim: claim.name)
def test_every_claim_is_about_a_number_that_there_is(claim):
    assert claim.metric in METRICS
