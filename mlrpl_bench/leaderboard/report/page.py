"""Writes the leaderboard as one HTML file that needs no network; the same records give the same bytes."""

from __future__ import annotations

import base64
import functools
import importlib.resources
import json
import math
from collections.abc import Collection, Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, NamedTuple

from mlrpl_bench.leaderboard.measurements import BEST, TIED
from mlrpl_bench.leaderboard.report import details, page_data
from mlrpl_bench.leaderboard.tables.main import Leaderboard
from mlrpl_bench.utils.tables import SIGNS, Entry, Table

if TYPE_CHECKING:
    from jinja2 import Template

CORNER = "method"
PACKAGE = "mlrpl_bench.leaderboard.report"
SCRIPTS = ("tables.js", "draw.js", "training.js", "board.js")
"""These are the scripts of a leaderboard's page, in the order in which they need each other."""


class Picture(NamedTuple):
    """This is a picture on the page.

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
    places = {place: f"#{anchor}" for place, anchor in anchors(table).items()}
    is_short, num_rows = details.is_long(table), len(page_data.methods(table))
    embedded = [(f"data:image/png;base64,{base64.b64encode(p.png).decode()}", p.alt, p.caption) for p in pictures]
    return template("page.html.j2").render(
        **sections(table, places, extras, page_data.MOST_ROWS if num_rows > page_data.MOST_ROWS else None),
        rows=details.rows(table, papers or {}, is_short=is_short),
        is_short=is_short,
        record_columns=details.RECORD_COLUMNS,
        pictures=embedded,
        files=files,
        css=file("page.css"),
        js=script(SCRIPTS),
        data=as_json(page_data.page_data(table, defaults)),
    )


def sections(
    table: Leaderboard,
    places: Mapping[tuple[str, str], str],
    extras: Sequence[Table] = (),
    most_rows: int | None = None,
) -> dict[str, Any]:
    """Collect what the sections of a leaderboard show, whichever page they stand on.

    Args:
        places: the addresses that table entries lead to, by row label and known ratio, see `anchors`.
        extras: more tables, shown before the secondary ones.
        most_rows: so many of the strongest rows can be drawn by training and category; None for all.
    """
    setting, lines = details.setting(table), table.context.reference_rows
    return {
        "title": table.title,
        "dataset": setting.get("dataset", ""),
        "num_methods": len(page_data.methods(table)),
        "shares": _shares(table),
        "given_only": table.context.given.train_unknown > 0,
        "evaluated": table.context.given.labels_evaluated(setting.get("evaluate on", "test")),
        "setting": setting,
        "deviations": table.context.deviations,
        "main": grid(table.main, places, lines),
        "extras": [grid(extra, places, lines) for extra in extras],
        "others": [grid(other, places, lines, follows=not details.is_long(table)) for other in table.others],
        "most_rows": most_rows,
        "drawn": True,
    }


@functools.cache
def template(name: str, package: str = PACKAGE) -> Template:
    """Return the template of a name, which includes others from the same package or from this one."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def source(wanted: str) -> str | None:
        return next((file(wanted, each) for each in (package, PACKAGE) if _path(wanted, each).is_file()), None)

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, loader=FunctionLoader(source)
    )
    return environment.get_template(name)


def script(names: Sequence[str], package: str = PACKAGE) -> str:
    """Return scripts as one, whose names nothing else on a page sees."""
    parts = "\n".join(file(name, package if _path(name, package).is_file() else PACKAGE) for name in names)
    return f'(() => {{\n"use strict";\n{parts}}})();'


def file(name: str, package: str = PACKAGE) -> str:
    """Return the text of one of a package's templates."""
    return _path(name, package).read_text(encoding="utf-8")


def _path(name: str, package: str) -> Traversable:
    return importlib.resources.files(package) / "templates" / name


def as_json(data: Any) -> str:
    """Write data for a script element: no character in it can end the element or begin a comment."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def anchors(table: Leaderboard) -> dict[tuple[str, str], str]:
    """Return where each place of a table leads: to a row's records at a known ratio, or the row where it has none.

    Returns:
        The ids of these places, see `details.anchor`, by row label and known ratio as text.
    """
    found = {(label, ""): details.anchor(label) for label in table.labels}
    for label, ratio in table.cells:
        ratios = {evidence.record.cell.ratio for evidence in table.cells[label, ratio].values()}
        if label in table.labels and ratios == {ratio}:  # the upper line shows other ratios' cells
            found[label, f"{ratio:g}"] = details.anchor(label, f"{ratio:g}")
    return found


def grid(
    table: Table,
    places: Mapping[tuple[str, str], str],
    reference_rows: Collection[str] = (),
    leads: Collection[str] = (CORNER,),
    follows: bool = True,
) -> dict[str, Any]:
    """Turn a table into what the template's macro of this name shows.

    Args:
        places: the addresses that its entries lead to, by row label and known ratio.
        reference_rows: rows that are set apart.
        leads: a table whose corner is one of these has labels that lead somewhere.
        follows: whether entries lead to their records, and not labels alone.
    """
    return {
        "name": table.name,
        "title": table.title,
        "corner": table.corner,
        "columns": table.columns,
        "left": table.left,
        "rows": [
            {
                "label": label,
                "href": places.get((label, ""), "") if table.corner in leads else "",
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
    """Return the range of known ratios, such as ``10 % to 90 %``, of the labels."""
    ends = [min(table.ratios), max(table.ratios)] if table.ratios else []
    shares = " to ".join(dict.fromkeys(f"{100 * ratio:g} %" for ratio in ends))
    return shares.replace(" %", "\N{NO-BREAK SPACE}%")
