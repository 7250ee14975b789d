"""Draws cost against mAP: points, the front that none of them beats, and names where they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mlrpl_bench.leaderboard.report.figures import COLOURS, QUIET, _figure, _label, _saved
from mlrpl_bench.leaderboard.report.picture_text import drawable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

LONGEST_NAME = 24
WIDE = 5
"""Costs that lie further apart than this many times have a logarithmic axis; on it fewer would have a tick or none."""

CAPTION = "squares: on the front, no row has as high an mAP for as little; names where there is room"

SIDES = (
    (5, 3, "left", "bottom"),
    (5, -3, "left", "top"),
    (-5, 3, "right", "bottom"),
    (-5, -3, "right", "top"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
)
"""These are the places of a name beside its point, in points of a printer, in the order of preference."""

SIDES_OF_FRONT = (
    SIDES[2],
    *(side for side in SIDES if side != SIDES[2]),
    *((-12, up, "right", "bottom") for up in (12, 21)),
)
"""Above and to the left of the front lies nothing, by what a front is; there is room further away too."""


class Point(NamedTuple):
    """This is a row in the picture.

    Attributes:
        label: its name.
        cost: in the unit of the axis, above 0.
        mAP: in percent.
        is_on_front: whether no other one is better at as low a cost.
    """

    label: str
    cost: float
    mAP: float
    is_on_front: bool


def draw(panels: Mapping[str, Sequence[Point]], title: str) -> dict[str, bytes]:
    """Draw a panel for each device; the same points give the same bytes.

    Names that would cover other names or points are left out; the table beside the picture has them all.

    Args:
        panels: by device with its unit, which becomes the title of the cost axis.
        title: of the mAP axis.

    Returns:
        The picture as ``png`` and as ``svg``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(6.4, 4.2 * len(panels))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for panel, (device, points) in zip(axes, panels.items(), strict=True):
        _points(panel, points)
        _label(panel, f"cost of a cell, {drawable(device)}", title)
    axes[-1].set_xlabel(f"{axes[-1].get_xlabel()}\n{CAPTION}")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # so that it is known where the points lie
    for panel, points in zip(axes, panels.values(), strict=True):
        _names(panel, points, canvas.get_renderer())
    return _saved(figure, "mlrpl-bench cost")


def _points(panel: Axes, points: Sequence[Point]) -> None:
    front = sorted((point for point in points if point.is_on_front), key=lambda point: point.cost)
    others = [point for point in points if not point.is_on_front]
    costs = [point.cost for point in points]
    if min(costs) > 0 and max(costs) > WIDE * min(costs):
        panel.set_xscale("log")
        _say_plainly(panel)
    panel.plot([p.cost for p in others], [p.mAP for p in others], "o", color=QUIET, markersize=4, alpha=0.7)
    panel.plot(
        [p.cost for p in front],
        [p.mAP for p in front],
        "s-",
        color=COLOURS[0],
        markersize=5,
        linewidth=1.2,
        drawstyle="steps-post",
        zorder=3,
    )
    panel.margins(x=0.12, y=0.14)


def _say_plainly(panel: Axes) -> None:
    """Write the ticks of a logarithmic axis as numbers, of which an axis under a decade has more than its powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _names(panel: Axes, points: Sequence[Point], renderer: RendererBase) -> None:
    """Name the points of the front first, then as many others as there is room for."""
    from matplotlib.transforms import Bbox

    figure = panel.figure
    places = panel.transData.transform([(point.cost, point.mAP) for point in points])
    size = 3.0 * figure.dpi / 72
    taken = [Bbox.from_extents(x - size, y - size, x + size, y + size) for x, y in places]
    for number in sorted(range(len(points)), key=lambda number: (not points[number].is_on_front, -points[number].mAP)):
        others = [box for place, box in enumerate(taken) if place != number]
        found = _placed(panel, points[number], others, renderer)
        if found is not None:
            taken.append(found)


def _placed(panel: Axes, point: Point, taken: Sequence[Bbox], renderer: RendererBase) -> Bbox | None:
    """Write a point's name on the first side where nothing else is; where it then lies, None where nowhere."""
    inside = panel.get_window_extent(renderer)
    for right, up, horizontal, vertical in SIDES_OF_FRONT if point.is_on_front else SIDES:
        name: Annotation = panel.annotate(
            shortened(point.label, LONGEST_NAME),
            (point.cost, point.mAP),
            (right, up),
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=6.5,
            color=COLOURS[0] if point.is_on_front else QUIET,
            zorder=4,
        )
        name.set_in_layout(False)
        box = name.get_window_extent(renderer)
        fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if fits and not box.count_overlaps(taken):
            return box
        name.remove()
    return None
