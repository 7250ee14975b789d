"""This module reads and shows leaderboards that are kept without their records, in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlrpl_bench.leaderboard.report import page
from mlrpl_bench.models.registry import MethodEntry, Registry
from mlrpl_bench.tools.site import names
from mlrpl_bench.tools.site.board_pages import HERE, ROOT, Row, Summary, ratios_in_words
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


def summary(kept: KeptTable, name: str, methods: Registry[MethodEntry]) -> Summary:
    """Sum a kept table up for other pages; its rows are from weak to strong, as `leaderboard` wrote them.

    Args:
        name: what columns call it.
    """
    slug, average = names.file_name(kept.name), _average(kept.main)
    own = [(label, entries) for label, entries in reversed(kept.main.rows) if label not in methods.aliases]
    # A row that is not complete has no average and stands at the strong end, but has no place.
    ranked = [label for label, entries in own if average is None or math.isfinite(entries[average].value)]
    rows = tuple(
        Row(
            method=_method(label, methods),
            label=label,
            is_reference=label in methods.aliases,
            entries=dict(zip(kept.main.columns, entries, strict=True)),
            place=f"{ranked.index(label) + 1} of {len(ranked)}" if label in ranked else "",
            average=entries[average] if average is not None else Entry("–"),
            href="",
            data="",
            details=None,
        )
        for label, entries in kept.main.rows
    )
    best = ranked[0] if ranked else ""
    entries = dict(kept.main.rows).get(best, [])
    interval = kept.main.columns.index("95 % interval") if "95 % interval" in kept.main.columns else None
    return Summary(
        name,
        kept.dataset,
        _about(kept),
        slug,
        len(own),
        0,
        _ratios(kept.main),
        _seeds(kept.main),
        best,
        entries[interval].text if interval is not None and entries else "",
        rows,
        0,
    )


def render(kept: KeptTable, found: Summary) -> dict[str, str | bytes]:
    """Render the page of a kept table, by path on the site."""
    places = {(row.label, ""): f"{ROOT}{names.method_page(row.method)}" for row in found.rows}
    lines = [row.label for row in found.rows if row.is_reference]
    tables = [page.grid(table, places, lines) for table in kept.others]
    content = page.template("board.html.j2", HERE).render(
        title=f"Leaderboard of {kept.dataset}",
        root=ROOT,
        crumbs=[],
        kept=True,
        dataset=kept.dataset,
        num_methods=found.num_methods,
        shares=_shares(found.ratios),
        about=found.about,
        given_only=False,
        evaluated="test labels",
        setting={},
        deviations=(),
        main=page.grid(replace(kept.main, name="leaderboard"), places, lines),
        extras=[],
        others=tables,
        pictures=[],
        drawn=False,
        left_out=[],
        files=(),
    )
    return {names.board_page(found.slug): content}


def _ratios(table: Table) -> str:
    percents = [column[:-2] for column in table.columns if re.fullmatch(r"[\d.]+ %", column)]
    return ratios_in_words(percents)


def _shares(ratios: str) -> str:
    """Return the range of known ratios, such as ``10 to 90 %``, as a sentence has it."""
    return re.sub(r" \(\d+\)$", "", ratios).replace(" %", "\N{NO-BREAK SPACE}%")


def _about(kept: KeptTable) -> str:
    """Say under which setting the table was made, as its notes do; else how it is called."""
    note = next((note for note in kept.main.notes if note.startswith("setting: ")), "")
    return note.removeprefix("setting: ").partition(", protocol version")[0].removesuffix(", 32-true") or kept.name


def _average(table: Table) -> int | None:
    """Return the place of the column with the average mAP."""
    return next((place for place, column in enumerate(table.columns) if column.startswith("mAP (")), None)


def _seeds(table: Table) -> str:
    """Return the number of seeds that the notes name; "" where they name none."""
    found = next((note for note in table.notes if re.search(r"seeds? \d+ \(mask", note)), "")
    number = len(re.findall(r"\d+ \(mask", found))
    return f"{number}" if number else ""


def _method(label: str, methods: Registry[MethodEntry]) -> str:
    alias = methods.aliases.get(label)
    return alias.method if alias is not None else label.partition("[")[0]
