"""The kept table of photographs, the pack of its records and what the documentation says of them agree."""

import csv
import re

import pytest

from mlrpl_bench.records.packs import importing
from mlrpl_bench.records.store import ResultStore
from tests.helpers.places import ROOT

REFERENCE = ROOT / "results" / "reference"
RATIOS = ("10 %", "50 %", "90 %")


@pytest.fixture(scope="module")
def table():
    with (REFERENCE / "coco18-paper-rows.csv").open(newline="", encoding="utf-8") as file:
        return {row["method"]: [float(row[ratio]) for ratio in RATIOS] for row in csv.DictReader(file)}


def test_the_table_is_what_the_packed_records_say(table, tmp_path):
    store = ResultStore(tmp_path)
    importing.bring_in(REFERENCE / "coco18-records.zip", store)
    records = store.survey("coco_json").records
    found = {(record.cell.method, f"{100 * record.cell.ratio:.0f} %"): record.metrics["mAP"] for record in records}
    assert len(records) == len(found) == 17  # kggr has two of three
    expected = {
        (method, ratio): value for method, row in table.items() for ratio, value in zip(RATIOS, row, strict=True)
    }
    assert {cell: 100 * found[cell] for cell in expected} == pytest.approx(expected, abs=0.0051)


def test_the_documentation_shows_the_tables_numbers(table):
    text = (ROOT / "docs" / "seen-on-photographs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", text, re.MULTILINE)
    assert {name: list(map(float, numbers)) for name, *numbers in rows} == {
        method: pytest.approx(row, abs=0.0501) for method, row in table.items()
    }
