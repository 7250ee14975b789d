"""What a person sees while cells are trained: one bar for the cells, one for the cell at hand. On standard error."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mlrpl_bench.records.cell import Finished
from mlrpl_bench.training.launchers.sweep import FoundFinished, SweepEvent, Waiting
from mlrpl_bench.training.trainer import EpochDone, Failed, Note, StepDone


class Display:
    """Live bars on a terminal; elsewhere (a log file) one line for each finished cell."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def report(self, what: str, done: int, total: int) -> None:
        """A preparation that takes a while."""
        self._update(what, done, total)
        if done == total:
            self.progress.remove_task(self.tasks.pop(what))

    def cells(self, done: int, total: int) -> None:
        """How many of the cells that are to be trained are done."""
        self._update("cells", done, total)

    def event(self, title: str, epochs: int, event: SweepEvent) -> None:
        """Something happened to the cell with this title."""
        if isinstance(event, Waiting):
            cells = "1 cell" if event.cells == 1 else f"{event.cells} cells"
            line = f"waiting for {cells} that other processes train, on {', '.join(event.hosts)}"
            self.console.print(line, markup=False, soft_wrap=True)
        elif isinstance(event, StepDone):
            self._update(title, event.epoch * event.steps_per_epoch + event.step, epochs * event.steps_per_epoch)
        elif isinstance(event, EpochDone):
            loss = sum(value for name, value in event.row.items() if name.startswith("loss."))
            facts = (
                f"epoch {event.row['epoch'] + 1:.0f}/{epochs}  loss {loss:.4f}  mAP {100 * event.row['test.mAP']:.1f}"
            )
            if title not in self.tasks:  # it goes on from the last step of an epoch
                self._update(title, 0, epochs)
            self.progress.update(self.tasks[title], facts=facts)
        elif isinstance(event, Note):
            self.console.print(f"{title}: {event.text}", markup=False, soft_wrap=True)
        else:
            if title in self.tasks:
                self.progress.remove_task(self.tasks.pop(title))
            if isinstance(event, Finished):
                line = f"{title}: mAP {100 * event.metrics['mAP']:.1f} in {event.seconds:.0f} s"
            elif isinstance(event, FoundFinished):
                line = f"{title}: trained by another process"
            else:
                line = f"{title}: failed, {event.reason}"
            self.console.print(line, markup=False, soft_wrap=True)

    @staticmethod
    def ends_a_cell(event: SweepEvent) -> bool:
        """Whether the cell of this event is through, one way or the other."""
        return isinstance(event, (Finished, FoundFinished, Failed))

    def _update(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.progress.add_task(what, total=total, facts="")
        self.progress.update(self.tasks[what], completed=done)
