"""Published numbers: the file holds what it should, and stands beside measured numbers without mixing."""

import json

import pandas as pd
import pytest

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.evaluation.metrics import REPORTED
from mlrpl_bench.leaderboard.claims import published
from mlrpl_bench.leaderboard.claims.published import STATUSES, Published, load, numbers_of, published_table
from mlrpl_bench.leaderboard.measurements import Lookup
from mlrpl_bench.models.registry import load_datasets, load_methods


def found(*rows):
    """Measurements: method, known ratio, metric, mean."""
    return Lookup(
        pd.DataFrame(
            [
                {"method": m, "known_ratio": r, "metric": metric, "mean": mean, "std": 0.1, "n": 3}
                for m, r, metric, mean in rows
            ]
        )
    )


def test_every_published_number_is_in_range_and_of_a_known_kind():
    ratios = {*(f"{ratio:g}" for ratio in NINE_RATIOS), "avg"}
    for number in load():
        assert 0 < number.value < 100, number
        assert number.known_ratio in ratios and number.metric in REPORTED and number.status in STATUSES, number
        assert number.source and number.method, number


def test_fractions_are_not_mistaken_for_percent():
    assert min(number.value for number in load()) > 20


def test_no_published_number_stands_there_twice():
    keys = [(n.dataset, n.method, n.metric, n.known_ratio, n.source) for n in load()]
    assert len(keys) == len(set(keys)) == 283


def test_the_data_sets_are_ours():
    assert {number.dataset for number in load()} <= set(load_datasets())


def test_sources_are_papers_and_not_files():
    assert not [number for number in load() if ".txt" in number.source or "/" in number.source]


def test_what_is_derived_says_from_what_in_its_source():
    assert all(("derived" in number.source) == (number.status == "derived") for number in load())


def test_every_published_name_of_a_method_exists():
    registry = load_methods()
    names = {registry[name].published for name in registry} - {""}
    assert names and names <= {number.method for number in load()}


NO_ROW_OF_ITS_OWN = {"CFT (category-wise fine-tuning)"}
"""Published rows of a step that follows any method: the paper's own base method is no row here."""


def test_rows_of_other_protocols_have_a_method_here_or_are_of_a_step():
    registry = load_methods()
    here = {registry[name].published for name in registry}
    assert set(published.other_protocols()) - here == NO_ROW_OF_ITS_OWN


def test_every_other_protocol_is_of_a_published_row_and_says_what_differs():
    others = published.other_protocols()
    assert len(others) == len(published.facts("other_protocols.csv")) >= 2
    assert set(others) <= {number.method for number in load()}
    assert all("test images" in how and "/" not in how and len(how) < 300 for how in others.values())


def test_numbers_of_another_protocol_are_marked_and_the_notes_say_how_it_differs():
    names = {"sarb": "SARB", "logicmix_pl": "2WayAug-PL (LogicMix)"}
    rows = [("sarb", "avg", "mAP", 75.4), ("logicmix_pl", "avg", "mAP", 80.0)]
    table = published_table(found(*rows), "coco", names, NINE_RATIOS)
    by_row = {(row[0], row[1]): row[5] for row in table.rows() if row[2:4] == ["avg", "mAP"]}
    assert by_row["logicmix_pl", "2WayAug-PL (LogicMix)"] == "84.3 (other protocol)"
    assert by_row["-", "CFT (category-wise fine-tuning)"] == "83.7 (other protocol)"
    assert by_row["sarb", "SARB"] == "77.9"
    others = published.other_protocols()
    marked = ["2WayAug-PL (LogicMix)", "CFT (category-wise fine-tuning)"]
    expected = [f"(other protocol) {name}: {others[name]}" for name in marked]
    assert [note for note in table.notes() if note.startswith("(other")] == expected
    assert {line["protocol"] for line in table.to_json()["lines"]} == {"", *others.values()}
    text = published_table(found(*rows), "voc2007", names, NINE_RATIOS).table().markdown()
    assert "(other protocol) 2WayAug-PL" in text and "CFT" not in text


def test_numbers_of_a_method_on_a_data_set():
    numbers = numbers_of("coco", "KGGR")
    assert {(n.metric, n.known_ratio, n.value) for n in numbers} >= {("mAP", "avg", 75.6), ("OF1", "avg", 73.7)}
    assert all((n.dataset, n.method) == ("coco", "KGGR") for n in numbers)
    assert numbers_of("scenes", "KGGR") == numbers_of("coco", "nobody") == []


def test_a_measured_number_stands_beside_the_published_one():
    table = published_table(found(("sarb", "avg", "mAP", 75.4)), "coco", {"sarb": "SARB"}, NINE_RATIOS)
    (line,) = [line for line in table.lines if (line.label, line.metric, line.known_ratio) == ("sarb", "mAP", "avg")]
    assert (line.measured, line.published) == (75.4, 77.9)
    assert line.difference == pytest.approx(-2.5)
    assert len(line.sources) == 3, "three sources print it"
    assert table.rows()[table.lines.index(line)][:7] == ["sarb", "SARB", "avg", "mAP", "75.4", "77.9", "-2.5"]


def test_an_average_over_fewer_than_nine_ratios_is_never_beside_a_published_average():
    table = published_table(found(("sarb", "avg of 3", "mAP", 75.4)), "coco", {"sarb": "SARB"}, (0.1, 0.5, 0.9))
    averages = [line for line in table.lines if line.known_ratio == "avg" and line.label == "sarb"]
    assert averages and all(line.measured is None and line.difference is None for line in averages)
    assert not [line for line in table.lines if line.measured is not None]


def test_what_nobody_measured_is_listed_too():
    table = published_table(found(("sarb", "avg", "mAP", 75.4)), "coco", {"sarb": "SARB"}, NINE_RATIOS)
    others = {line.published_name for line in table.lines if not line.label}
    assert {"HST", "DualCoOp (reproduced)"} <= others and "SARB" not in others
    listed = {(line.published_name, line.metric, line.known_ratio) for line in table.lines}
    assert listed == {(n.method, n.metric, n.known_ratio) for n in load() if n.dataset == "coco"}


def test_only_the_ratios_of_the_table_and_the_average_are_listed():
    table = published_table(found(("sarb", "0.1", "mAP", 70.0)), "coco", {"sarb": "SARB"}, (0.1, 0.5))
    assert {line.known_ratio for line in table.lines} == {"0.1", "0.5", "avg"}


def test_derived_numbers_are_marked_and_explained():
    table = published_table(found(("kggr", "avg", "mAP", 74.0)), "coco", {"kggr": "KGGR"}, (0.1,))
    row = next(row for row in table.rows() if row[0] == "kggr" and row[2] == "avg" and row[3] == "mAP")
    assert row[5] == "75.6 (derived)"
    assert any(note.startswith("(derived)") for note in table.notes())
    assert not [row for row in table.rows() if row[1] == "SARB" and "derived" in row[5]]


def test_each_footnote_is_the_source_it_stands_for():
    table = published_table(found(("sarb", "avg", "mAP", 75.4)), "coco", {"sarb": "SARB"}, NINE_RATIOS)
    notes = dict(note.split("] ", 1) for note in table.notes() if note.startswith("["))
    assert table.lines and all(line.sources for line in table.lines)
    for line in table.lines:
        for number in line.sources:
            assert any(
                (n.method, n.metric, n.known_ratio, n.value, n.source)
                == (line.published_name, line.metric, line.known_ratio, line.published, notes[f"[{number}"])
                for n in numbers_of("coco", line.published_name)
            )


def test_sources_that_disagree_have_a_line_each(monkeypatch):
    numbers = tuple(
        Published("coco", "SARB", "mAP", "avg", value, "verified", f"paper {value}") for value in (77.0, 78.0)
    )
    monkeypatch.setattr(published, "load", lambda: numbers)
    table = published_table(found(("sarb", "avg", "mAP", 75.0)), "coco", {"sarb": "SARB"}, NINE_RATIOS)
    assert [(line.published, line.difference) for line in table.lines] == [(77.0, -2.0), (78.0, -3.0)]


def test_an_unmeasured_cell_has_no_difference():
    table = published_table(found(("sarb", "avg", "mAP", float("nan"))), "coco", {"sarb": "SARB"}, NINE_RATIOS)
    assert table.lines and all(line.measured is line.difference is None for line in table.lines)
    json.dumps(table.to_json(), allow_nan=False)


def test_a_data_set_that_no_paper_has_gives_an_empty_table():
    table = published_table(found(("sarb", "avg", "mAP", 75.4)), "scenes", {"sarb": "SARB"}, NINE_RATIOS)
    assert (table.lines, table.sources, table.rows(), table.notes()) == ([], [], [], [])


def test_the_published_numbers_are_a_table():
    published_numbers = published_table(found(("sarb", "avg", "mAP", 75.4)), "coco", {"sarb": "SARB"}, (0.1,))
    table = published_numbers.table()
    assert (table.name, table.corner, len(table.rows)) == ("published", "method", len(published_numbers.lines))
    assert table.notes == tuple(published_numbers.notes())
