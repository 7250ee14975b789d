"""The card is Markdown that says what the statistics say."""

import numpy as np
import pytest

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.tools.inspection import card
from mlrpl_bench.tools.inspection.label_statistics import measure
from tests.helpers.made_up_labels import labels, split


@pytest.fixture(scope="module")
def statistics():
    return measure({"train": split(labels(50, 12)), "test": split(labels(20, 12, seed=1))})


def tables(text: str) -> dict[str, list[list[str]]]:
    """By title, the rows of cells, the head first."""
    found = {}
    for section in text.split("## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "---" not in line]
        found[section.splitlines()[0]] = rows
    return found


def test_every_table_is_as_wide_in_each_of_its_lines(statistics):
    for section in card.markdown(statistics, "mine").split("## ")[1:]:
        assert len({len(line) for line in section.splitlines() if line.startswith("|")}) == 1


def test_the_card_has_the_counts(statistics):
    text = card.markdown(statistics, "mine", "Pictures of things.")
    assert text.startswith("# mine\n\nPictures of things.\n\n## Images")
    found = tables(text)
    assert [row[:2] for row in found["Images"]] == [["split", "images"], ["train", "50"], ["test", "20"]]
    known = found["Known training labels, mask seed 0"]
    assert [row[0] for row in known[1:]] == [f"0.{tenth}" for tenth in range(1, 10)]
    fewest = int(statistics.known[0].positives_C.min())
    assert known[1][3].startswith(f"{fewest} thing ")
    rarest = found["Rarest categories"][1]
    column = statistics.by_frequency()[-1]
    assert rarest[:2] == [f"thing {column}", str(statistics.train.positives_C[column])]
    assert len(found["Rarest categories"]) == 1 + card.SHOWN


def test_entries_that_are_not_evaluated_get_a_column_only_where_there_are_some(statistics):
    assert "unknown labels" not in card.markdown(statistics, "mine")
    labels_NC = labels(9, 3)
    labels_NC[0, 0] = UNKNOWN
    assert "unknown labels" in card.markdown(measure({"train": split(labels_NC)}), "mine")


def test_without_pairs_the_card_says_so():
    text = card.markdown(measure({"train": split(np.full((5, 2), ABSENT, dtype=np.int8))}), "mine")
    assert text.endswith("none, or too rarely to say")


def test_a_name_that_looks_like_markup_is_printed_as_it_is(capsys):
    plain = split(labels(9, 2))
    odd = Split(plain.ids, plain.image_paths, plain.labels_NC, ("[red]a|b[/red]", "c"))
    card.print_card(measure({"train": odd}), "mine", "")
    assert "│ [red]a|b[/red] │" in capsys.readouterr().out
    assert r"| \[red\]a\|b\[/red\] |" in card.markdown(measure({"train": odd}), "mine")


def test_the_whole_card_has_the_known_positives_of_every_category_at_every_ratio(statistics):
    title = "Known positives of every category at every ratio, mask seed 0"
    assert title not in tables(card.markdown(statistics, "mine"))
    head, *rows = tables(card.markdown(statistics, "mine", every_category=True))[title]
    assert head == ["category", "train", *(f"at 0.{tenth}" for tenth in range(1, 10))]
    assert [row[0] for row in rows] == [statistics.categories[column] for column in statistics.by_frequency()]
    for row in rows:
        column = statistics.categories.index(row[0])
        assert row[1:] == [
            str(of_C[column])
            for of_C in (statistics.train.positives_C, *(known.positives_C for known in statistics.known))
        ]


def test_shares_of_partly_given_labels_are_shares_of_those_that_were_given():
    labels_NC = np.full((10, 2), ABSENT, dtype=np.int8)
    labels_NC[:3, 0] = PRESENT
    complete = tables(card.markdown(measure({"train": split(labels_NC)}), "mine"))
    labels_NC[5:, 0] = UNKNOWN
    text = card.markdown(measure({"train": split(labels_NC)}), "mine")
    for found, heading, share in ((complete, "% of train", "30"), (tables(text), "% of given", "60")):
        head, first, *_ = next(rows for title, rows in found.items() if title.startswith("Most frequent"))
        assert first[head.index(heading)] == share
    assert "labels, and what follows of them: those that were given as present" in text
