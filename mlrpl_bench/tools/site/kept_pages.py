"""This module renders the page of a leaderboard that is kept as a table, without its records."""

from __future__ import annotations

import re
from dataclasses import replace

from mlrpl_bench.leaderboard.report import page
from mlrpl_bench.models.registry import MethodEntry, Registry
from mlrpl_bench.tools.site import names
from mlrpl_bench.tools.site.board_pages import HERE, ROOT, Row, Summary
from mlrpl_bench.tools.site.kept_tables import KeptTable
from mlrpl_bench.utils.tables import Entry, Table


def summary(kept: KeptTable, name: str, methods: Registry[MethodEntry]) -> Summary:
    """Sum a kept table up for other pages; its rows are from weak to strong, as `leaderboard` wrote them.

    Args:
        name: what columns call it.
    """
    slug, average = names.file_name(kept.name), _average(kept.main)
    ranked = [label for label, entries in reversed(kept.main.rows) if label not in methods.aliases]
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
        f"table {kept.name}",
        slug,
        len(ranked),
        0,
        ", ".join(column[:-2] for column in kept.main.columns if re.fullmatch(r"[\d.]+ %", column)) + " %",
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
        shares=f"{found.ratios.replace(' %', chr(0xA0) + '%')}",
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


def _average(table: Table) -> int | None:
    """The place of the column with the average mAP."""
    return next((place for place, column in enumerate(table.columns) if column.startswith("mAP (")), None)


def _seeds(table: Table) -> str:
    """How many seeds the notes name; "" where they name none."""
    found = next((note for note in table.notes if re.search(r"seeds? \d+ \(mask", note)), "")
    number = len(re.findall(r"\d+ \(mask", found))
    return f"{number}" if number else ""


def _method(label: str, methods: Registry[MethodEntry]) -> str:
    alias = methods.aliases.get(label)
    return alias.method if alias is not None else label.partition("[")[0]
