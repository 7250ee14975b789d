"""The leaderboard is a pure function of records; every entry here is computed by hand."""

import csv
import dataclasses
import io
import json
import random

import pytest

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.leaderboard.tables.main import Context, Leaderboard, build
from tests.helpers.tiny_study import SETTING, cell, cells_of, evidence, record

RATIOS = (0.1, 0.5)


def row(method: str, *percents: float, seed: int = 0, ratios: tuple[float, ...] = RATIOS, mask_seed: int | None = None):
    """Records of one method with these mAPs; OF1 is one point below and CF1 two."""
    mask_seed = seed if mask_seed is None else mask_seed
    return [
        record(
            cell(method=method, ratio=ratio, seed=seed, mask_seed=mask_seed),
            mAP=percent / 100,
            OF1=percent / 100 - 0.01,
            CF1=percent / 100 - 0.02,
        )
        for ratio, percent in zip(ratios, percents, strict=False)
    ]


def table(records, ratios=RATIOS, missing=None, asked=(), **context) -> Leaderboard:
    in_columns = [record for record in records if record.cell.ratio in ratios]
    return build(cells_of(in_columns), asked, ratios, Context(**context), missing or {})


def rows(leaderboard: Leaderboard) -> list[list[str]]:
    """Without the interval, which has its own tests."""
    at = leaderboard.main.columns.index("95 % interval")
    texts = [[label, *(entry.text for entry in entries)] for label, entries in leaderboard.main.rows]
    return [[*line[: at + 1], *line[at + 2 :]] for line in texts]


def entries(leaderboard: Leaderboard, label: str) -> list[str]:
    (found,) = (row[1:] for row in rows(leaderboard) if row[0] == label)
    return found


def numbers(leaderboard: Leaderboard, label: str, column: str) -> dict:
    facts = leaderboard.to_json()["rows"][label][column]
    return {name: facts[name] for name in ("mean", "std", "seeds")}


THREE_SEEDS = [*row("a", 50, 60), *row("a", 53, 64, seed=1), *row("a", 59, 65, seed=2), *row("b", 40, 70)]


def test_one_seed_gives_the_numbers_themselves_and_their_averages():
    leaderboard = table(row("a", 50.04, 60.06))
    columns = ("10 %", "50 %", "mAP (avg of 2)", "95 % interval", "OF1 (avg of 2)", "CF1 (avg of 2)")
    assert leaderboard.main.columns == columns
    assert entries(leaderboard, "a") == ["50.0", "60.1", "55.0", "54.0", "53.0"]


def test_several_seeds_give_mean_and_sample_standard_deviation():
    # 50, 53, 59: mean 54, deviations -4, -1, 5, so the sample variance is 42 / 2 = 21
    entry = numbers(table(THREE_SEEDS), "a", "10 %")
    assert entry == {"mean": 54.0, "std": 4.5826, "seeds": 3}
    assert entries(table(THREE_SEEDS), "a")[0] == "54.0 ± 4.6"


def test_the_average_over_ratios_is_taken_seed_by_seed_before_the_deviation():
    # 55, 58.5, 62: mean 58.5, deviations -3.5, 0, 3.5
    entry = numbers(table(THREE_SEEDS), "a", "mAP (avg of 2)")
    assert entry == {"mean": 58.5, "std": 3.5, "seeds": 3}


def test_a_row_with_one_seed_has_no_deviation_beside_one_with_three():
    assert entries(table(THREE_SEEDS), "b")[:3] == [f"{mean} (1 of 3 seeds)" for mean in ("40.0", "70.0", "55.0")]
    assert numbers(table(THREE_SEEDS), "b", "10 %") == {"mean": 40.0, "std": None, "seeds": 1}


def test_averages_are_only_over_complete_rows():
    leaderboard = table([*row("a", 50, 60), *row("b", 70)])
    assert entries(leaderboard, "b") == ["70.0", "not run", *["incomplete"] * 3]
    assert numbers(leaderboard, "b", "50 %") == {"mean": None, "std": None, "seeds": 0}


def test_a_seed_with_a_hole_does_not_count_in_the_average():
    leaderboard = table([*row("a", 50, 60), *row("a", 90, seed=1)])
    assert numbers(leaderboard, "a", "10 %") == {"mean": 70.0, "std": 28.2843, "seeds": 2}
    assert numbers(leaderboard, "a", "mAP (avg of 2)") == {"mean": 55.0, "std": None, "seeds": 1}


def test_a_column_that_nobody_has_is_shown_empty():
    assert entries(table(row("a", 50), ratios=(0.1, 0.3)), "a") == ["50.0", "not run", *["incomplete"] * 3]


def test_records_of_other_ratios_stay_out():
    others = [*row("a", 90, seed=1, ratios=(0.9,)), *row("b", 90, ratios=(0.9,))]
    assert table([*row("a", 50, 60), *others]).to_markdown() == table(row("a", 50, 60)).to_markdown()


def test_columns_are_in_ascending_order_of_ratio():
    assert table(row("a", 50, 60), ratios=(0.5, 0.1)).main.columns[:2] == ("10 %", "50 %")


@pytest.mark.parametrize(
    ("ratios", "title"),
    [
        (NINE_RATIOS, "mAP (avg)"),
        (NINE_RATIOS[::-1], "mAP (avg)"),
        ((0.1, 0.5, 0.9), "mAP (avg of 3)"),
        ((1.0,), "OF1 (at 100 %)"),
    ],
)
def test_only_an_average_over_the_nine_ratios_goes_without_their_number(ratios, title):
    assert title in table(row("a", *[50] * 9, ratios=ratios), ratios=ratios).main.columns


def test_nine_other_ratios_are_not_the_nine():
    ratios = (*NINE_RATIOS[:8], 1.0)
    assert "mAP (avg of 9)" in table(row("a", *[50] * 9, ratios=ratios), ratios=ratios).main.columns


def test_rows_go_from_the_lowest_average_to_the_highest_and_those_with_holes_come_last():
    records = [*row("high", 90, 90), *row("holed", 99), *row("low", 20, 30), *row("middle", 10, 80)]
    assert list(table(records).labels) == ["low", "middle", "high", "holed"]


def test_rows_of_one_average_go_by_name():
    records = [*row("c", 40, 60), *row("a", 50, 50), *row("b", 60, 40), *row("z"), *row("y", 1), *row("x", 2)]
    assert list(table(records).labels) == ["a", "b", "c", "x", "y"]


def test_changed_hyper_parameters_are_a_row_of_their_own():
    tried = record(cell(method="a", ratio=0.1, hyperparameters={"alpha": 0.3}, changed=("alpha",)), mAP=0.7)
    assert list(table([*row("a", 50, 60), tried]).labels) == ["a", "a[alpha=0.3]"]


@pytest.mark.parametrize("shuffle", range(5))
def test_records_in_any_order_give_the_same_bytes(shuffle):
    records = [*THREE_SEEDS, *row("c", 55, 55), *row("d", 55), *row("e", 54, 56)]
    text = {"a": "shorter", "c": "longer", "e": "wider"}
    mixed = random.Random(shuffle).sample(records, len(records))
    one, other = table(records, differs=text), table(mixed, differs=dict(reversed(text.items())))
    assert one.to_csv() == other.to_csv()
    assert one.to_markdown() == other.to_markdown()
    assert one.to_json() == other.to_json()


def test_the_json_has_every_secondary_table_by_name():
    leaderboard = table([*row("a", 10, 20), *row("b", 30, 40)])
    content = leaderboard.to_json()
    assert list(content) == ["title", "rows", "notes", "tables"]
    assert list(content["tables"]) == [other.name for other in leaderboard.others]
    assert content["tables"]["rank"] == leaderboard.others[0].to_json()
    json.dumps(content, allow_nan=False)


def test_the_csv_has_two_decimals_and_nothing_where_there_is_no_record():
    lines = table([*row("a", 50.006, 60), *row("b", 12.344)]).to_csv().split("\n")
    assert lines == [
        "method,10 %,50 %,mAP (avg of 2),mAP (avg of 2) low,mAP (avg of 2) high,OF1 (avg of 2),CF1 (avg of 2)",
        "a,50.01,60.00,55.00,55.00,55.00,54.00,53.00",
        "b,12.34,,,,,,",
        "",
    ]


def test_the_csv_has_deviations_where_there_are_several_seeds():
    header, *lines = csv.reader(io.StringIO(table(THREE_SEEDS).to_csv()))
    assert header[:5] == ["method", "10 %", "10 % std", "50 %", "50 % std"]
    # 60, 64, 65: mean 63, deviations -3, 1, 2, variance 14 / 2
    assert dict(zip(header, lines[1], strict=True))["50 % std"] == "2.65"
    assert [line[:5] for line in lines] == [["b", "40.00", "", "70.00", ""], ["a", "54.00", "4.58", "63.00", "2.65"]]


def test_the_csv_quotes_labels_with_commas():
    changed = cell(method="a", ratio=0.1, hyperparameters={"x": 1, "y": 2}, changed=("x", "y"))
    _, line = csv.reader(io.StringIO(table([record(changed)]).to_csv()))
    assert line[0] == "a[x=1, y=2]"


def test_the_markdown_is_a_table_with_title_and_footnotes():
    text = table(row("a", 50, 60)).to_markdown()
    lines = text.split("\n")
    assert lines[:5] == [
        "# Leaderboard of tiny",
        "",
        "| method | 10 % | 50 % | mAP (avg of 2) | 95 % interval | OF1 (avg of 2) | CF1 (avg of 2) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| a | 50.0 | 60.0 | 55.0 | 55.0 – 55.0 | 54.0 | 53.0 |",
    ]
    assert lines[6].startswith("- mAP in percent")
    assert text.endswith("\n")


def test_the_markdown_escapes_pipes():
    changed = cell(method="a", ratio=0.1, hyperparameters={"shape": "x|y"}, changed=("shape",))
    assert r"| a\[shape=x\|y\] | 50.0 |" in table([record(changed)]).to_markdown()


def notes(*arguments, **options) -> str:
    return "\n".join(table(*arguments, **options).notes)


def test_the_notes_name_the_setting():
    text = notes(row("a", 50, 60))
    for fact in ("small backbone", "32 px", "2 epochs", "batch 4", "32-true", "protocol version", "last epoch"):
        assert fact in text


def test_one_seed_is_warned_of():
    assert "one seed: differences between rows may be chance" in notes(row("a", 50, 60))
    assert "seed 0 (mask 0)" in notes(row("a", 50, 60))


def test_several_seeds_are_named_with_their_masks_and_not_warned_of():
    text = notes([*row("a", 50, 60), *row("a", 50, 60, seed=1, mask_seed=0)])
    assert "mean ± standard deviation over seeds 0 (mask 0), 1 (mask 0)" in text
    assert "one seed" not in text


def test_the_seeds_of_all_rows_are_named():
    assert "seeds 0 (mask 0), 1 (mask 1), 2 (mask 2)" in notes(THREE_SEEDS)


def test_how_methods_in_the_table_differ_from_their_papers_is_said_once_each():
    tried = record(cell(method="a", ratio=0.1, hyperparameters={"alpha": 0.3}, changed=("alpha",)))
    text = notes([*row("a", 50, 60), *row("b", 50, 60), tried], differs={"a": "shorter", "b": "", "c": "absent"})
    assert text.count("a differs from its paper: shorter") == 1
    assert "b differs" not in text
    assert "c differs" not in text


def test_methods_that_differ_alike_share_a_line():
    text = notes([*row("a", 50, 60), *row("b", 40, 60), *row("c", 30, 60)], differs={"a": "x", "b": "y", "c": "x"})
    assert "c, a differ from their papers: x" in text and "b differs from its paper: y" in text


def test_how_the_setting_differs_from_the_papers_is_said():
    deviations = ["epochs 2 (papers: 20)", "batch 4 (papers: 16)"]
    text = notes(row("a", 50, 60), deviations=deviations)
    assert "this setting is not the papers': epochs 2 (papers: 20); batch 4 (papers: 16)" in text
    assert "not the papers'" not in notes(row("a", 50, 60))


def test_without_records_there_is_an_empty_table_that_says_so():
    leaderboard = table([])
    assert (rows(leaderboard), leaderboard.notes) == ([], ("no records",))
    assert leaderboard.to_csv().startswith("method,10 %,50 %,mAP (avg of 2)")


def test_the_printed_table_shows_labels_and_numbers_as_they_are(capsys):
    changed = cell(method="a", ratio=0.1, hyperparameters={"alpha": 0.3}, changed=("alpha",))
    table([*THREE_SEEDS, record(changed)], differs={"a": "[bold]x[/bold]"}).print()
    printed = capsys.readouterr().out
    for text in ("Leaderboard of tiny", "a[alpha=0.3]", "54.0 ± 4.6", "mAP (avg of 2)", "[bold]x[/bold]"):
        assert text in printed


def with_line(records, ratio=1.0) -> Leaderboard:
    upper = {e.seeds: e for e in map(evidence, records)}
    cells = {**cells_of(THREE_SEEDS), **({("upper", ratio): upper for ratio in RATIOS} if upper else {})}
    return build(cells, ["a"], RATIOS, Context(reference_rows={"upper": "a with 100 % of the labels known"}), {})


def test_a_line_stands_on_top_with_one_number_in_every_column_and_is_never_the_best():
    leaderboard = with_line(row("a", 90, ratios=(1.0,)) + row("a", 94, ratios=(1.0,), seed=1))
    assert entries(leaderboard, "upper")[:3] == ["92.0 ± 2.8 (2 of 3 seeds)"] * 3
    assert leaderboard.labels == ["upper", "b", "a"]
    assert rows(leaderboard)[1:] == rows(table(THREE_SEEDS))
    marks = {label: entries[0].mark for label, entries in leaderboard.main.rows}
    assert marks == {"upper": "", "a": "best", "b": "not compared"}
    assert any(note.startswith("upper: a with 100 %") for note in leaderboard.notes)


def test_a_line_without_records_is_not_there():
    assert with_line([]).labels == table(THREE_SEEDS).labels


def test_a_hole_says_why():
    missing = {("a", 0.5): "failed: out of memory (seed 0)", ("b", 0.1): "still running (process 3 on x) (seed 0)"}
    leaderboard = table([*row("a", 50), *row("c", 50, 60)], missing=missing, asked=["a", "b"])
    assert entries(leaderboard, "a")[:3] == ["50.0", "failed", "incomplete"]
    assert entries(leaderboard, "b")[:3] == ["running", "not run", "incomplete"]
    assert "a at 50 %: failed: out of memory (seed 0)" in leaderboard.notes
    assert leaderboard.to_json()["rows"]["b"]["10 %"]["status"].startswith("still running")


def test_a_stopped_cell_says_where_it_stands_in_every_table():
    missing = {
        ("a", 0.5): "stopped at epoch 1 of 2 (seed 0); not run (seed 1)",
        ("b", 0.1): "interrupted at epoch 12 of 20 (process 3 on x) (seed 0)",
    }
    leaderboard = table(row("c", 50, 60), missing=missing, asked=["a", "b"])
    assert entries(leaderboard, "a")[1] == "stopped at epoch 1 of 2"
    assert entries(leaderboard, "b")[0] == "interrupted at epoch 12 of 20"
    assert "| stopped at epoch 1 of 2 |" in leaderboard.to_markdown()
    assert "a,0.5,mAP,%,,,0,,,,,stopped at epoch 1 of 2 (seed 0); not run (seed 1)," in leaderboard.tidy_csv()


def test_an_entry_on_fewer_seeds_than_others_says_so():
    assert entries(table(THREE_SEEDS), "b")[0] == "40.0 (1 of 3 seeds)"


def test_the_notes_name_only_lines_that_the_table_has_and_what_went_nowhere():
    lines = {"upper": "a with 100 % of the labels known"}
    notes = table(row("a", 50, 60), reference_rows=lines, stalled=["training went nowhere, a at 10 %"]).notes
    assert not any(note.startswith("upper") for note in notes)
    assert "training went nowhere, a at 10 %" in notes


def test_one_ratio_is_no_average_and_one_epoch_no_epochs():
    setting = dataclasses.replace(SETTING, epochs=1)
    one = [record(cell(setting=setting, method=name, ratio=0.5), mAP=0.5) for name in ("a", "b")]
    leaderboard = table(one, ratios=(0.5,))
    assert leaderboard.main.columns == ("50 %", "95 % interval", "OF1 (at 50 %)", "CF1 (at 50 %)")
    text = leaderboard.to_markdown()
    for wrong in ("avg of 1", "1 epochs", "over 1 ", "average mAP", "averaged over"):
        assert wrong not in text
    assert ", 1 epoch, " in text
    assert leaderboard.to_csv().startswith("method,50 %,50 % low,50 % high,OF1 (at 50 %),CF1 (at 50 %)")


def test_cells_of_different_kinds_of_device_are_told_of_and_those_of_one_kind_are_not():
    records = row("a", 50, 60)
    on = [dataclasses.replace(each, content={**each.content, "device": "H100"}) for each in records]
    assert not [note for note in table(on).notes if "kinds of device" in note]
    on[1] = dataclasses.replace(on[1], content={**on[1].content, "device": "x86_64 CPU"})
    (note,) = (note for note in table([*on, *row("b", 40, 50)]).notes if "kinds of device" in note)
    assert note.endswith(": 1 cell on H100, 2 cells on an unknown device, 1 cell on x86_64 CPU")
