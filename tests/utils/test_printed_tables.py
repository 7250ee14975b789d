"""Tables on terminals of every width: no number is cut, every block has the labels."""

import io
import re
import sys

import pytest

from mlrpl_bench.utils.tables import BEST, Entry, Table, from_text

RATIOS = tuple(f"{tenth}0 %" for tenth in range(1, 10))
NUMBERS = Table(
    "leaderboard",
    "Leaderboard",
    (*RATIOS, "mAP (avg)", "95 % interval"),
    [
        (label, [Entry(f"{row}{place}.5 ± 0.{place}", BEST * (row == 1)) for place in range(11)])
        for row, label in enumerate(["ssgrl", "sarb", "sarb[prototypes=5, reconstruction=0.25, start=3]"], start=1)
    ],
    ("a note " + "of many words " * 30,),
)
SENTENCES = from_text(
    "compare",
    "a and b",
    ["metric", "known ratio", "a", "b", "difference [95 %]", "p", "p (Holm)", "seeds", "verdict"],
    [["mAP", "0.1", "74.2", "62.9", "-11.11 [-150.96, +128.74]", "0.13", "1.00", "2", "cannot be told apart"]],
    ["a note"],
    wraps=True,
    repeated=1,
)


class Screen(io.StringIO):
    """A terminal that keeps what was written."""

    def isatty(self):
        return True


def printed(table: Table, monkeypatch, width: int | None = 80, term: str = "xterm", terminal: bool = True) -> list[str]:
    """The lines on a terminal of a width, or (None) in a file."""
    stream = Screen() if terminal else io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setenv("TERM", term)
        patch.delenv("NO_COLOR", raising=False)
        patch.delenv("FORCE_COLOR", raising=False)
        patch.delenv("COLUMNS", raising=False)
        if width is not None:
            patch.setenv("COLUMNS", str(width))
        table.print()
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


@pytest.mark.parametrize(
    ("width", "term", "terminal"),
    [(80, "xterm", True), (80, "dumb", True), (80, "xterm", False), (60, "xterm", True), (200, "xterm", True)],
)
def test_no_number_is_cut_and_no_line_is_wider_than_the_terminal(width, term, terminal, monkeypatch):
    lines = printed(NUMBERS, monkeypatch, width, term, terminal)
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    for _, entries in NUMBERS.rows:
        assert all(any(entry.text in line for line in lines) for entry in entries)
    assert all(any(title in line for line in lines) for title in NUMBERS.columns)


def test_every_block_begins_with_the_labels(monkeypatch):
    lines = printed(NUMBERS, monkeypatch)
    blocks = sum(line.startswith("┏") for line in lines)
    assert blocks > 1
    assert sum(line.startswith("│ ssgrl ") for line in lines) == blocks
    assert sum(line.startswith("┃ method ") for line in lines) == blocks


def test_a_long_label_is_broken_and_nothing_of_it_is_lost(monkeypatch):
    lines = printed(NUMBERS, monkeypatch, width=40)
    block = "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))
    assert "sarb[prototypes=5,reconstruction=0.25,start=3]" in block.replace(" ", "")


def test_a_table_that_fits_is_one_block(monkeypatch):
    lines = printed(NUMBERS, monkeypatch, width=300)
    assert sum(line.startswith("┏") for line in lines) == 1


def test_into_a_file_goes_one_block_and_a_note_is_one_line(monkeypatch):
    lines = printed(NUMBERS, monkeypatch, width=None, terminal=False)
    assert sum(line.startswith("┏") for line in lines) == 1
    assert lines[-1] == f"- {NUMBERS.notes[0]}".rstrip() or lines[-1] == f"- {NUMBERS.notes[0]}"
    assert "* 10.5 ± 0.0" in "".join(lines)


def test_on_a_terminal_the_best_is_bold_and_has_no_star(monkeypatch):
    assert "*" not in "".join(printed(NUMBERS, monkeypatch, width=300))


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_words_of_sentences_are_whole_and_the_rows_identity_is_in_every_block(width, monkeypatch):
    lines = printed(SENTENCES, monkeypatch, width)
    text = " ".join(lines)
    for number in ("-11.11", "[-150.96,", "+128.74]", "74.2", "62.9", "0.13", "1.00"):
        assert f" {number} " in text
    assert max(map(len, lines)) <= width
    blocks = sum(line.startswith("┏") for line in lines)
    assert sum(bool(re.match(r"│ mAP +│ 0\.1 ", line)) for line in lines) == blocks


def test_wide_letters_take_two_places(monkeypatch):
    wide = Table("t", "", ("a", "b"), [("猫" * 20, [Entry("1.0"), Entry("2.0")])])
    (line,) = (line for line in printed(wide, monkeypatch, 80) if line.startswith("│"))
    assert "猫" * 20 in line and "1.0" in line and "2.0" in line
