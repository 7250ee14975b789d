"""A table that `leaderboard` wrote as Markdown is read back as it was."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mlrpl_bench.models.registry import Registry
from mlrpl_bench.tools.site.kept_tables import read_kept_tables, render, summary
from mlrpl_bench.utils.tables import BEST, TIED, Entry, Table
from tests.helpers.made_up_site import KEPT
from tests.helpers.made_up_table import leaderboard
from tests.helpers.places import ROOT
from tests.helpers.tiny_study import refusal


@pytest.fixture
def kept(tmp_path):
    (tmp_path / "squares-all.md").write_text(KEPT, encoding="utf-8")
    (found,) = read_kept_tables(tmp_path)
    return found


def test_entries_marks_and_notes_come_back(kept):
    assert (kept.dataset, kept.main.columns) == ("squares", ("10 %", "mAP (at 10 %)", "95 % interval"))
    plain, other = kept.main.rows
    assert plain[1][0] == Entry("40.0 ± 1.0", value=40.0) and plain[1][1] == Entry("40.0 ± 1.0", TIED, value=40.0)
    assert other[0] == "other[a_b=1]" and other[1][0] == Entry("41.5", BEST, value=41.5)
    assert kept.others[0].rows[0][0] == "a|b" and kept.others[0].corner == "category"


def test_a_table_written_here_is_read_as_it_was(tmp_path):
    table = leaderboard(tmp_path / "records", ["plain", "a|b*c"])
    (tmp_path / "t.md").write_text(table.to_markdown(), encoding="utf-8")
    (found,) = read_kept_tables(tmp_path)

    def shown(of: Table) -> list:
        return [(label, [(entry.text, entry.mark) for entry in entries]) for label, entries in of.rows]

    assert shown(found.main) == shown(table.main) and found.main.notes == table.main.notes
    assert [shown(other) for other in found.others] == [shown(other) for other in table.others]


def test_the_reference_tables_are_read():
    of_photographs = ("coco18-methods", "coco18-three-seeds", "coco18-tuned", "coco18-two-ratios")
    names = (*of_photographs, "scenes-all-methods", "scenes-five-ratios")
    for found, name in zip(read_kept_tables(ROOT / "results" / "reference"), names, strict=True):
        with (ROOT / "results" / "reference" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            labels = [row["method"] for row in csv.DictReader(file)]
        assert labels and [label for label, _ in found.main.rows] == labels
        assert not any(math.isnan(entries[0].value) for _, entries in found.main.rows)


def test_a_row_that_is_not_complete_is_not_the_strongest(kept):
    (label, entries), *others = kept.main.rows
    average = kept.main.columns.index("mAP (at 10 %)")
    incomplete = [Entry("incomplete") if number == average else entry for number, entry in enumerate(entries)]
    main = replace(kept.main, rows=[*others, (label, incomplete)])
    found = summary(replace(kept, main=main), "squares", Registry("method"))
    assert found.best == others[-1][0] != label
    assert {row.label: row.place for row in found.rows}[label] == ""


def test_its_summary_says_what_its_notes_say(kept):
    found = summary(kept, "squares", Registry("method"))
    assert (found.about, found.seeds, found.ratios) == ("small backbone, 32 px, 2 epochs, batch 4", "2", "10 %")
    assert (found.best, found.interval, found.num_records) == ("other[a_b=1]", "39.0 – 43.0", 0)
    assert [(row.method, row.place) for row in found.rows] == [("plain", "2 of 2"), ("other", "1 of 2")]
    (content,) = render(kept, found).values()
    assert "This table is kept without its records" in str(content)


def test_what_is_no_table_is_left_alone_or_refused(tmp_path: Path):
    (tmp_path / "README.md").write_text("# Something else\n")
    assert read_kept_tables(tmp_path) == []
    (tmp_path / "a.md").write_text("# Leaderboard of a\n\n| method | 10 % |\n| --- | --- |\n| b |\n")
    assert "a row of '# Leaderboard of a' has 1 cells where its head has 2" in refusal(
        lambda: read_kept_tables(tmp_path)
    )
    (tmp_path / "a.md").write_text("# Leaderboard of a\n\nnothing\n")
    assert "has no table" in refusal(lambda: read_kept_tables(tmp_path))
