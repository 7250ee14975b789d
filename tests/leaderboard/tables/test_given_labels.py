"""What tables say about labels that nobody gave, and that they say nothing where all were given."""

from dataclasses import replace

import numpy as np

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.leaderboard.report.page import render
from mlrpl_bench.leaderboard.report.page_data import page_data
from mlrpl_bench.leaderboard.tables.given_labels import GivenLabels
from mlrpl_bench.leaderboard.tables.main import Context, build, main_columns
from tests.helpers.tiny_study import CATEGORIES, cell, cells_of, record

SOME = GivenLabels(100, 40, 60, 6, {"cat": 5, "dog": 1}, {"cat": 20, "dog": 30})
RATIOS = (0.5, 1.0)


def split(labels):
    labels_NC = np.array(labels, dtype=np.int8)
    return Split(range(len(labels)), [None] * len(labels), labels_NC, ("cat", "dog"))


def board(given, **context):
    cells = dict(cells_of([record(cell(ratio=ratio)) for ratio in RATIOS]))
    cells |= {("top", ratio): cells["plain", 1.0] for ratio in RATIOS}
    context = {"categories": CATEGORIES, "reference_rows": {"top": given.share_of_labels(1.0)}} | context
    return build(cells, [], RATIOS, Context(given=given, **context), {})


def test_labels_are_counted():
    train = split([[PRESENT, UNKNOWN], [UNKNOWN, UNKNOWN], [ABSENT, ABSENT]])
    test = split([[PRESENT, PRESENT], [UNKNOWN, PRESENT]])
    assert GivenLabels.from_splits(train, test) == (6, 3, 4, 1, {"cat": 1, "dog": 2}, {"cat": 0, "dog": 0}, False)


def test_complete_labels_leave_every_word_as_it_was():
    complete = GivenLabels(100, 0, 60, 0, {"cat": 5}, {"cat": 1})
    assert [complete.ratio_title(ratio) for ratio in RATIOS] == ["50 %", "100 %"]
    assert complete.share_of_labels(1.0) == "100 % of the labels known" and complete.notes() == []
    assert complete.labels_evaluated("test") == "complete test labels"
    assert complete.labels_evaluated("val") == "complete labels of a tenth of the training images, held out"
    own = complete._replace(own_validation=True)
    assert own.labels_evaluated("val") == "complete labels of the data set's validation images"
    assert own.labels_evaluated("test") == "complete test labels"
    assert complete.category_title("cat") == "cat" and complete.category_note() == ""
    assert board(complete, categories=("cat",)).to_markdown() == board(GivenLabels(), categories=("cat",)).to_markdown()


def test_the_last_column_is_headed_all_given_in_every_form_of_the_table():
    found = board(SOME)
    assert "all given" in found.main.columns and "100 %" not in found.main.columns
    assert "all given" in found.to_csv().splitlines()[0]
    assert "all given" in next(iter(found.to_json()["rows"].values()))
    recovery = next(table for table in found.others if table.name == "recovery")
    assert "all given" in recovery.columns and "given training labels that were hidden" in recovery.notes[0]
    assert "100 %" not in found.to_markdown()


def test_f1_of_the_only_column_is_headed_all_given_too():
    assert [title for title, *_ in main_columns((1.0,), SOME)] == ["all given", "OF1 (all given)", "CF1 (all given)"]
    assert [title for title, *_ in main_columns((1.0,), GivenLabels())][1] == "OF1 (at 100 %)"
    assert [title for title, *_ in main_columns(RATIOS, SOME)][-1] == "CF1 (avg of 2)"


def test_the_notes_count_what_is_unknown_and_rename_the_upper_bound():
    notes = "\n".join(board(SOME).notes)
    assert "40 of 100 training labels are unknown at every ratio" in notes and "shares of the other 60" in notes
    assert "6 of the 60 labels of the images evaluated on are unknown" in notes
    assert "given test labels" in notes and "complete" not in notes
    assert "all given labels known" in notes


def test_the_notes_say_over_how_many_categories_map_is_where_some_cannot_be_measured():
    few = SOME._replace(positives={"cat": 9, "dog": 2, "owl": 0})
    assert "mAP is the mean over 2 of 3 categories; 1 of them rests on fewer than 5 images" in "\n".join(few.notes())
    many = SOME._replace(positives={"cat": 9, "dog": 8})
    assert "mAP is the mean" not in "\n".join(many.notes())


def test_a_table_of_one_label_an_image_keeps_its_own_heading():
    setting = replace(cell().setting, mask_scheme="single_positive")
    found = build(cells_of([record(cell(setting=setting, ratio=1.0))]), [], (1.0,), Context(given=SOME), {})
    assert found.main.columns[0] == "1 label an image"


def test_categories_with_few_positives_are_marked_in_the_table_and_on_the_page():
    names = ("cat", "dog", "owl", "bat")
    given = SOME._replace(
        positives=dict(zip(names, (5, 4, 0, 9), strict=True)), negatives=dict.fromkeys(names, 3) | {"bat": 0}
    )
    marked = ["cat", "dog (4 positives)", "owl (no positives)", "bat (no negatives)"]
    found = board(given, categories=names)
    table = next(table for table in found.others if table.name == "categories")
    assert [label for label, _ in table.rows] == marked
    assert "fewer than 5 evaluated images" in table.notes[-1]
    assert page_data(found)["categories"] == marked
    assert "dog (4 positives)" in render(found)


def test_the_page_says_that_ratios_are_of_the_given_labels():
    assert "of the given labels known" in render(board(SOME)) and page_data(board(SOME))["complete"] is False
    assert "% of the labels known" in render(board(GivenLabels())) and page_data(board(GivenLabels()))["complete"]
