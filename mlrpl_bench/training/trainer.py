"""This module trains cells, in the benchmark's only training loop.

`train` takes any number of cells that share a setting, a seed and a batch size: images are read and go through the
frozen part once, then every cell makes its own step. It yields events; its caller shows, stores and stops. A cell that
fails leaves the group and the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mlrpl_bench.models.method import Progress
from mlrpl_bench.records.cell import Cell, Finished, Job
from mlrpl_bench.training import steps
from mlrpl_bench.training.checkpoint import State
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.workbench import Workbench
from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError, one_line


@dataclass(frozen=True)
class StepDone:
    """Every cell of the group made a step; the caller may stop training here and go on later from the states.

    Attributes:
        epoch: the epoch, from 0.
        step: how many steps of the epoch are made.
        steps_per_epoch: the steps in an epoch.
        states: returns the state of each cell; to be called before the next event is asked for.
    """

    epoch: int
    step: int
    steps_per_epoch: int
    states: Callable[[], dict[Cell, State]] = dict


@dataclass(frozen=True)
class Working:
    """The group goes through images without making steps; the caller may stop training here too, see `Group.hold`.

    Attributes:
        states: returns each cell's state after the last step before; none where no step was made yet.
    """

    states: Callable[[], dict[Cell, State]] = dict


@dataclass(frozen=True)
class EpochDone:
    """A cell finished an epoch, and was evaluated if its turn had come.

    Attributes:
        cell: the cell.
        row: the row of history.csv for this epoch; its test metrics are NaN where the cell was not evaluated.
    """

    cell: Cell
    row: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """A cell could not be trained.

    Attributes:
        cell: the cell.
        reason: why, in one line.
        traceback: the traceback, for whoever wrote the method.
        at_restoring: whether it could not go on from its state; nothing is known against the cell itself then.
    """

    cell: Cell
    reason: str
    traceback: str
    at_restoring: bool = False

    @classmethod
    def because_of(cls, cell: Cell, error: BaseException, at_restoring: bool = False) -> Failed:
        """Make the event from an exception."""
        message = one_line(error) or "no message"
        if isinstance(error, SystemExit):
            message = f"the method's code called sys.exit({error.code!r}); it may raise an exception instead"
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "  # a user needs no class's name
        reason = f"{kind}{message}" if len(message) < 300 else f"{kind}{message[:300]} ..."
        return cls(cell, reason, "".join(traceback.format_exception(error)), at_restoring)


@dataclass(frozen=True)
class Note:
    """A note tells the user something about a cell.

    Attributes:
        cell: the cell.
        text: what a user should read, in one line.
    """

    cell: Cell
    text: str


Event = StepDone | Working | EpochDone | Finished | Failed | Note


def train(
    jobs: Sequence[Job],
    workbench: Workbench,
    states: Mapping[Cell, State] | None = None,
    pause_seconds: float | None = None,
    evaluated: Container[int] | None = None,
) -> Iterator[Event]:
    """Train cells side by side; each gets exactly the scores that it would get alone.

    Args:
        jobs: cells of one setting, seed, number of epochs and batch size.
        states: the states to go on from, one for each cell and all of one epoch and step; None to begin.
        pause_seconds: how often to yield `Working` while images are scored or looked at, in seconds; None for never.
        evaluated: the epochs, from 0, after which the test images are scored; the last one always is. None for all.

    Yields:
        A `StepDone` a step, an `EpochDone` a cell and epoch, and at the end one `Finished` or `Failed` a cell; a
        `Note` before a `Finished` whose training led nowhere.

    Raises:
        Shortage: the machine is short of something; no cell has failed then.
    """
    shared_facts = {(j.cell.setting, j.cell.seed, j.cell.recipe.epochs, j.cell.recipe.batch) for j in jobs}
    assert len(shared_facts) == 1, "cells trained together share setting, seed, epochs and batch"
    devices = [workbench.fabric.device] if workbench.fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield from Group(jobs, workbench, states, pause_seconds, evaluated).train()


class Group:
    """A group trains cells together; `runs` holds them, and `failures` those that failed since the last report."""

    def __init__(
        self,
        jobs: Sequence[Job],
        workbench: Workbench,
        states: Mapping[Cell, State] | None = None,
        pause_seconds: float | None = None,
        evaluated: Container[int] | None = None,
    ) -> None:
        recipe = jobs[0].cell.recipe
        assert recipe.epochs and recipe.batch, "the recipe is not resolved"
        self.seed, self.epochs, self.batch = jobs[0].cell.seed, recipe.epochs, recipe.batch
        self.workbench, self.cells_in_group = workbench, len(jobs)
        workbench.frozen.is_shared = len(jobs) > 1
        self.evaluated = range(self.epochs) if evaluated is None else evaluated
        self.steps_per_epoch = workbench.steps_per_epoch(self.batch)
        self.runs: list[CellRun] = []
        self.failures: list[Failed] = []
        self.pause_seconds, self.paused = pause_seconds, time.monotonic()
        self.other_scores: dict[CellRun, NDArray] = {}
        """These are the logits of the test images by the weights that are not the row's, after the last epoch."""

        self.held: dict[CellRun, State] = {}
        """This holds each cell's state after the last step of the epoch, while images are only scored or looked at."""

        positions = {(state["epoch"], state["step"]) for state in (states or {}).values()}
        assert len(positions) <= 1, "cells that go on together stand at one place"
        self.first = next(iter(positions), (0, 0))
        self.seconds_before = 0.0
        for job in jobs:
            restoring = False
            try:
                run = CellRun(job, workbench)
                if states:
                    restoring = True
                    run.restore(states[job.cell])
                    self.seconds_before = max(self.seconds_before, states[job.cell]["seconds"])
                self.runs.append(run)
            except (Exception, SystemExit) as error:  # a method may fail in any way; the other cells go on
                _stop_for_shortage(error)
                self.failures.append(Failed.because_of(job.cell, error, restoring))

    def train(self) -> Iterator[Event]:
        if not self.runs:  # the place at which they stand may be none
            yield from self._take_failures()
            return
        self.start = time.perf_counter() - self.seconds_before
        test_scores: dict[CellRun, NDArray] = {}
        first_epoch, first_step = self.first
        for epoch in range(first_epoch, self.epochs):
            yield from self._train_epoch(epoch, first_step if epoch == first_epoch else 0)
            is_last = epoch + 1 == self.epochs
            if is_last:
                yield from self._refit_heads()
            if is_last or epoch in self.evaluated:
                test_scores = yield from self._scores("test", is_last)
                self._each(lambda run: run.evaluate(test_scores[run]))  # noqa: B023 - called at once
            else:
                self._each(lambda run: run.leave_unevaluated())
            yield from self._take_failures()
            yield from (EpochDone(run.cell, run.history[-1]) for run in self.runs)
        self._each(lambda run: run.evaluate_others(self.other_scores[run]), list(self.other_scores))
        train_scores = yield from self._scores("train")
        seconds = time.perf_counter() - self.start
        finished: list[Finished] = []
        self._each(
            lambda run: finished.append(run.finish(test_scores[run], train_scores[run], seconds, self.cells_in_group))
        )
        yield from self._take_failures()
        for one in finished:
            yield from self._said_of(one)
            yield one

    def _said_of(self, finished: Finished) -> Iterator[Note]:
        """Yield a note on a training that led nowhere."""
        train, test = (self.workbench.splits[name] for name in ("train", "test"))
        length = steps.Length.from_recipe(finished.cell.recipe, len(train))
        text = steps.note_of_cell(length, finished.steps, finished.metrics, test.labels_NC)
        if text is not None:
            yield Note(finished.cell, text)

    def _train_epoch(self, epoch: int, first_step: int = 0) -> Iterator[Event]:
        """Train one epoch, or the rest of it from the step at which the cells' states were taken.

        Args:
            first_step: the first step to make, from 0.
        """
        if not first_step:
            start = Progress(epoch, self.epochs, 0, self.steps_per_epoch)
            yield from self._pass_over_training_set(start)
            self.held.clear()
            self._each(lambda run: run.start_epoch(start))
        yield from self._take_failures()
        place, strong = (self.seed, epoch, self.batch, first_step), [run.strong_view for run in self.runs]
        batches = self.workbench.training_batches(*place, strong) if self.runs else ()
        for step, shared in enumerate(batches, start=first_step):
            progress = Progress(epoch, self.epochs, step, self.steps_per_epoch)
            self._each(lambda run: run.step(shared, progress))  # noqa: B023 - called at once
            yield from self._take_failures()
            if not self.runs:
                return
            yield StepDone(epoch, step + 1, self.steps_per_epoch, self._states)
        self.hold()
        self._each(lambda run: run.end_steps())

    def hold(self) -> None:
        """Keep the state of all cells after an epoch's last step; going on from there scores all images again.

        Tensors are not copied, as nothing changes them until the next pass over the training set.
        """
        self.held.clear()
        if self.pause_seconds is None:
            return
        seconds = time.perf_counter() - self.start

        def remember(run: CellRun) -> None:
            state = run.state()
            lists = {name: list(state[name]) for name in ("history", "steps", "terms")}  # these grow
            self.held[run] = {**state, **lists, "seconds": seconds}

        self._each(remember)

    def _pause(self) -> Iterator[Working | Failed]:
        """Yield an event at which the caller may stop, if the last one was `pause_seconds` ago."""
        if self.pause_seconds is not None and time.monotonic() - self.paused >= self.pause_seconds:
            yield from self._take_failures()
            yield Working(lambda: {run.cell: state for run, state in self.held.items() if run in self.runs})
            self.paused = time.monotonic()

    def _states(self) -> dict[Cell, State]:
        seconds = time.perf_counter() - self.start
        return {run.cell: {**run.state(), "seconds": seconds} for run in self.runs}

    def _pass_over_training_set(self, progress: Progress) -> Iterator[Working | Failed]:
        """Make one pass over the training set for all cells whose methods want one before this epoch."""
        wanting: list[CellRun] = []
        self._each(lambda run: wanting.append(run) if run.method.passes(progress) else None)
        if not wanting:
            return
        for run in wanting:  # a pass may change whatever the method keeps
            if run in self.held:
                self.held[run]["method"] = _copied(self.held[run]["method"])
        self._each(lambda run: run.method.eval(), wanting)
        for number, shared in enumerate(self.workbench.in_order("train", self.batch)):
            self._each(lambda run: run.observe(shared, progress, number), wanting)  # noqa: B023 - called at once
            yield from self._pause()
        for run in wanting:
            self._each(lambda run: run.end_pass(progress), [run])
            yield from self._pause()

    def _refit_heads(self) -> Iterator[Working | Failed]:
        """Let the steps that follow training refit last layers, in passes over the training set for all such cells.

        Nothing of it is in a state: whoever goes on from the last step does it again.
        """
        following = [run for run in self.runs if run.refit is not None]
        while wanting := [run for run in following if run.refit and run.refit.wants_pass and run in self.runs]:
            self._each(lambda run: run.method.eval(), wanting)
            for shared in self.workbench.in_order("train", self.batch):
                self._each(lambda run: run.gather(shared), wanting)  # noqa: B023 - called at once
                yield from self._pause()
            for run in wanting:
                self._each(lambda run: run.end_gathering(), [run])
                yield from self._pause()
        self._each(lambda run: run.end_refit(), following)

    def _scores(self, split: str, is_last: bool = False) -> Generator[Working | Failed, None, dict[CellRun, NDArray]]:
        """Return the logits (N, C) of every image of a split, in order, by every cell.

        Args:
            is_last: take from the same pass what is kept of a finished cell beside its scores: attention maps of a few
                images, and in `other_scores` the logits by the weights that are not the row's.
        """
        batches: dict[CellRun, list[Tensor]] = {run: [] for run in self.runs}
        others: dict[CellRun, list[Tensor]] = {run: [] for run in self.runs if is_last and run.averaged is not None}
        self._each(lambda run: run.method.eval())
        for shared in self.workbench.in_order(split, self.batch) if self.runs else ():
            self._each(lambda run: batches[run].append(run.logits_BC(shared)))  # noqa: B023 - called at once
            if is_last:
                self._each(lambda run: run.attend(shared))  # noqa: B023 - called at once
                self._each(
                    lambda run: others[run].append(run.other_logits_BC(shared)),  # noqa: B023 - called at once
                    list(others),
                )
            yield from self._pause()
        self.other_scores = {run: torch.cat(others[run]).cpu().numpy() for run in others if run in self.runs}
        return {run: torch.cat(batches[run]).cpu().numpy() for run in self.runs}

    def _each(self, action: Callable[[CellRun], object], runs: Sequence[CellRun] | None = None) -> None:
        """Do something with every cell; a cell for which it raises leaves the group.

        Raises:
            Shortage: the machine is short of something.
        """
        for run in list(self.runs if runs is None else runs):
            if run not in self.runs:
                continue
            try:
                action(run)
            except (Exception, SystemExit) as error:  # whatever a method raises is this cell's failure alone
                _stop_for_shortage(error)
                self.runs.remove(run)
                self.failures.append(Failed.because_of(run.cell, error))

    def _take_failures(self) -> Iterator[Failed]:
        failures, self.failures = self.failures, []
        yield from failures


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a method's state to the CPU, so that later training does not change it."""
    return {
        name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else deepcopy(value)
        for name, value in state.items()
    }


def _stop_for_shortage(error: BaseException) -> None:
    """Raise what the machine is short of, if that is why an error was raised.

    A signal tells that a loader process died, in the middle of whatever runs.

    Raises:
        Shortage: the error is no cell's fault.
    """
    if (shortage := shortages.shortage(error)) is not None:
        raise shortage from error
