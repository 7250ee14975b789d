"""Draws the page's figures as files for papers, each as PNG and SVG; the same records give the same bytes."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.leaderboard.numbers import RECOVERY
from mlrpl_bench.leaderboard.report import page_data as content
from mlrpl_bench.leaderboard.report.attention_picture import plain, png
from mlrpl_bench.leaderboard.report.curves import Course
from mlrpl_bench.leaderboard.report.picture_text import picture_names
from mlrpl_bench.leaderboard.tables.main import Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b62a4", "#c04a08", "#00795a", "#9b3f8d", "#77660a", "#1f8fb8", "#33383e", "#c8385f")
"""These colours are told apart by every kind of colour vision, with `DASHES` and `MARKERS` in grey as well."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 3)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (9, 3)), (0, (3, 1.5)), ":", "-.")
MARKERS = "os^Dv<>p"
QUIET = "#565d66"
DPI = 200
PANELS = 12
"""Scalars that are drawn at most."""
POINTS = 100


def draw_all(table: Leaderboard, defaults: Collection[str] = ()) -> dict[str, bytes]:
    """Draw all figures, by file name; one without anything to show is left out.

    Args:
        defaults: rows to show besides the strongest and the weakest.
    """
    rows = content.chosen(table, defaults)
    lowest = [ratio for ratio in table.ratios if any((row, ratio) in table.cells for row in rows)][:1]
    courses = content.courses(table, content.methods(table), lowest, POINTS)
    at_lowest = {row: next(iter(by_ratio.values())) for row, by_ratio in courses.items() if by_ratio}
    known = f"{table.context.given.ratio_title(lowest[0])} known" if lowest else ""
    figures = {
        "map-by-ratio": _by_ratio(
            table, rows, "mAP", "mAP on the evaluated images (percent)", table.context.reference_rows
        ),
        "recovery-by-ratio": _by_ratio(table, rows, RECOVERY, "mAP over hidden training labels (percent)", ()),
        "losses": _losses({row: at_lowest[row] for row in rows if row in at_lowest}, known),
        "scalars": _scalars(at_lowest, rows, known),
        "categories": _categories(table, rows, defaults),
    }
    return {
        f"{name}.{kind}": content
        for name, figure in figures.items()
        if figure is not None
        for kind, content in _saved(figure, f"mlrpl-bench {name}").items()
    }


def _by_ratio(
    table: Leaderboard, rows: Sequence[str], metric: str, title: str, reference_rows: Collection[str]
) -> Figure | None:
    found = content.curves(table, metric)
    if not any(row in found for row in rows):
        return None
    figure = _figure(6.4, 4.2)
    panel = figure.subplots()
    for slot, row in enumerate(rows):
        points = np.array(found.get(row) or np.empty((0, 4)), dtype=np.float64)
        panel.plot(
            100 * points[:, 0], points[:, 1], **_style(slot), marker=MARKERS[slot], markersize=4.5, label=plain(row)
        )
        panel.fill_between(100 * points[:, 0], points[:, 2], points[:, 3], color=COLOURS[slot], alpha=0.1, linewidth=0)
    for row in reference_rows:
        if row in found:
            panel.axhline(found[row][0][1] or 0, color=QUIET, linestyle=":", linewidth=1, label=plain(row))
    panel.set_xticks([100 * ratio for ratio in table.ratios], [*map(table.context.given.ratio_title, table.ratios)])
    _label(panel, "known labels", title)
    _legend(figure, panel)
    return figure


def _losses(courses: Mapping[str, Course], known: str) -> Figure | None:
    """Draw a panel with the loss terms of each row. A term looks the same in every panel."""
    courses = {row: course for row, course in courses.items() if course.terms}
    if not courses:
        return None
    slots = _common_first([list(course.terms) for course in courses.values()])
    figure = _figure(9.5, 2.5 * -(-len(courses) // 3) + 0.6)
    for panel, (row, course) in _panels(figure, courses):
        for name in sorted(course.terms, key=slots.__getitem__):
            values_S = course.terms[name]
            steps = (np.arange(len(values_S)) + 0.5) / len(values_S) * course.epochs
            panel.plot(steps, values_S, **_style(slots[name]))
        panel.set_title(plain(row), fontsize=9)
        _label(panel, "epoch", "loss")
    _legend_of(figure, {name.replace("_", " "): slot for name, slot in slots.items()})
    figure.suptitle(f"Loss terms, {known}", fontsize=10)
    return figure


def _common_first(names_by_row: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return a slot for each name: first those that most rows have, so that the solid line is the one to compare by.

    >>> _common_first([["a", "b"], ["b"]])
    {'b': 0, 'a': 1}
    """
    times = Counter(name for names in names_by_row for name in names)
    return {name: slot for slot, name in enumerate(sorted(times, key=lambda name: (-times[name], name)))}


def _scalars(courses: Mapping[str, Course], rows: Sequence[str], known: str) -> Figure | None:
    """Draw a panel for each scalar that several rows log (or else any), such as mixing weights; a line for each row.

    One that is zero throughout is named below the title: an empty panel says no more.
    """
    by_name: dict[str, list[str]] = {}
    for row, course in courses.items():
        for name in course.columns:
            if name.startswith("scalar."):
                by_name.setdefault(name, []).append(row)
    zero = [name for name, logging in by_name.items() if not any(np.any(courses[row].columns[name]) for row in logging)]
    by_name = {name: logging for name, logging in by_name.items() if name not in zero}
    shared = {name: logging for name, logging in by_name.items() if len(logging) > 1} or by_name
    if not shared:
        return None
    shown = dict(sorted(shared.items(), key=lambda item: (-len(item[1]), item[0]))[:PANELS])
    shown = {name: sorted(logging, key=lambda row: row not in rows)[: len(COLOURS)] for name, logging in shown.items()}
    styles = {row: slot for slot, row in enumerate(dict.fromkeys(row for logging in shown.values() for row in logging))}
    figure = _figure(9.5, 2.5 * -(-len(shown) // 3) + 0.3)
    for panel, (name, logging) in _panels(figure, shown):
        for row in logging:
            values_E = courses[row].columns[name]
            slot = styles[row]
            panel.plot(
                np.arange(1, len(values_E) + 1), values_E, **_style(slot), label=plain(row),
                marker=MARKERS[slot % len(MARKERS)], markersize=3,
            )  # fmt: skip
        panel.set_title(_scalar_title(name), fontsize=9)
        _label(panel, "epoch", "")
        panel.legend(fontsize=6.5, frameon=False)
    nothing = f"\nzero throughout: {', '.join(sorted(map(_scalar_title, zero)))}" if zero else ""
    figure.suptitle(f"What methods log, {known}{nothing}", fontsize=10)
    return figure


def _scalar_title(name: str) -> str:
    return plain(name.removeprefix("scalar.").replace("_", " "))


def _categories(table: Leaderboard, rows: Sequence[str], defaults: Collection[str]) -> Figure | None:
    """Draw bars of the strongest row, marks of the one that it is compared with."""
    average = average_name(table.ratios)
    precision = content.by_category(table)
    titles = [table.context.given.category_title(name) for name in table.context.categories]
    have = [row for row in rows if average in precision.get(row, {})]
    if not have:
        return None
    other = content.compared(have, defaults)
    strong_C = _floats(precision[have[0]][average])
    order = np.argsort(np.where(np.isnan(strong_C), -1, strong_C), kind="stable")
    figure = _figure(6.4, 0.19 * len(order) + 1.2)
    panel = figure.subplots()
    panel.barh(range(len(order)), strong_C[order], height=0.7, color=COLOURS[0], alpha=0.75, label=plain(have[0]))
    if other is not None:
        other_C = _floats(precision[other][average])
        panel.plot(other_C[order], range(len(order)), "s", color=COLOURS[1], markersize=4, label=plain(other))
    names, note = picture_names(titles, 28)
    panel.set_yticks(range(len(order)), [names[place] for place in order], fontsize=7)
    panel.set_ylim(-0.7, len(order) - 0.3)
    panel.set_xlim(0, 100)
    where = f"average over {len(table.ratios)} known ratios" if len(table.ratios) > 1 else f"{average} known"
    caption = f"\n{note}" if note else ""
    _label(panel, f"average precision (percent), {where}{caption}", "", axis="x")
    _legend(figure, panel)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=DPI, layout="constrained")


def _panels(figure: Figure, contents: Mapping[str, Any]) -> Iterator[tuple[Axes, tuple[str, Any]]]:
    columns = min(3, len(contents))
    panels = figure.subplots(-(-len(contents) // columns), columns, squeeze=False).flatten()
    for panel in panels[len(contents) :]:
        panel.set_axis_off()
    yield from zip(panels, contents.items(), strict=False)


def _style(slot: int) -> dict[str, Any]:
    """Return the style of a slot; from the ninth on, a colour comes again with other dashes."""
    turn, slot = divmod(slot, len(COLOURS))
    return {"color": COLOURS[slot], "linestyle": DASHES[(slot + 3 * turn) % len(DASHES)], "linewidth": 1.4}


def _label(panel: Axes, x: str, y: str, axis: Literal["x", "y"] = "y") -> None:
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=7.5)
    panel.grid(axis=axis, color="#d9dbd6", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    if len(panel.patches) and len(labels) > 1:  # matplotlib lists marks before bars, which are what the order is of
        handles, labels = handles[::-1], labels[::-1]
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)), fontsize=7.5, frameon=False)


def _legend_of(figure: Figure, slots: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **_style(slot), label=plain(name)) for name, slot in slots.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(slots)), fontsize=7.5, frameon=False)


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values])


def _saved(figure: Figure, salt: str) -> dict[str, bytes]:
    file = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with _settings(salt):
        pixels = png(figure)
        figure.savefig(file, format="svg", metadata=metadata, facecolor="white")
    return {"png": pixels, "svg": file.getvalue()}


@contextmanager
def _settings(salt: str) -> Iterator[None]:
    """Set ids in the SVG that depend on the figure alone, and text that stays text."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        yield
