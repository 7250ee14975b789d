"""Writes the leaderboard as one HTML file that needs no network; the same records give the same bytes."""

from __future__ import annotations

import base64
import functools
import importlib.resources
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlrpl_bench.leaderboard.measurements import BEST, TIED
from mlrpl_bench.leaderboard.report import details, page_data
from mlrpl_bench.leaderboard.tables.main import Leaderboard
from mlrpl_bench.utils.tables import SIGNS, Entry, Table

if TYPE_CHECKING:
    from jinja2 import Template

MAIN, CORNER = "leaderboard", "method"


class Picture(NamedTuple):
    """A picture on the page.

    Attributes:
        png: the image.
        alt: what it shows, in words.
        caption: the line below it.
    """

    png: bytes
    alt: str
    caption: str


def render(
    table: Leaderboard,
    *,
    extras: Sequence[Table] = (),
    pictures: Sequence[Picture] = (),
    defaults: Collection[str] = (),
    papers: Mapping[str, str] | None = None,
    files: Sequence[str] = (),
) -> str:
    """Render the page of a leaderboard.

    Args:
        table: the leaderboard.
        extras: more tables, such as published numbers or claims; shown before the secondary ones.
        pictures: shown under Examples.
        defaults: rows that the figures show at first besides the strongest and the weakest.
        papers: by method, the address of its paper.
        files: relative addresses of files beside the page.
    """
    places = _places(table)
    setting = details.setting(table)
    is_short = details.num_records(table) > details.MOST_RECORDS
    return _template().render(
        title=table.title,
        dataset=setting.get("dataset", ""),
        num_methods=len(page_data.methods(table)),
        shares=_shares(table),
        given_only=table.context.given.train_unknown > 0,
        evaluated=table.context.given.labels_evaluated(setting.get("evaluate on", "test")),
        setting=setting,
        deviations=table.context.deviations,
        main=_table(table.main, places, table.context.reference_rows),
        extras=[_table(extra, places, table.context.reference_rows) for extra in extras],
        others=[_table(other, places, table.context.reference_rows, follows=not is_short) for other in table.others],
        rows=details.rows(table, papers or {}),
        record_columns=details.RECORD_COLUMNS,
        most_rows=page_data.MOST_ROWS if len(page_data.methods(table)) > page_data.MOST_ROWS else None,
        is_short=is_short,
        pictures=[(base64.b64encode(p.png).decode(), p.alt, p.caption) for p in pictures],
        files=files,
        css=_file("page.css"),
        js=_file("page.js"),
        data=_json(page_data.page_data(table, defaults)),
    )


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.from_string(_file("page.html.j2"))


def _file(name: str) -> str:
    return (importlib.resources.files("mlrpl_bench.leaderboard.report") / "templates" / name).read_text(
        encoding="utf-8"
    )


def _json(data: dict[str, Any]) -> str:
    """For a script element: no character in it can end the element or begin a comment."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _places(table: Leaderboard) -> dict[tuple[str, str], str]:
    """Where a place of a table is followed to: a row's records at a known ratio, or the row where it has none."""
    found = {(label, ""): details.anchor(label) for label in table.labels}
    for label, ratio in table.cells:
        ratios = {evidence.record.cell.ratio for evidence in table.cells[label, ratio].values()}
        if label in table.labels and ratios == {ratio}:  # the upper line shows other ratios' cells
            found[label, f"{ratio:g}"] = details.anchor(label, f"{ratio:g}")
    return found


def _table(
    table: Table, places: Mapping[tuple[str, str], str], reference_rows: Collection[str], follows: bool = True
) -> dict[str, Any]:
    """Turn a table into what the template shows.

    Args:
        follows: whether entries lead to their records, and not rows alone.
    """
    return {
        "name": table.name,
        "title": table.title,
        "corner": table.corner,
        "columns": table.columns,
        "rows": [
            {
                "label": label,
                "href": places.get((label, ""), "") if table.corner == CORNER else "",
                "line": label in reference_rows,
                "entries": [_entry(entry, places if follows else {}) for entry in entries],
            }
            for label, entries in table.rows
        ],
        "notes": table.notes,
    }


def _entry(entry: Entry, places: Mapping[tuple[str, str], str]) -> dict[str, str]:
    number, plus_minus, rest = entry.text.partition(" ± ")
    label, known_ratio = entry.place or ("", "")
    return {
        "number": number,
        "rest": f"{plus_minus.strip()} {rest}" if rest else "",
        "mark": SIGNS.get(entry.mark, ""),
        "class": "best" if entry.mark == BEST else "tied" if entry.mark == TIED else "",
        "href": (places.get((label, known_ratio)) or places.get((label, ""), "")) if entry.place else "",
        "value": "" if math.isnan(entry.value) else f"{entry.value:.6g}",
    }


def _shares(table: Leaderboard) -> str:
    """``10 % to 90 %``, of the labels."""
    ends = [min(table.ratios), max(table.ratios)] if table.ratios else []
    shares = " to ".join(dict.fromkeys(f"{100 * ratio:g} %" for ratio in ends))
    return shares.replace(" %", "\N{NO-BREAK SPACE}%")
