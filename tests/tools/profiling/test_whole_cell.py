"""Where the time of a whole cell goes, from measured parts and counts."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.tools.profiling import whole_cell
from mlrpl_bench.tools.profiling.whole_cell import (
    GROUP,
    PARTS,
    SELDOM,
    CellCost,
    Counts,
    Own,
    Shared,
    cell_cost,
    table,
)
from mlrpl_bench.training import workbench
from mlrpl_bench.training.workbench import SharedBatch

FABRIC = SimpleNamespace(device=torch.device("cpu"), autocast=nullcontext)
COUNTS = Counts(training_images=103, test_images=41, epochs=3, batch=10)
"""Ten steps an epoch; 11 and 5 batches are scored."""

STEP = {"reading": 1.0, "frozen": 5.0, "head": 2.0, "backward": 4.0}
OWN = Own(scoring_seconds=0.5, looking_seconds=0.25, passes=2)


def shared(*kept):
    return Shared(frozen_seconds=4.0, kept=kept, metrics_seconds=0.1, evidence_seconds=7.0)


def test_parts_are_multiplied_by_how_often_a_cell_does_them():
    cost = cell_cost("a", STEP, 0.01, OWN, shared(), COUNTS)
    # Of the step's five seconds of frozen part one was the method's own.
    assert cost.own == pytest.approx(
        {
            "steps": 30 * 7,
            "passes": 2 * 103 * 0.01,
            "evaluation": 3 * (5 * 0.5 + 0.1),
            "training scores": 11 * 0.5,
            "examples": 8 * 0.25,
            "evidence": 7,
        }
    )
    assert cost.shared == {"steps": 150, "passes": 2 * 11 * 5, "evaluation": 3 * 5 * 5, "training scores": 55}


@pytest.mark.parametrize(
    ("kept", "passes", "expected"),
    [
        (("test",), 2, {"passes": 110, "evaluation": 25, "training scores": 55}),
        (("train", "test"), 2, {"passes": 55, "evaluation": 25, "training scores": 0}),
        (("train",), 0, {"passes": 0, "evaluation": 75, "training scores": 55}),
    ],
)
def test_what_stays_in_memory_goes_through_the_frozen_part_once(kept, passes, expected):
    cost = cell_cost("a", STEP, 0.01, replace(OWN, passes=passes), shared(*kept), COUNTS)
    assert {part: cost.shared[part] for part in expected} == expected


def test_metrics_of_all_test_images_are_measured_and_are_part_of_the_evidence_too(monkeypatch):
    evaluated, evaluate, seconds = [], metrics.evaluate, iter([1.0, 10.0])
    monkeypatch.setattr(metrics, "evaluate", lambda *given: evaluated.append(given[0].shape) or evaluate(*given))
    monkeypatch.setattr(whole_cell, "_seconds", lambda device, job, times: (job(), next(seconds))[1])
    assert whole_cell._seconds_of_arithmetic(COUNTS, categories=5) == (1.0, 1.0 + 10.0)
    assert evaluated == [(COUNTS.test_images, 5)]


@pytest.mark.parametrize(
    ("room", "kept"),
    [(COUNTS.training_images, ("train", "test")), (COUNTS.test_images, ("test",)), (COUNTS.test_images - 1, ())],
)
def test_a_split_stays_in_memory_where_its_images_and_their_frozen_output_fit(room, kept, monkeypatch):
    batch = SharedBatch(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2), torch.arange(2))
    bytes_per_image = 4 * (3 * 4 * 4 + 5 * 2 * 2)
    monkeypatch.setattr(workbench, "KEEP_FEATURES_BYTES", room * bytes_per_image)
    bench = SimpleNamespace(fabric=FABRIC, backbone=SimpleNamespace(frozen=torch.nn.Identity()))
    assert whole_cell.measure_shared(bench, batch, COUNTS, categories=3).kept == kept


def test_passes_are_counted_over_all_epochs_and_maps_only_where_there_are_any():
    method = SimpleNamespace(eval=lambda: None, attention=lambda _: None, passes=lambda progress: progress.epoch > 1)
    bench = SimpleNamespace(fabric=FABRIC, steps_per_epoch=lambda batch: 10)
    cell = SimpleNamespace(recipe=SimpleNamespace(epochs=5))
    run = SimpleNamespace(method=method, workbench=bench, cell=cell, logits_BC=lambda batch: None)
    found = whole_cell.measure_own(run, SharedBatch(*[torch.zeros(1)] * 3), times=1)
    assert (found.passes, found.looking_seconds) == (3, 0.0)


def test_a_group_divides_what_is_shared():
    cost = CellCost("a", dict.fromkeys(PARTS, 1.0), {"steps": 18.0, "evaluation": 9.0}, evaluations=2, keeps_test=False)
    assert cost.seconds()["steps"] == 19 and cost.seconds(9)["steps"] == 3
    assert sum(cost.shares(9).values()) == pytest.approx(1)
    assert cost.beyond_steps() == pytest.approx(14 / 33) and cost.beyond_steps(9) == pytest.approx(6 / 9)


def test_a_row_has_the_hours_and_shares_that_add_up_to_all():
    cost = cell_cost("a", STEP, 0.01, OWN, shared(), COUNTS)
    (label, entries), *rest = table([cost], COUNTS, "title").rows
    assert (label, rest) == ("a", [])
    hours, *shares = (entry.value for entry in entries)
    assert hours == pytest.approx(sum(cost.seconds().values()) / 3600)
    assert sum(shares[: len(PARTS)]) == pytest.approx(100)
    seldom = cost.evaluated_every(SELDOM)
    assert shares[-3:] == pytest.approx(
        [100 * cost.beyond_steps(), 100 * cost.beyond_steps(GROUP), 100 * seldom.beyond_steps()]
    )


@pytest.mark.parametrize(("every", "times"), [(1, 3), (2, 2), (3, 1), (10, 1)])
def test_a_cell_that_is_evaluated_seldom_costs_what_a_cell_of_fewer_evaluations_does(every, times):
    for kept, rounds in (((), times), (("test",), 1)):
        seldom = cell_cost("a", STEP, 0.01, OWN, shared(*kept), COUNTS).evaluated_every(every)
        assert seldom.own["evaluation"] == pytest.approx(times * (5 * 0.5 + 0.1))
        assert seldom.shared["evaluation"] == pytest.approx(rounds * 5 * 5)
        assert (seldom.evaluations, seldom.own["steps"]) == (times, 30 * 7)
