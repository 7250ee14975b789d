"""This module makes a site, leaderboard by leaderboard, so that no more than one of them is in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlrpl_bench.leaderboard.report import page
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.tools.site import board_pages, kept_tables, pages
from mlrpl_bench.tools.site.board_pages import HERE, Summary
from mlrpl_bench.tools.site.boards import Board, build
from mlrpl_bench.tools.site.gathering import Gathered
from mlrpl_bench.tools.site.grouping import group
from mlrpl_bench.tools.site.output import Output
from mlrpl_bench.utils.progress import Report, silent

SCRIPTS = (*page.SCRIPTS, "site.js")


@dataclass(frozen=True)
class Made:
    """This class says what was written.

    Attributes:
        folder: of the site.
        pages: how many pages it has.
        boards: how many of them are leaderboards.
        records: how many of them are records.
        bytes: the size of all files.
        removed: how many files of the site as it was before were removed.
        problems: a line for everything that cannot be used.
        notes: a line for everything else that a reader should know.
    """

    folder: Path
    pages: int
    boards: int
    records: int
    bytes: int
    removed: int
    problems: Sequence[str]
    notes: Sequence[str]


def make(
    gathered: Gathered,
    output: Output,
    methods: Registry[MethodEntry],
    datasets: Mapping[str, DatasetEntry],
    labels: Labels,
    report: Report = silent,
) -> Made:
    """Write the pages of everything that was gathered.

    Args:
        gathered: records and kept tables.
        output: where to.
        methods: the registered methods, whose ideas and papers are shown.
        datasets: the registered data sets, by name.
        labels: gives the labels of those that are here.
        report: told about the progress as (what, done, total).

    Raises:
        UserError: a file cannot be written.
    """
    for name, content in (("page.css", page.file("page.css")), ("site.js", page.script(SCRIPTS, HERE))):
        output.add(name, content)
    groups = group(gathered.records, methods.entries, datasets)
    titles = pages.numbered([*(each.dataset for each in groups), *(table.dataset for table in gathered.tables)])
    summaries, problems, shown = list[Summary](), list(gathered.problems), dict[str, str]()
    for each, title in zip(groups, titles, strict=False):
        board = build(each, labels, methods, report)
        if board is None:
            problems.append(f"{title}, {each.about}: none of its records can be used")
            continue
        problems += board.problems
        summaries.append(_write_board(board, title, output, methods, gathered, report))
        shown |= dict.fromkeys([*board.by_key, *(record.cell.key for record, _ in each.others)], title)
    for kept, title in zip(gathered.tables, titles[len(groups) :], strict=True):
        found = kept_tables.summary(kept, title, methods)
        summaries.append(found)
        _add_all(output, kept_tables.render(kept, found))
    summaries.sort(key=lambda one: one.dataset)
    records = [record for record in gathered.records if record.cell.key in shown]
    others = sorted({record.cell.method for record in records})
    _add_all(output, pages.method_pages(summaries, methods.entries, others))
    output.add("data/search.js", pages.search_data(summaries, methods.entries, records, shown))
    output.add("index.html", pages.overview(summaries, records, *map(gathered.public, (problems, gathered.notes))))
    removed = output.finish()
    num_pages = sum(path.endswith(".html") for path in output.files)
    size = sum(output.files.values())
    return Made(output.folder, num_pages, len(summaries), len(records), size, removed, problems, gathered.notes)


def _write_board(
    board: Board, title: str, output: Output, methods: Registry[MethodEntry], gathered: Gathered, report: Report
) -> Summary:
    row_details = board_pages.details_of(board)
    files, with_data = board_pages.render(board, row_details, methods.entries)
    _add_all(output, files)
    total = len(board.group.records) + len(board.group.others)
    for number, (path, content) in enumerate(board_pages.record_pages(board, gathered.places), start=1):
        output.add(path, content)
        report(f"writing pages of {board.group.dataset}", number, total)
    report(f"writing pages of {board.group.dataset}", total, total)
    return board_pages.summary(board, title, row_details, with_data)


def _add_all(output: Output, files: Mapping[str, str | bytes]) -> None:
    for path, content in files.items():
        output.add(path, content)
