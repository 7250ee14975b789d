"""This module reads leaderboards that are kept without their records, as Markdown that ``leaderboard`` wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import BEST, SIGNS, Entry, Table

TITLE = "# Leaderboard of "
LARGEST = 16 * 2**20
"""A file of more bytes is no table that was written here; one of 32 methods with all tables has 60 thousand."""


@dataclass(frozen=True)
class KeptTable:
    """A kept table is a leaderboard of which there are numbers and notes, and no records.

    Attributes:
        name: of its file, without the ending.
        dataset: the name of the data set.
        main: the leaderboard.
        others: its secondary tables.
    """

    name: str
    dataset: str
    main: Table
    others: Sequence[Table]


def read_kept_tables(folder: Path) -> list[KeptTable]:
    """Read the leaderboards that lie on top of a folder, in order of their names; other files are left alone.

    Raises:
        UserError: one begins like a leaderboard and is none.
    """
    found = []
    for path in sorted(folder.glob("*.md")):
        if path.is_file() and path.stat().st_size <= LARGEST:
            text = path.read_text(encoding="utf-8", errors="replace")
            if text.startswith(TITLE):
                found.append(_read(path, text))
    return found


def _read(path: Path, text: str) -> KeptTable:
    sections = re.split(r"^(?=##? )", text, flags=re.MULTILINE)
    try:
        main, *others = [_table(section) for section in sections if section.strip()]
    except ValueError as error:
        raise UserError(f"{path} is no table that leaderboard wrote ({error}); move it away") from error
    return KeptTable(path.stem, main.title.removeprefix(TITLE.lstrip("# ")), main, others)


def _table(section: str) -> Table:
    title, *lines = section.splitlines()
    pipes = [_cells(line) for line in lines if line.startswith("|")]
    notes = [_plain(line[2:]) for line in lines if line.startswith("- ")]
    if len(pipes) < 2:
        raise ValueError(f"{title!r} has no table")
    head, _, *rows = pipes
    if odd := next((row for row in rows if len(row) != len(head)), None):
        raise ValueError(f"a row of {title!r} has {len(odd)} cells where its head has {len(head)}")
    name = re.sub(r"\W+", "-", title.lstrip("# ").lower()).strip("-")
    corner, *columns = map(_plain, head)
    entries = [(_plain(row[0]), list(map(_entry, row[1:]))) for row in rows]
    return Table(name, _plain(title.lstrip("# ")), tuple(columns), entries, tuple(notes), corner)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _entry(cell: str) -> Entry:
    is_best = len(cell) > 4 and cell.startswith("**") and cell.endswith("**")
    text = _plain(cell[2:-2] if is_best else cell)
    mark = BEST if is_best else next((mark for mark, sign in SIGNS.items() if text.startswith(f"{sign} ")), "")
    text = text[2:] if mark in SIGNS else text
    number = re.match(r"[+-]?\d+(?:\.\d+)?(?![\w.])", text)
    return Entry(text, mark, value=float(number.group()) if number else math.nan)


def _plain(markdown: str) -> str:
    r"""Take the escapes of Markdown out again.

    >>> _plain(r"ssgrl\[lr=3\]")
    'ssgrl[lr=3]'
    """
    return re.sub(r"\\(\W|_)", r"\1", markdown)


def labels(tables: Iterable[KeptTable]) -> list[str]:
    """List the rows of kept tables, each once."""
    return list(dict.fromkeys(label for table in tables for label, _ in table.main.rows))
