"""This module renders a leaderboard's page, the files of its rows' data and the pages of its records."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlrpl_bench.leaderboard.evidence import Evidence
from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.leaderboard.report import curves, details, page, page_data
from mlrpl_bench.leaderboard.tables.main import Leaderboard
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.record import Record
from mlrpl_bench.tools.site import names
from mlrpl_bench.tools.site.boards import Board
from mlrpl_bench.utils.tables import Entry, counted

HERE = "mlrpl_bench.tools.site"
ROOT = "../"
"""This is the way from a page in a folder to the site's own folder."""

POINTS = 60
"""A curve of steps on a record's page has at most so many points."""


@dataclass(frozen=True)
class Row:
    """A row holds what the page of a method shows of one of its rows on one leaderboard.

    Attributes:
        method: the name of the method.
        label: of the row, such as ``sarb[alpha=0.3]``, or another name of the method at one known ratio.
        is_reference: whether it shows the same number in each column.
        entries: by column of the leaderboard.
        place: ``2 of 32`` by average mAP; "" where it has no average.
        average: the entry of the average mAP.
        href: where its records are on the site.
        data: the name of its data; "" where there is none.
        details: see `details.rows`; None where there are no records.
    """

    method: str
    label: str
    is_reference: bool
    entries: Mapping[str, Entry]
    place: str
    average: Entry
    href: str
    data: str
    details: Mapping[str, Any] | None


@dataclass(frozen=True)
class Summary:
    """A summary holds what other pages say of a leaderboard.

    Attributes:
        name: what columns call it, the data set with a number where there are several.
        dataset, about, slug: of its group.
        num_methods, num_records: how many rows but reference rows, and records, it rests on.
        ratios: the known ratios, in words.
        seeds: how many seeds its rows have, in words.
        best: the label of the strongest row; "" where no row has an average.
        interval: the interval of the best row's average mAP.
        rows: its rows, from weak to strong.
        without_interval: how many rows have no interval.
    """

    name: str
    dataset: str
    about: str
    slug: str
    num_methods: int
    num_records: int
    ratios: str
    seeds: str
    best: str
    interval: str
    rows: tuple[Row, ...]
    without_interval: int


def summary(board: Board, name: str, row_details: list[dict[str, Any]], with_data: Collection[str]) -> Summary:
    """Sum a leaderboard up for other pages.

    Args:
        name: what columns call it.
        row_details: see `details_of`.
        with_data: labels of rows that have a file of data.
    """
    table, slug = board.table, board.group.slug
    lines, average, seeds = table.context.reference_rows, average_name(table.ratios), _most_seeds(table)
    ranked = page_data.methods(table)
    with_average = [label for label in ranked if not math.isnan(table.lookup.row(label, average, "mAP").mean)]
    rows = tuple(
        Row(
            method=of["method"],
            label=label,
            is_reference=label in lines,
            entries=dict(zip(table.main.columns, entries, strict=True)),
            place=f"{with_average.index(label) + 1} of {len(with_average)}" if label in with_average else "",
            average=table.lookup.entry(label, average, "mAP", seeds),
            href=f"{names.method_page(of['method'])}#{of['id']}",
            data=names.row_data(slug, label) if label in with_data else "",
            details=of,
        )
        for (label, entries), of in zip(table.main.rows, row_details, strict=True)
    )
    best = with_average[0] if with_average else ""
    return Summary(
        name,
        board.group.dataset,
        board.group.about,
        slug,
        len(ranked),
        len(board.by_key),
        ratios_in_words([f"{100 * ratio:g}" for ratio in table.ratios]),
        _seeds_in_words(table),
        best,
        table.lookup.interval(best, average, "mAP").text if best else "",
        rows,
        sum(math.isnan(table.lookup.row(label, average, "mAP").low) for label in with_average),
    )


def details_of(board: Board) -> list[dict[str, Any]]:
    """List the details of a leaderboard's rows as the pages of methods show them, see `details.rows`."""
    found = details.rows(board.table, {}, lambda key: f"{ROOT}{names.record_page(key)}")
    for row in found:  # a page of a method has rows of several leaderboards
        row["id"] = f"{board.group.slug}-{row['id']}"
        for group in row["ratios"]:
            group["id"] = f"{board.group.slug}-{group['id']}"
    return found


def render(
    board: Board, row_details: list[dict[str, Any]], methods: Mapping[str, MethodEntry]
) -> tuple[dict[str, str | bytes], list[str]]:
    """Render a leaderboard's page with its pictures, and the data of each of its rows.

    Args:
        row_details: see `details_of`.
        methods: the registered methods; figures show the basic ones at first.

    Returns:
        The files by path on the site, and the labels of the rows that have a file of data.
    """
    table, slug = board.table, board.group.slug
    anchors, method_of = page.anchors(table), {row["label"]: row["method"] for row in row_details}
    places = {
        (label, ratio): f"{ROOT}{names.method_page(method_of[label])}#{slug}-{anchor}"
        for (label, ratio), anchor in anchors.items()
    }
    ranked, precision = page_data.methods(table), page_data.by_category(table)
    training = page_data.training_data(table, ranked)
    files: dict[str, str | bytes] = {}
    complete = table.context.given.train_unknown == 0
    with_data = [label for label in ranked if training.get(label) or precision.get(label)]
    for label in with_data:
        content = {"training": training.get(label, {}), "precision": precision.get(label, {}), "complete": complete}
        name = names.row_data(slug, label)
        files[f"data/{name}.js"] = registered(name, content)
    defaults = sorted(name for name, entry in methods.items() if entry.default)
    data = page_data.board_data(table, training, precision, defaults)
    data["files"] = {label: names.row_data(slug, label) for label in with_data}
    pictures = [(f"pictures/{slug}-{number}.png", each) for number, each in enumerate(board.pictures, start=1)]
    files |= {path: each.png for path, each in pictures}
    files[names.board_page(slug)] = page.template("board.html.j2", HERE).render(
        **page.sections(table, places, board.extras),
        root=ROOT,
        crumbs=[],
        kept=False,
        pictures=[(f"{ROOT}{path}", each.alt, each.caption) for path, each in pictures],
        left_out=[(r.cell.title, names.record_page(r.cell.key), reason) for r, reason in board.group.others],
        files=(),
        data=page.as_json(data),
    )
    return files, with_data


def record_pages(board: Board, places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Render the page of each record of a leaderboard's group; yield the path on the site and the page.

    Args:
        places: by key, where a record lies below its folder.
    """
    for evidence in board.by_key.values():
        yield names.record_page(evidence.record.cell.key), _record_page(board, evidence, "", places)
    for record, reason in board.group.others:
        nothing = Evidence(record, {}, math.nan, np.empty(0), math.nan)
        yield names.record_page(record.cell.key), _record_page(board, nothing, reason, places)


def _record_page(board: Board, evidence: Evidence, reason: str, places: Mapping[str, str]) -> str:
    record, context, group = evidence.record, board.table.context, board.group
    cell, facts = record.cell, details.of_record(evidence)
    category_titles = [context.given.category_title(name) for name in context.categories]
    ratio = context.given.ratio_title(cell.ratio)
    course = page_data.plain_course(curves.course_of(record.folder, POINTS))
    seeds = f"seed {cell.seed}" if cell.seed == cell.mask_seed else f"seed {cell.seed}, mask {cell.mask_seed}"
    board_href, method_href = names.board_page(group.slug), names.method_page(cell.method)
    return page.template("record.html.j2", HERE).render(
        title=f"{cell.label}, {ratio} known, {seeds}",
        root=ROOT,
        crumbs=[(group.dataset, board_href), (cell.method, method_href)],
        method=cell.label,
        method_href=method_href,
        board_href=board_href,
        dataset=group.dataset,
        about=group.about,
        reason=reason,
        numbers=facts["numbers"],
        sure=_sure(board.table, cell.label, f"{cell.ratio:g}", ratio) if not reason else "It stands in no table.",
        verified=_verified(record),
        categories=dict(zip(category_titles, facts["categories"], strict=False)),
        identity={"key": cell.key, "place": places[cell.key], "mask": f"sha256 {cell.mask_hash[:16]}"},
        row=facts,
        files=[_file(name, each) for name, each in sorted(record.files.items())],
        data=page.as_json({"courses": {f"{cell.ratio:g}": course}, "complete": context.given.train_unknown == 0}),
    )


def _file(name: str, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    return name, f"{int(facts['bytes']):,}", f"{facts.get('sha256', '')}"[:16]


def _sure(table: Leaderboard, label: str, ratio: str, title: str) -> str:
    """Say how sure the row's number is to which a record belongs."""
    row = table.lookup.row(label, ratio, "mAP")
    if math.isnan(row.mean):
        return f"The table has no column of {title}, which few rows have."
    spread = "" if math.isnan(row.std) else f" ± {row.std:.1f} (standard deviation)"
    what = f"Over {counted(row.n, 'seed')} its row has {row.mean:.1f}{spread} mAP at {title} known"
    if math.isnan(row.low):
        return f"{what}; there is no interval, because the labels of the test images are not here."
    ends = f"{what}, with a 95 % interval of {row.low:.1f} to {row.high:.1f} over test images"
    return f"{ends}{' and seeds' if row.n > 1 else ''}.{' One seed says nothing about other seeds.' * (row.n == 1)}"


def _verified(record: Record) -> str:
    origin = record.origin
    if not origin.pack:
        return "Own: measured by whoever has these records. Its files have the sizes that it states."
    words = origin.to_text()
    rounded = " Its scores were rounded to float16 in the pack." if record.is_rounded() else ""
    pack = f"It came in a pack, of which every byte was checked (sha256 {origin.pack[:16]})."
    return f"{words[0].upper()}{words[1:]}. {pack}{rounded}"


def registered(name: str, content: Any) -> str:
    """Write a script file that hands data to the pages."""
    return f"registerData({page.as_json(name)}, {page.as_json(content)});\n"


def ratios_in_words(percents: Sequence[str]) -> str:
    """Write known ratios in few words.

    >>> ratios_in_words(["10", "50"]), ratios_in_words(["10", "30", "50", "90"]), ratios_in_words([])
    ('10, 50 %', '10 to 90 % (4)', '–')
    """
    if len(percents) > 3:
        return f"{percents[0]} to {percents[-1]} % ({len(percents)})"
    return f"{', '.join(percents)} %" if percents else "–"


def _most_seeds(table: Leaderboard) -> int:
    return max((len(by_seeds) for by_seeds in table.cells.values()), default=0)


def _seeds_in_words(table: Leaderboard) -> str:
    number = sorted({len(by_seeds) for by_seeds in table.cells.values()})
    return f"{number[0]}" if len(number) == 1 else f"{number[0]} to {number[-1]}"
