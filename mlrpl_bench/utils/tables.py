"""A table, and how it is written as text, Markdown, CSV and LaTeX. It knows nothing of what stands in it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlrpl_bench.utils.printed_tables import PrintedTable, print_table

BEST, TIED, NOT_COMPARED = "best", "tied", "not compared"
"""These are the marks of an entry."""

LATEX_COLUMNS = 13
"""This is the number of columns for nine known ratios, three averages and an interval."""

NOT_DISTINGUISHED = "≈"
"""Stands before a number that a test does not tell from the best."""


SIGNS = {TIED: NOT_DISTINGUISHED, NOT_COMPARED: "?"}


@dataclass(frozen=True)
class Entry:
    """This is one place of a table.

    Attributes:
        text: as printed.
        mark: `BEST`, `TIED` or empty.
        place: what it shows, (table row's label, known ratio), where it can be followed to records.
        value: the number itself, NaN where there is none; what a page sorts by.
    """

    text: str
    mark: str = ""
    place: tuple[str, str] | None = None
    value: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """Return text, number and mark as plain data."""
        number = float(f"{self.value:.6g}") if math.isfinite(self.value) else None
        return {"text": self.text, "value": number, "mark": self.mark}


@dataclass(frozen=True)
class Table:
    """This holds rows under named columns; the first column holds the rows' labels.

    Attributes:
        name: for files and anchors, such as ``recovery``.
        corner: heads the labels.
        rows: a label and an entry for each column.
        notes: lines below the table.
        wraps: whether entries are sentences, which may be broken where the terminal is narrow.
        repeated: how many columns, from the first on, stand beside the label in every block of a printed table.
        left: places of columns of words among numbers, counted from 1; the label is 0.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, Sequence[Entry]]]
    notes: tuple[str, ...] = ()
    corner: str = "method"
    wraps: bool = False
    repeated: int = 0
    left: tuple[int, ...] = ()

    def markdown(self, level: int = 2, padded: bool = False) -> str:
        """Return a pipe table under a heading of a level, its notes below it; the best is bold.

        Args:
            padded: see `pipe_table`.
        """
        head = [self.corner, *self.columns]
        rows = [[escape_markdown(label), *map(_markdown, entries)] for label, entries in self.rows]
        notes = "".join(f"\n- {note}" for note in map(escape_markdown, self.notes))
        is_left = [place == 0 or place in self.left for place in range(len(head))]
        body = pipe_table([escape_markdown(title) for title in head], rows, is_left, padded)
        body += f"\n{notes}" if notes else ""
        return f"{'#' * level} {escape_markdown(self.title)}\n\n{body}\n"

    def latex(self) -> str:
        """Return a ``table`` environment with the rules of booktabs; the best is bold, what ties with it underlined.

        More columns than fit on a page follow below, in tabulars of `LATEX_COLUMNS` each.
        """
        pieces = [slice(start, start + LATEX_COLUMNS) for start in range(0, len(self.columns), LATEX_COLUMNS)]
        return "\n".join([
            r"\begin{table}",
            r"\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape_latex(self.title)}}}",
            rf"\label{{tab:{self.name}}}",
            *map(self._tabular, pieces),
            *(rf"\par\footnotesize {escape_latex(note)}" for note in self.notes),
            r"\end{table}",
            "",
        ])  # fmt: skip

    def _tabular(self, piece: slice) -> str:
        columns = self.columns[piece]
        head = " & ".join(map(escape_latex, [self.corner, *columns]))
        body = [
            " & ".join([escape_latex(label), *map(_latex, entries[piece])]) + r" \\" for label, entries in self.rows
        ]
        width = f"p{{{0.85 / (len(columns) + 1):.3f}\\linewidth}}"  # of a column of sentences
        layout = width * (len(columns) + 1) if self.wraps else f"l{'r' * len(columns)}"
        lines = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", rf"{head} \\", r"\midrule"]
        return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"])

    def csv(self) -> str:
        """Return the table as CSV text, as printed, without marks."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([self.corner, *self.columns])
        writer.writerows([label, *(entry.text for entry in entries)] for label, entries in self.rows)
        return buffer.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain data, with numbers of six significant digits, None where there is none."""
        rows = [{"label": label, "entries": [entry.to_json() for entry in entries]} for label, entries in self.rows]
        facts = {"title": self.title, "corner": self.corner, "columns": list(self.columns)}
        return {**facts, "rows": rows, "notes": list(self.notes)}

    def print(self) -> None:
        """Print to standard output, see `printed_tables.print_table`."""
        lines = [[label, *map(_plain, entries)] for label, entries in self.rows]
        best = {
            (row, column)
            for row, (_, entries) in enumerate(self.rows, start=1)
            for column, entry in enumerate(entries, start=1)
            if entry.mark == BEST
        }
        print_table(
            PrintedTable(
                title=self.title,
                lines=[[self.corner, *self.columns], *lines],
                notes=self.notes,
                best=best,
                wraps=self.wraps,
                repeated=self.repeated,
                left=self.left,
            )
        )


def from_text(
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    wraps: bool = False,
    repeated: int = 0,
    left: Sequence[int] = (),
) -> Table:
    """Make a table of texts; the first column holds the labels."""
    entries = [(label, [Entry(text) for text in texts]) for label, *texts in rows]
    return Table(name, title, tuple(header[1:]), entries, tuple(notes), header[0], wraps, repeated, tuple(left))


def pipe_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], is_left: Sequence[bool], padded: bool = False
) -> str:
    """Return a table in Markdown, without a line break at the end.

    Args:
        head, rows: cells that are Markdown already, see `escape_markdown`.
        is_left: for each column whether it stands to the left, as words do; numbers stand to the right.
        padded: whether the columns stand below each other in the source as well.

    >>> print(pipe_table(["name", "mAP"], [["sarb", "71.2"]], [True, False]))
    | name | mAP |
    | --- | ---: |
    | sarb | 71.2 |
    """
    if not padded:
        rule = ["---" if left else "---:" for left in is_left]
        return "\n".join(map(_pipes, [head, rule, *rows]))
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * width if left else "-" * (width - 1) + ":" for width, left in zip(widths, is_left, strict=True)]
    lines = [
        [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, is_left, strict=True)
        ]
        for line in [head, rule, *rows]
    ]
    return "\n".join(map(_pipes, lines))


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also inside a table."""
    # An underscore within a word is shown as it is, and method names stay readable in the source.
    special = r"([\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~|&(?=#?\w+;))"
    return re.sub(special, r"\\\1", on_one_line(text))


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "≥": r"$\geq$",
    "–": "--",
    "<": r"$<$",
    ">": r"$>$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    escaped = "".join(LATEX.get(character, character) for character in on_one_line(text).lstrip())
    # After the end of a row, LaTeX takes a bracket for a length and a star for a command's.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def on_one_line(text: str) -> str:
    """Replace line breaks of every kind, and other control characters, which LaTeX refuses, by blanks."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)


def _plain(entry: Entry) -> str:
    return f"{SIGNS[entry.mark]} {entry.text}" if entry.mark in SIGNS else entry.text


def _markdown(entry: Entry) -> str:
    text = escape_markdown(_plain(entry))
    return f"**{text}**" if entry.mark == BEST else text


def _latex(entry: Entry) -> str:
    text = escape_latex(entry.text)
    if entry.mark == BEST:
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if entry.mark == TIED else text


def _pipes(cells) -> str:
    return f"| {' | '.join(cells)} |"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    >>> counted(1, "epoch"), counted(1200, "epoch"), counted(2, "category", "categories")
    ('1 epoch', '1,200 epochs', '2 categories')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
