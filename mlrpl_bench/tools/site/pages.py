"""This module renders the pages that show several leaderboards: the overview, the methods, and what search looks in."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlrpl_bench.leaderboard.report import details, page
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.elsewhere.origin import counted_origins
from mlrpl_bench.records.record import Record
from mlrpl_bench.tools.site import names
from mlrpl_bench.tools.site.board_pages import HERE, ROOT, Row, Summary, registered
from mlrpl_bench.utils.tables import Entry, Table, counted

EMPTY = Entry("")
FIRST = ("average mAP", "95 % interval")
"""These columns stand before the known ratios, where a narrow window shows them."""


def numbered(datasets: Sequence[str]) -> list[str]:
    """Name leaderboards by their data sets, with a number where a data set has several.

    >>> numbered(["coco", "scenes", "scenes"])
    ['coco', 'scenes (1)', 'scenes (2)']
    """
    counts, taken, found = Counter(datasets), Counter[str](), []
    for dataset in datasets:
        taken[dataset] += 1
        found.append(dataset if counts[dataset] == 1 else f"{dataset} ({taken[dataset]})")
    return found


def overview(
    summaries: Sequence[Summary], records: Sequence[Record], problems: Sequence[str], remarks: Sequence[str]
) -> str:
    """Render the page that everything begins with.

    Args:
        problems: a line for everything that cannot be used.
        remarks: a line for everything else that a reader should know.
    """
    methods = _rows_by_method(summaries)
    datasets = len({each.dataset for each in summaries})
    lead = (
        f"{counted(len(methods), 'method')} on {counted(datasets, 'data set')}, "
        f"{counted(len(summaries), 'leaderboard')}, {counted(len(records), 'record')}."
    )
    boards, places = _table_of_boards(summaries)
    matrix, more = _table_of_methods(summaries, methods)
    return page.template("overview.html.j2", HERE).render(
        title="Multi-label recognition with partial labels",
        lead=lead,
        root="",
        crumbs=[],
        boards=page.grid(boards, places, leads=[boards.corner]),
        methods=page.grid(matrix, more, {r.label for each in summaries for r in each.rows if r.is_reference}),
        sureness=_sureness(summaries, records),
        problems=problems,
        remarks=remarks,
    )


def _table_of_boards(summaries: Sequence[Summary]) -> tuple[Table, dict[tuple[str, str], str]]:
    columns = ("setting", "strongest", "average mAP", "95 % interval", "methods", "known ratios", "seeds", "records")
    rows, places = [], {}
    for each in summaries:
        best = next((row for row in each.rows if row.label == each.best), None)
        places[each.name, ""] = names.board_page(each.slug)
        if best is not None:
            places[each.name, "best"] = best.href
        rows.append((
            each.name,
            [
                Entry(each.about),
                Entry(each.best or "–", place=(each.name, "best") if best is not None and best.href else None),
                replace(best.average, mark="", place=None) if best is not None else Entry("–"),
                Entry(each.interval or "–"),
                Entry(f"{each.num_methods}", value=each.num_methods),
                Entry(each.ratios),
                Entry(each.seeds),
                Entry(f"{each.num_records:,}" if each.num_records else "not here", value=each.num_records),
            ],
        ))  # fmt: skip
    return Table("boards", "All leaderboards", columns, rows, (), "data set", left=(1,)), places


def _table_of_methods(
    summaries: Sequence[Summary], methods: Mapping[str, Sequence[tuple[Summary, Row]]]
) -> tuple[Table, dict[tuple[str, str], str]]:
    """Return a table of all methods by all leaderboards; a row of changed hyper-parameters has a line of its own."""
    places, by_label = {}, dict[str, dict[str, Entry]]()
    for of_method in methods.values():
        for each, row in of_method:
            places[row.label, ""] = names.method_page(row.method)
            places[row.label, each.name] = row.href
            entry = replace(row.average, place=(row.label, each.name) if row.href else None)
            by_label.setdefault(row.label, {})[each.name] = entry
    columns = tuple(each.name for each in summaries)
    rows = [(label, [by_label[label].get(name, EMPTY) for name in columns]) for label in sorted(by_label)]
    return Table("methods", "All methods", columns, rows), places


def _rows_by_method(summaries: Sequence[Summary]) -> dict[str, list[tuple[Summary, Row]]]:
    found: dict[str, list[tuple[Summary, Row]]] = defaultdict(list)
    for each in summaries:
        for row in each.rows:
            found[row.method].append((each, row))
    return dict(sorted(found.items()))


def _sureness(summaries: Sequence[Summary], records: Sequence[Record]) -> list[str]:
    """Say what intervals cover, where there are none, and who measured."""
    lines = [
        "An interval of 95 % is over test images and seeds; the best of a column is bold, and ≈ marks what a paired "
        "comparison on the same images and seeds does not tell from it. Each leaderboard says over how many seeds.",
    ]
    single = [each.name for each in summaries if each.seeds == "1"]
    if single:
        lines.append(f"With one seed differences between rows may be chance: {', '.join(single)}.")
    for each in summaries:
        if each.without_interval and each.num_records:
            of = counted(each.without_interval, "row")
            lines.append(f"{each.name}: {of} without an interval, because the labels of the test images are not here.")
    kept = [each.name for each in summaries if not each.num_records]
    if kept:
        lines.append(f"Kept as tables without their records, which nothing here can check: {', '.join(kept)}.")
    origins = counted_origins(record.origin for record in records)
    if records:
        own = f"All {len(records):,} records were" if len(records) > 1 else "The record was"
        lines.append(f"{origins[0].upper()}{origins[1:]}." if origins else f"{own} measured by whoever has them.")
        lines.append(
            "A record states the size and the SHA-256 of each of its files; verify --files reads every byte and "
            "computes the numbers again, verify --share trains cells again."
        )
    return lines


@dataclass(frozen=True)
class _Fact:
    idea: str
    paper: str
    differs: str
    known: bool


def method_pages(
    summaries: Sequence[Summary], methods: Mapping[str, MethodEntry], others: Sequence[str] = ()
) -> dict[str, str]:
    """Render the page of each method, by path on the site.

    Args:
        methods: the registered methods; of others only what records say is known.
        others: methods whose records stand in no table.
    """
    by_method = {**{name: [] for name in others}, **_rows_by_method(summaries)}
    return {names.method_page(name): _method_page(name, rows, methods.get(name)) for name, rows in by_method.items()}


def _method_page(name: str, rows: Sequence[tuple[Summary, Row]], entry: MethodEntry | None) -> str:
    standing, places = _standing(name, rows)
    shown: list[dict[str, Any]] = []
    for each, row in rows:
        if row.details is not None:
            title = f"{row.label} on {each.name}"
            shown.append({**row.details, "title": title, "dataset": each.dataset, "about": each.about})
            shown[-1]["board"] = names.board_page(each.slug)
    paper = entry.paper if entry is not None else ""
    return page.template("method.html.j2", HERE).render(
        title=name,
        root=ROOT,
        crumbs=[],
        idea=entry.idea if entry is not None else "",
        paper=paper if re.match(r"https?://", paper) else "",
        differs=entry.differs if entry is not None else "",
        known=entry is not None,
        standing=page.grid(standing, places, leads=[standing.corner]),
        courses=[(row.data, f"{row.label} on {each.name}, {each.about}") for each, row in rows if row.data],
        rows=shown,
        record_columns=details.RECORD_COLUMNS,
    )


def _standing(name: str, rows: Sequence[tuple[Summary, Row]]) -> tuple[Table, dict[tuple[str, str], str]]:
    """Return a row for each of the method's rows on each leaderboard, with a column for whatever a leaderboard has."""
    entries = [{_column(title): entry for title, entry in row.entries.items()} for _, row in rows]
    columns = list(dict.fromkeys(column for of_row in entries for column in of_row))
    ratios = sorted((c for c in columns if re.fullmatch(r"[\d.]+ %", c)), key=lambda c: float(c[:-2]))
    first = [column for column in FIRST if column in columns]
    order = [*first, *ratios, *(column for column in columns if column not in {*first, *ratios})]
    lines, places = [], {}
    for (each, row), of_row in zip(rows, entries, strict=True):
        label = each.name if row.label == name else f"{each.name}, {row.label}"
        places[label, ""] = f"{ROOT}{names.board_page(each.slug)}"
        anchor = row.href.partition("#")[2]
        numbers = [of_row.get(column, EMPTY) for column in order]
        linked = [_within(entry, label, anchor, row, places) for entry in numbers]
        lines.append((label, [Entry(row.place or "–"), *linked]))
    return Table("standing", f"Rows of {name}", ("place", *order), lines, (), "leaderboard"), places


def _column(title: str) -> str:
    """Call the averages of all leaderboards alike, over however many known ratios they are.

    >>> _column("mAP (avg of 3)"), _column("OF1 (at 50 %)"), _column("10 %")
    ('average mAP', 'average OF1', '10 %')
    """
    return re.sub(r"^(\w+) \((?:avg|at) ?.*\)$", r"average \1", title)


def _within(entry: Entry, label: str, anchor: str, row: Row, places: dict[tuple[str, str], str]) -> Entry:
    """Return the same entry, leading to its records further down on the page."""
    if entry.place is None or not anchor:
        return replace(entry, place=None)
    ratio = entry.place[1]
    there = {group["id"] for group in (row.details or {}).get("ratios", ())}
    at_ratio = f"{anchor}-at-{ratio}"
    places[label, ratio] = f"#{at_ratio if at_ratio in there else anchor}"
    return replace(entry, place=(label, ratio))


def search_data(
    summaries: Sequence[Summary],
    methods: Mapping[str, MethodEntry],
    records: Sequence[Record],
    boards: Mapping[str, str],
) -> str:
    """Write the script file that search looks in: text, what it is, and its page.

    Args:
        boards: the name of the leaderboard of each record, by key.
    """
    entries = [[f"{each.name}", f"leaderboard, {each.about}", names.board_page(each.slug)] for each in summaries]
    for name in _rows_by_method(summaries):
        idea = methods[name].idea if name in methods else ""
        entries.append([name, " ".join(filter(None, ["method", idea])), names.method_page(name)])
    for record in sorted(records, key=lambda r: (boards[r.cell.key], r.cell.label, r.cell.ratio, r.cell.seed)):
        about = f"record on {boards[record.cell.key]}, {record.cell.key[:8]}"
        entries.append([record.cell.title, about, names.record_page(record.cell.key)])
    return registered("search", entries)
