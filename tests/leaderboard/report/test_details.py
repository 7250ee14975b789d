"""A row's details have everything of its records, each once."""

import re
from dataclasses import replace

import pytest

from mlrpl_bench.leaderboard.report import details as report_details
from mlrpl_bench.leaderboard.report.details import RECORD_COLUMNS, anchor, is_long, of_record, rows, setting
from tests.helpers.made_up_table import HOSTILE, leaderboard


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return leaderboard(tmp_path_factory.mktemp("records"))


def details(table, label, is_short=False, **papers):
    (found,) = (row for row in rows(table, papers, is_short=is_short) if row["label"] == label)
    return found


def test_ids_are_ids_whatever_the_label():
    labels = ["sarb", "sarb[prototypes=5]", "sarb[prototypes=6]", "sarb prototypes=5", HOSTILE, "ä", "ö", ""]
    ids = [anchor(label) for label in labels]
    assert len(set(ids)) == len(labels)
    assert all(re.fullmatch(r"[\w.-]+", one, re.ASCII) for one in ids)


def test_every_record_is_there_with_its_number(table):
    found = details(table, "plain")
    records = [record for group in found["ratios"] for record in group["records"]]
    assert [group["title"] for group in found["ratios"]] == ["10 %", "50 %"]
    assert [record["seed"] for record in records] == ["0", "1"] * 2
    assert all(len(record["values"]) == len(RECORD_COLUMNS) for record in records)
    evidence = table.cells["plain", 0.1][0, 0]
    assert records[0]["values"][0] == f"{100 * evidence.record.metrics['mAP']:.1f}"
    assert records[0]["key"] == evidence.record.cell.key[:8]


def test_in_the_place_of_many_records_their_means_are_listed(table):
    every, found = (details(table, "plain", is_short)["ratios"] for is_short in (False, True))
    assert [(group["id"], group["title"]) for group in found] == [(group["id"], group["title"]) for group in every]
    for short, long in zip(found, every, strict=True):
        (mean,) = short["records"]
        assert (mean["seed"], mean["id"], mean["key"]) == (f"mean of {len(long['records'])}", "", "")
        columns = zip(RECORD_COLUMNS, mean["values"], *(record["values"] for record in long["records"]), strict=True)
        for name, value, *values in columns:
            if name in ("mAP", "OF1", "CF1", "recovery", "seconds", "images/s"):
                assert float(value) == pytest.approx(sum(map(float, values)) / len(values), abs=0.11)


def test_of_the_records_memory_the_largest_is_listed_and_what_is_unknown_is_left_out(table):
    def with_memory(evidence, memory):
        content = {**evidence.record.content, "cost": {"peak_memory_bytes": memory}}
        return replace(evidence, record=replace(evidence.record, content=content))

    memories = iter([2e9, None, 3e9, None])
    cells = dict(table.cells)
    for place in (("plain", 0.1), ("plain", 0.5)):
        cells[place] = {seeds: with_memory(each, next(memories)) for seeds, each in table.cells[place].items()}
    first, second = details(replace(table, cells=cells), "plain", is_short=True)["ratios"]
    place = RECORD_COLUMNS.index("peak GB")
    assert [group["records"][0]["values"][place] for group in (first, second)] == ["2.00", "3.00"]


def test_a_table_is_long_above_so_many_records_each_counted_once(table, monkeypatch):
    keys = {evidence.record.cell.key for by_seeds in table.cells.values() for evidence in by_seeds.values()}
    monkeypatch.setattr(report_details, "MOST_RECORDS", len(keys))
    assert not is_long(table)
    monkeypatch.setattr(report_details, "MOST_RECORDS", len(keys) - 1)
    assert is_long(table)


def test_what_records_share_stands_once(table):
    found = details(table, "plain")
    (variant,) = found["hyperparameters"]
    assert variant["values"] == {"start": "1"} and variant["where"] == ""
    (provenance,) = found["provenance"]
    assert provenance["values"]["commit"] == "c0ffee with uncommitted changes"
    assert setting(table)["backbone"] == "small"


def test_no_id_is_given_twice(table):
    ids = [r["id"] for row in rows(table, {}) for group in row["ratios"] for r in group["records"] if r["id"]]
    assert len(ids) == len(set(ids))


def test_a_row_without_records_says_why(table):
    assert "10 %: failed: out of memory (seed 0)" in details(table, "absent")["missing"]


def test_only_web_addresses_become_links(table):
    assert details(table, "plain", plain="https://example.org")["paper"] == "https://example.org"
    assert details(table, "plain", plain="javascript:alert(1)")["paper"] == ""


def test_a_single_record_has_what_its_row_has(table):
    evidence = table.cells["plain", 0.1][0, 0]
    found = of_record(evidence)
    assert found["numbers"]["mAP"] == f"{100 * evidence.record.metrics['mAP']:.1f}" and "origin" not in found["numbers"]
    assert found["categories"][-1] == "–"  # nothing has the last one
    assert found["recipe"] == details(table, "plain")["recipe"]


def test_records_lead_where_they_are_said_to(table):
    found = rows(table, {}, lambda key: f"records/{key}")
    hrefs = {record["href"] for row in found for group in row["ratios"] for record in group["records"]}
    assert hrefs == {f"records/{e.record.cell.key}" for by in table.cells.values() for e in by.values()}
