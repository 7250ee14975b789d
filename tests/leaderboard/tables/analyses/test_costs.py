"""What cells cost beside their mAP, on each device by itself."""

from dataclasses import replace

import pytest

from mlrpl_bench.leaderboard.tables.analyses import costs
from tests.helpers.tiny_study import cell, cells_of, record, refusal

CPU, GPU = "x86_64 CPU", "NVIDIA H100"


def made_up(method, mAP, seconds, ratio=0.1, seed=0, device=GPU, group=1, **facts):
    found = record(cell(method=method, ratio=ratio, seed=seed, mask_seed=seed), mAP=mAP)
    cost = {**found.content["cost"], "seconds": seconds, "cells_in_group": group}
    return replace(found, content={**found.content, "cost": cost, "device": device, **facts})


def analysed(*records, ratios=(0.1,)):
    cells = cells_of(records)
    return costs.analyse(cells, sorted({label for label, _ in cells}), ratios)


def rows(found):
    return {(row.device, row.method): row for row in found.frame.itertuples()}


def test_a_cell_of_a_group_is_charged_an_equal_part():
    row = rows(analysed(made_up("a", 0.5, 7200, group=4), made_up("b", 0.4, 3600)))[GPU, "a"]
    assert (row.hours, row.group_hours, row.cells_in_group, row.unit) == (0.5, 2.0, 4.0, "GPU-hours")


def test_cpu_hours_count_threads():
    found = analysed(made_up("a", 0.5, 3600, device=CPU, thread_counts=[1, 2]), made_up("b", 0.4, 3600, device=CPU))
    assert [rows(found)[CPU, name].hours for name in "ab"] == [2, 1]
    assert "hours times threads (1, 2)" in found.tables[0].notes[0]


def test_hours_and_mAP_are_means_over_ratios_and_seeds():
    made = [
        made_up("a", 0.1 * (1 + seed) + ratio, 3600 * (1 + seed), ratio, seed)
        for seed in (0, 1)
        for ratio in (0.1, 0.5)
    ]
    row = rows(analysed(*made, ratios=(0.1, 0.5)))[GPU, "a"]
    assert (row.hours, row.mAP, row.seeds, row.known_ratio) == (1.5, pytest.approx(45), 2, "avg of 2")


def test_the_front_is_marked_and_the_table_begins_with_the_cheapest():
    found = analysed(made_up("a", 0.5, 100), made_up("b", 0.4, 200), made_up("c", 0.6, 300))
    assert [name for (_, name), row in rows(found).items() if row.on_front] == ["a", "c"]
    assert [(label, entries[0].mark) for label, entries in found.tables[0].rows] == [
        ("a", "best"),
        ("b", ""),
        ("c", "best"),
    ]


def test_devices_are_never_mixed():
    found = analysed(
        made_up("a", 0.5, 100), made_up("b", 0.4, 50, device=CPU), made_up("b", 0.3, 200, seed=1), made_up("c", 0.6, 9)
    )
    assert [table.title for table in found.tables] == [f"Cost against mAP, {name}" for name in (GPU, CPU)]
    assert rows(found)[CPU, "b"].on_front and not rows(found)[GPU, "b"].on_front
    assert (rows(found)[CPU, "b"].mAP, rows(found)[GPU, "b"].mAP) == (40, 30)


def test_a_row_that_is_on_no_device_with_all_ratios_is_named():
    split = [made_up("b", 0.4, 50, 0.1, device=CPU), made_up("b", 0.4, 50, 0.5)]
    found = analysed(made_up("a", 0.5, 9), made_up("a", 0.5, 9, 0.5), *split, ratios=(0.1, 0.5))
    assert set(rows(found)) == {(GPU, "a")}
    assert found.tables[0].notes[-1] == "without a seed that has 10 and 50 % on one device, so left out: b"
    assert "on one device; name a known ratio" in refusal(lambda: analysed(*split, ratios=(0.1, 0.5)))


def test_machines_and_unlike_groups_are_cautions():
    notes = "\n".join(
        analysed(made_up("a", 0.5, 9, node="one"), made_up("b", 0.4, 9, node="two", group=2)).tables[0].notes
    )
    assert "2 machines of this kind" in notes and "groups are of unlike sizes here" in notes
    alike = "\n".join(analysed(made_up("a", 0.5, 9, node="one"), made_up("b", 0.4, 9, node="one")).tables[0].notes)
    assert "machines" not in alike and "unlike sizes" not in alike


def test_a_record_that_names_no_device_stands_by_itself():
    found = analysed(made_up("a", 0.5, 9), made_up("b", 0.4, 9, device=None))
    assert set(rows(found)) == {(GPU, "a"), ("unknown device", "b")}
