"""This module shows progress on standard error: a bar for all cells, one for the group in training, and its cells."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from mlrpl_bench.cli.terminal.bars import Bars
from mlrpl_bench.cli.terminal.time_left import TimeLeft
from mlrpl_bench.cli.worker_lines import EndedEpochs, worker_line
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.training.launchers.epochs import Epochs, Silences, epoch_line, step_line
from mlrpl_bench.training.launchers.events import Began, FoundFinished, SweepEvent, Waiting
from mlrpl_bench.training.trainer import EpochDone, Note, StepDone, Working
from mlrpl_bench.utils.progress import duration
from mlrpl_bench.utils.tables import counted

ALL, GROUP = "cells", "group"
"""The bars of all cells that are asked for, and of those that are trained side by side."""

LINE_SECONDS = 60.0
"""A log file gets a line about the cells, a group or a preparation at most this often."""

LONG_SECONDS = 5.0
"""A preparation that lasts longer than this gets a line in a log file."""


class Display:
    """A display shows live bars on a terminal, and lines elsewhere, as in a log file.

    The lines tell of a group's start, of its epochs, and of each finished cell.

    Args:
        clock: seconds from any start that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.began: dict[str, float] = {}
        self.tasks_told: dict[str, float] = {}
        """This holds the time of the last line about each preparation; `began` holds when each began."""
        self.epochs = Epochs(LINE_SECONDS, clock)
        self.console = Console(stderr=True, highlight=False)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        """Whether bars can move; a dumb terminal gets lines, as a log file does."""
        self.progress = Bars(self.console, self.is_live)
        self.time_left = TimeLeft(clock)
        self._cells_told, self._done_told = clock(), 0
        self._silences = Silences(clock)
        self.tasks: dict[str, Any] = {}
        self._bars: set[str] = set()  # the owners of the bars of processes elsewhere
        self._ended = EndedEpochs(LINE_SECONDS, clock)
        self.problems: list[str] = []
        """These lines name the records that could not be used."""

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def report(self, what: str, done: int, total: int) -> None:
        """Show how far a preparation is that takes a while."""
        self._update(what, done, total)
        self._log_preparation(what, done, total)
        if done == total:
            self.progress.remove_task(self.tasks.pop(what))

    def cells(self, done: int, total: int) -> None:
        """Show how many of the cells that are to be trained are done."""
        self.time_left.cells(done, total)
        self._update(ALL, done, total, left=self.time_left.seconds())
        is_news = self._done_told < done < total and self.clock() - self._cells_told >= LINE_SECONDS
        if is_news and not self.is_live:
            self._cells_told, self._done_told = self.clock(), done
            seconds = self.time_left.seconds()
            left = "" if seconds is None else f", about {duration(seconds)} left"
            self._line(f"{done:,} of {counted(total, 'cell')} done{left}")

    def note(self, text: str) -> None:
        """Show a line that a person should read."""
        self._line(text)

    def warn(self, text: str) -> None:
        """Warn of something that is not as it should be."""
        self._line(f"warning: {text}")

    def problem(self, text: str) -> None:
        """Name a record that cannot be used, and keep the line."""
        self.problems.append(text)
        self._line(f"not used: {text}")

    def event(self, title: str, epochs: int, event: SweepEvent) -> None:
        """Show what happened to the cell with this title, which is trained for so many epochs."""
        if not self.is_live:
            self._log(epochs, event)
        if isinstance(event, Waiting):
            cells = "1 cell" if event.cells == 1 else f"{event.cells} cells"
            line = f"waiting for {cells} that other processes train, on {', '.join(event.hosts)}"
            self.console.print(line, markup=False, soft_wrap=True)
        elif isinstance(event, StepDone):
            self._step(title, epochs, event)
        elif isinstance(event, EpochDone):
            loss = sum(value for name, value in event.row.items() if name.startswith("loss."))
            precision = 100 * event.row["test.mAP"]
            self.progress.lines[title] = f"loss {loss:.4f}" + f"  mAP {precision:.1f}" * (not math.isnan(precision))
        elif isinstance(event, Began):
            self._end_group()
            self.group(event.cells, event.steps_per_epoch, event.batch, event.rates, epochs)
        elif isinstance(event, Working):
            return
        elif isinstance(event, Note):
            self.console.print(f"{title}: {event.text}", markup=False, soft_wrap=True)
        else:
            self._end_cell(title)
            if isinstance(event, Finished):
                line = f"{title}: mAP {100 * event.metrics['mAP']:.1f} in {event.seconds:.0f} s"
            elif isinstance(event, FoundFinished) and event.record is not None:
                cost, node = event.record.content["cost"], event.record.content.get("node", "another machine")
                mean = 100 * event.record.metrics["mAP"]
                line = f"{title}: mAP {mean:.1f} in {cost['seconds']:.0f} s on {node}"
            elif isinstance(event, FoundFinished):
                line = f"{title}: trained by another process"
            else:
                line = f"{title}: failed, {event.reason}"
            self.console.print(line, markup=False, soft_wrap=True)

    def made_elsewhere(self, cells: Mapping[str, float]) -> None:
        """Count what other processes make of the cells, for the time that is left."""
        self.time_left.elsewhere(cells)

    def workers(self, at_work: Sequence[AtWork]) -> None:
        """Show a bar for each process that trains cells elsewhere, or log the epochs that they have ended."""
        made = {each.owner: each.cells * each.step / max(each.steps, 1) for each in at_work}
        self.time_left.elsewhere(made)
        if not self.is_live:
            for each in self._ended.news(at_work):
                self._line(worker_line(each))
            return
        for owner in self._bars - {each.owner for each in at_work}:
            self.progress.remove_task(self.tasks.pop(owner))
        self._bars = {each.owner for each in at_work}
        for each in at_work:
            if each.owner not in self.tasks:
                self.tasks[each.owner] = self.progress.add(each.name, each.steps)
            epoch = min(each.epoch + 1, each.epochs)
            # The device last: where a terminal is narrow, the end is cut.
            mean = "" if each.test_mAP is None else f", mAP {each.test_mAP:.1f}"
            facts = f"{counted(each.cells, 'cell')}, epoch {epoch}/{each.epochs}{mean}, {each.device}"
            self.progress.update(self.tasks[each.owner], total=each.steps, completed=each.step, facts=facts)

    def group(self, cells: int, steps: int, batch: int, rates: Sequence[float], epochs: int) -> None:
        """Show that a group of cells begins to train side by side.

        Args:
            steps: the steps in an epoch.
            batch: the images in a step of a cell.
            rates: the learning rate of each cell.
        """
        if not self.is_live:
            rate = " to ".join(f"{rate:.3g}" for rate in sorted({min(rates), max(rates)}))
            words = f"{cells} {'cell' if cells == 1 else 'cells'}, {epochs} {'epoch' if epochs == 1 else 'epochs'}"
            self._line(f"training {words} of {steps} steps, learning rate {rate}")

    def _log(self, epochs: int, event: SweepEvent) -> None:
        """Log an epoch's line once all cells of the group have ended it, and lines within an epoch that takes long."""
        over = self.epochs.hear(epochs, event)
        if over is not None:
            self._line(epoch_line(over))
        if self._silences.due(event, is_told=over is not None) and isinstance(event, StepDone):
            self._line(step_line(self.epochs.standing, event))

    def _log_preparation(self, what: str, done: int, total: int) -> None:
        """Log a preparation, unless it was quick."""
        now = self.clock()
        began = self.began.setdefault(what, now)
        if not self.is_live and now - began >= LONG_SECONDS:
            told = self.tasks_told.get(what, -math.inf)
            if now - told >= LINE_SECONDS or (done == total):
                self.tasks_told[what] = now
                self._line(f"{what}: {done:,} of {total:,}, {duration(now - began)}")
        if done == total:
            self.began.pop(what)
            self.tasks_told.pop(what, None)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _step(self, title: str, epochs: int, event: StepDone) -> None:
        """Show how far the group is of which a cell has made a step."""
        made, total = event.epoch * event.steps_per_epoch + event.step, epochs * event.steps_per_epoch
        self.time_left.here(title, made / max(total, 1))
        self.progress.lines.setdefault(title, "")
        self._update(GROUP, made, total, facts=f"epoch {event.epoch + 1}/{epochs}")
        words = f"training {counted(len(self.progress.lines), 'cell')}"
        self.progress.update(self.tasks[GROUP], description=words)
        if ALL in self.tasks:
            self.progress.update(self.tasks[ALL], left=self.time_left.seconds())

    def _end_cell(self, title: str) -> None:
        self.time_left.ended(title)
        self.progress.lines.pop(title, None)
        if not self.progress.lines:
            self._end_group()

    def _end_group(self) -> None:
        """Take down what is shown of a group; cells that were left to other processes have no end of their own."""
        self.progress.lines.clear()
        if GROUP in self.tasks:
            self.progress.remove_task(self.tasks.pop(GROUP))

    def _update(self, what: str, done: int, total: int, **fields: Any) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.progress.add(what, total, **fields)
        self.progress.update(self.tasks[what], completed=done, **fields)
