"""Prints a table on a terminal or into a file and cuts no number: columns that do not fit follow in blocks below."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FRAME = 3
"""Characters that a column takes besides its text: a blank on either side and a line."""

FILE_WIDTH = 140
"""Characters of a table of sentences where there is neither a terminal nor ``COLUMNS``."""

NARROWEST = 16
"""Characters that a column is given at least before its words are broken."""


@dataclass(frozen=True)
class PrintedTable:
    """These are the texts of a table.

    Attributes:
        lines: the heads, then the rows; each begins with the row's label.
        best: places (line, column) that are bold, or have a star where nobody sees what is bold.
        wraps: whether the texts are sentences, which may be broken into lines; if not, only labels may.
        repeated: how many columns stand beside the label in every block.
        left: columns that stand to the left beside the label, where not all do.
    """

    title: str
    lines: Sequence[Sequence[str]]
    notes: Sequence[str]
    best: Collection[tuple[int, int]] = ()
    wraps: bool = False
    repeated: int = 0
    left: Collection[int] = ()

    def starred(self) -> list[list[str]]:
        """Return the lines with a star before the best."""
        return [
            [f"* {text}" if (row, column) in self.best else text for column, text in enumerate(line)]
            for row, line in enumerate(self.lines)
        ]


def print_table(table: PrintedTable) -> None:
    """Print a table to standard output, as wide as the terminal; its notes below.

    Columns that do not fit follow in a second block, with the row's label again. Only sentences and labels are broken
    into lines. Where there is no terminal, a table of numbers is one block, as wide as it needs to be, and a note is
    one line; ``COLUMNS`` names another width.
    """
    from rich.console import Console

    console = Console(highlight=False)
    is_free = not console.is_terminal and "COLUMNS" not in os.environ
    texts = table.lines if console.is_terminal else table.starred()
    if is_free:
        console = Console(highlight=False, width=FILE_WIDTH if table.wraps else _whole_width(texts))
    widths = _widths(texts, table, console.width)
    if table.title:
        console.print(table.title, style="italic", markup=False, soft_wrap=True)
    for block in _blocks(widths, 1 + table.repeated, console.width):
        _print_block(console, table, texts, _final_widths(block, widths, texts, console.width))
    for note in table.notes:
        console.print(f"- {note}", markup=False, soft_wrap=is_free)


def _whole_width(texts: Sequence[Sequence[str]]) -> int:
    return 1 + sum(_widest(column) + FRAME for column in zip(*texts, strict=True))


def _words(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in text.split()] or [""]


def _widest(texts: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts))


def _widths(texts: Sequence[Sequence[str]], table: PrintedTable, width: int) -> list[int]:
    """Return each column's smallest width: a number whole, a sentence its longest word, a label what room is left."""
    columns, heads = list(zip(*texts, strict=True)), 1 + table.repeated
    least = [_widest(_words(column) if table.wraps else column) for column in columns]
    room = max(NARROWEST, (width - 1 - FRAME * (heads + 1) - max(least[heads:], default=0)) // heads)
    most = max(NARROWEST, width // 2 if table.wraps else width - 1 - (FRAME + NARROWEST) * heads - FRAME)
    return [min(of, room) for of in least[:heads]] + [min(of, most) for of in least[heads:]]


def _blocks(widths: Sequence[int], heads: int, width: int) -> list[list[int]]:
    """Return the columns of each block: the first ones in every block, of the others as many as fit, at least one.

    >>> _blocks([6, 4, 4, 4], heads=1, width=6 + 4 + 4 + 1 + 3 * 3)
    [[0, 1, 2], [0, 3]]
    """
    repeated = list(range(heads))
    blocks = [list(repeated)]
    for place in range(heads, len(widths)):
        taken = 1 + sum(widths[of] + FRAME for of in [*blocks[-1], place])
        if taken > width and len(blocks[-1]) > heads:
            blocks.append(list(repeated))
        blocks[-1].append(place)
    return blocks


def _final_widths(
    block: Sequence[int], narrowest: Sequence[int], texts: Sequence[Sequence[str]], width: int
) -> dict[int, int]:
    """Return each column's width in a block: what is left of the line goes to those that want more, in proportion."""
    wanted = {place: _widest([row[place] for row in texts]) for place in block}
    missing = {place: max(0, wanted[place] - narrowest[place]) for place in block}
    left = width - 1 - sum(narrowest[place] + FRAME for place in block)
    total = sum(missing.values())
    share = 0.0 if left <= 0 or not total else min(1.0, left / total)
    return {place: narrowest[place] + int(share * missing[place]) for place in block}


def _print_block(console: Console, table: PrintedTable, texts: Sequence[Sequence[str]], widths: dict[int, int]) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    found = RichTable(width=1 + sum(width + FRAME for width in widths.values()))
    for place, width in widths.items():
        is_left = place == 0 or table.wraps or place in table.left
        found.add_column(Text(texts[0][place]), justify="left" if is_left else "right", width=width, overflow="fold")
    for row, line in enumerate(texts[1:], start=1):
        # Text, as to rich's markup sarb[prototypes=5] has a tag in it.
        found.add_row(*(Text(line[place], "bold" if (row, place) in table.best else "") for place in widths))
    console.print(found, crop=False)
