"""This module draws progress bars, and a line for each cell below them, in the rows and columns that a terminal has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from mlrpl_bench.utils.progress import duration

REFRESHES = 4.0
"""This many refreshes happen in a second."""

SPEED_SECONDS = 300.0
"""A bar's speed is that of the last so many seconds, so that an evaluation between two epochs is in it."""

LAYOUTS = ((24, True), (24, False), (12, False), (6, False), (0, False))
"""Characters of a bar, and whether the time that has passed is shown; the first that fits is taken."""

END = 16
"""Characters at the end of a cell's name that are kept: its known ratio and its seed."""

CUT = "…"


class Left(ProgressColumn):
    """This column shows the time left: a task's own estimate if it has the field ``left``, else that of its speed."""

    def render(self, task: Task) -> Text:
        """Return the time left in words; nothing while it is not known."""
        seconds = task.fields.get("left", task.time_remaining)
        return Text("" if seconds is None else f"{duration(seconds)} left", style="progress.remaining", no_wrap=True)


class Bars(Progress):
    """These bars are followed by lines, and take no more rows than the terminal has; the rest is counted.

    Attributes:
        lines: by the name of a cell that is trained here, what is known of it.
    """

    def __init__(self, console: Console, is_live: bool) -> None:
        self.lines: dict[str, str] = {}
        self._screen = console
        super().__init__(
            console=console,
            transient=True,
            disable=not is_live,
            refresh_per_second=REFRESHES,
            speed_estimate_period=SPEED_SECONDS,
        )

    def add(self, what: str, total: int, **fields: Any) -> TaskID:
        """Add a bar.

        Args:
            fields: ``left`` is the time left in seconds, or None, where the bar's own speed does not tell it.
        """
        return self.add_task(what, total=total, **{"facts": "", **fields})

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars, the lines, and a line that counts what there is no room for."""
        room = max(self._screen.height - 1, 2)  # the cursor stands below
        tasks, lines = [task for task in self.tasks if task.visible], list(self.lines.items())
        if len(tasks) + len(lines) > room:
            shown = tasks[: room - 1], lines[: max(room - 1 - len(tasks), 0)]
        else:
            shown = tasks, lines
        yield self._table(shown[0])
        yield from self._texts(shown[1])
        hidden = {"bars": len(tasks) - len(shown[0]), "cells": len(lines) - len(shown[1])}
        words = [f"{number} more {what if number > 1 else what[:-1]}" for what, number in hidden.items() if number]
        if words:
            yield Text(f"  and {', '.join(words)}", overflow="crop", no_wrap=True)

    def _table(self, tasks: Sequence[Task]) -> Table:
        """Draw bars: wide ones, and beside them the time that has passed, where there is room."""
        unlimited = self._screen.options.update(max_width=10_000)
        for bar, with_elapsed in LAYOUTS:
            self.columns = _columns(bar, with_elapsed)
            table = self.make_tasks_table(tasks)
            if Measurement.get(self._screen, unlimited, table).maximum <= self._screen.width:
                break
        return table

    def _texts(self, lines: Sequence[tuple[str, str]]) -> Iterable[Text]:
        """Draw a line for each cell: its name, of which the middle is cut if it is too long, and its facts."""
        widest = max((cell_len(facts) for _, facts in lines), default=0)
        room = max(self._screen.width - widest - 5, END + 2)
        titles = [
            title if cell_len(title) <= room else f"{title[: room - END - 1]}{CUT}{title[-END:]}" for title, _ in lines
        ]
        width = max(map(cell_len, titles), default=0)
        for title, (_, facts) in zip(titles, lines, strict=True):
            yield Text(f"  {title}{' ' * (width - cell_len(title))}  {facts}", overflow="crop", no_wrap=True)


def _columns(bar: int, with_elapsed: bool) -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        *((BarColumn(bar_width=bar),) if bar else ()),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        *((TimeElapsedColumn(),) if with_elapsed else ()),
        Left(),
    )
