"""This module trains the cells that have no record yet, alone or side by side, and stores each as it finishes.

Several processes may sweep over the same results folder: each cell is one's at a time, see `lease`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrpl_bench.data.images.decoding import BadImage
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.records.leases.claims import BY_HAND, Lease, in_force, sweep_away
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.provenance import provenance
from mlrpl_bench.records.store import Found, ResultStore
from mlrpl_bench.training import checkpoint as checkpoints
from mlrpl_bench.training import inputs
from mlrpl_bench.training.checkpoint import State
from mlrpl_bench.training.launchers import memory
from mlrpl_bench.training.launchers.events import Began, FoundFinished, Stored, SweepEvent, Waiting
from mlrpl_bench.training.launchers.groups import Position, alike, halved, portions, position_of, size_for
from mlrpl_bench.training.launchers.keeper import Keeper
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import EpochDone, Event, Failed, Note, StepDone, Working, train
from mlrpl_bench.utils import files, shortages, signals
from mlrpl_bench.utils.errors import UserError

CHECKPOINT_SECONDS = 600.0

LOOK_SECONDS = 2.0
"""This is the time between two looks at cells that other processes train."""

WORTH_DIVIDING = 3
"""A process counts that wants so many of our cells, or all that are left. Dividing a group costs what its cells share
once more, as much as two cells by themselves (`groups.SHARED`): too much for the upper bound that two commands with
different methods have in common."""

PAUSE_SECONDS = 1.0
"""Between two places to stop while images are scored; a cluster grants some 30 s from SIGTERM on."""


@dataclass(frozen=True)
class Worker:
    """A worker says what a process is among those that train the same cells.

    Attributes:
        launcher: what started it, ``by hand`` or the name of a launcher.
        planned: how many there are to be; groups are sized for as many, also before the others are there.
        waits: whether it waits for cells that others train. One that does not ends as soon as every cell that is left
            has an owner that was seen to live, so that it holds no GPU for nothing.
        says: returns what other processes may know of its progress, as plain data; asked in another thread.
    """

    launcher: str = BY_HAND
    planned: int = 1
    waits: bool = True
    says: Callable[[], Mapping[str, Any]] = dict


ALONE = Worker()


def missing(jobs: Sequence[Job], store: ResultStore) -> list[Job]:
    """Return the jobs whose cells have no record, or a damaged one; nothing is touched.

    Raises:
        OtherVersion: see `ResultStore.status`.
        Unreadable: see `ResultStore.status`.
    """
    return [job for job in jobs if not isinstance(store.status(job.cell), Found)]


def tidy(finished: Iterable[Job], store: ResultStore) -> None:
    """Delete checkpoints and claims of finished cells, as a process leaves them that is killed just after the record.

    They do no harm: where the folder may not be written to, they stay.
    """
    for job in finished:
        if store.has_own_record(job.cell):
            with contextlib.suppress(OSError):
                checkpoints.remove(store.folder(job.cell))
                sweep_away(store.folder(job.cell))


def run(
    jobs: Sequence[Job],
    study: Study,
    store: ResultStore,
    keep_weights: bool = True,
    group: int | None = 1,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    worker: Worker = ALONE,
    evaluate_every: int = 1,
) -> Iterator[tuple[Job, SweepEvent]]:
    """Train jobs and store what comes out. A cell that fails is stored as failed, and the others still run.

    Cells that another process trains in the same results folder are left to it: when there is nothing else to do, its
    end is waited for, and a cell whose process died is taken over. A cell that was left unfinished goes on from its
    checkpoint. One that runs out of memory in a group is trained again in one of half the size, as are all cells that
    come later; alone, running out of memory is its failure.

    Args:
        group: how many cells are trained side by side; they share reading and the frozen part. None for as many as
            fit in memory.
        checkpoint_seconds: how much work may be lost.
        worker: what this process is among those that train the same cells.
        evaluate_every: the test images are scored after every so many epochs, and after the last.

    Yields:
        Each job with what happens to it; `Stored` and `Failed` come after they were stored. A cell that another
        process brings to its end meanwhile is `FoundFinished`, or `Failed` with what that process stored.

    Raises:
        UserError: a backbone or weights that cannot be had, before anything is trained; or a file that cannot be
            written.
        BadImage: an image is missing or damaged; no cell counts as failed, and unfinished ones go on from their
            checkpoints once it is replaced.
        Shortage: the machine is short of something.
        Interrupted: on Ctrl-C or SIGTERM, after checkpoints were written.
    """
    if not jobs:
        return
    _ = study.workbench
    with signals.graceful_stop() as requests, Owner(launcher=worker.launcher, says=worker.says) as owner:
        try:
            choices = Choices(keep_weights, group, checkpoint_seconds, worker, evaluate_every)
            yield from Sweep(jobs, study, store, owner, requests, choices).run()
        except RuntimeError as error:  # torch tells of a dead loader process by a signal, wherever it meets it
            if (shortage := shortages.shortage(error)) is not None:
                raise shortage from error
            raise


@dataclass(frozen=True)
class Choices:
    """Choices hold what the user chose about a sweep, see `run`."""

    keep_weights: bool
    group: int | None
    checkpoint_seconds: float
    worker: Worker
    evaluate_every: int

    def evaluated(self, epochs: int) -> range:
        """Return the epochs, from 0, after which the test images are scored; the last is whether it is here or not."""
        return range(self.evaluate_every - 1, epochs, self.evaluate_every)


class GroupInTraining:
    """This group holds the cells that are trained side by side.

    Attributes:
        size: how many they were at the beginning.
        jobs: those that are still trained, by cell.
        again: those for which memory ran out, to be trained in a smaller group.
    """

    def __init__(self, members: Iterable[Job]) -> None:
        self.jobs = {job.cell: job for job in members}
        self.size = len(self.jobs)
        self.again: list[Job] = []

    def each(self, notes: Iterable[Note]) -> Iterator[tuple[Job, Note]]:
        """Pair each note with the job of its cell."""
        return ((self.jobs[note.cell], note) for note in notes)


class Sweep:
    """A sweep holds the jobs that are left, and what is known of them."""

    def __init__(
        self,
        jobs: Sequence[Job],
        study: Study,
        store: ResultStore,
        owner: Owner,
        requests: signals.Requests,
        choices: Choices,
    ) -> None:
        self.left, self.study, self.store, self.owner, self.requests = list(jobs), study, store, owner, requests
        self.choices = choices
        self.facts = {
            "deviations": study.deviations(),
            "left_out_images": _skipped_images(study),
            "launcher": choices.worker.launcher,
            **provenance(study.workbench.fabric.device),
        }
        """These are the facts that the records of all cells share; asked for once, since it runs git."""
        self.most: int | None = None
        """This is the largest group; it is known once memory ran out, here or in a process that was killed for it."""
        self.failed_before = {job.cell: store.failed_try(job.cell) for job in jobs}
        self.positions = {job.cell: self._position(job) for job in jobs}
        """This says where cells probably go on; it is certain only after they were claimed."""
        self.among = sorted({store.root / job.cell.setting.dataset for job in jobs})
        """These are the folders where processes announce themselves that may want the same cells."""
        self.processes = 1
        """This is the number of processes when the last group was formed."""
        self.reported_gone: set[str | None] = set()
        """The owners of which it was said that they are gone."""

    def run(self) -> Iterator[tuple[Job, SweepEvent]]:
        told: Waiting | None = None
        seen: dict[Path, Lease] = {}
        for among in self.among:
            self.owner.announce(among, {job.cell.key for job in self.left})
        while self.left:
            self.requests.raise_if_asked()
            yield from self._settle(self.left)
            claimed = yield from self._claim()
            if claimed:
                told, seen = None, {}
                yield from self._train_group(claimed)
            elif self.left and (claims := self._claims_of_others()):
                waiting = Waiting(len(claims), tuple(sorted({claim.host for claim in claims.values()})))
                if waiting != told:
                    yield self.left[0], waiting
                told = waiting
                if not self.choices.worker.waits and _all_live(claims, seen):
                    return
                time.sleep(LOOK_SECONDS)

    def _settle(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, SweepEvent]]:
        """Strike out the jobs that another process has brought to their end since we started."""
        for job in list(jobs):
            event: SweepEvent | None = None
            if isinstance(status := self.store.status(job.cell), Found):
                event = FoundFinished(job.cell, status.record)
            elif (failed_try := self.store.failed_try(job.cell)) != self.failed_before[job.cell] and failed_try:
                event = Failed(job.cell, self.store.failure(job.cell) or "", traceback="")
            if event is not None:
                self.left.remove(job)
                self.owner.release(self._folder(job))
                yield job, event

    def _claim(self) -> Generator[tuple[Job, SweepEvent], None, dict[Job, State | None]]:
        """Make the next group's cells our own; each with the state from which it goes on. Empty if there are none."""
        free = [job for job in self.left if self.owner.may_take(self._folder(job))]
        if not free:
            return {}
        members = alike(free, self.positions)[0]
        size = memory.fitting(members, self.study.workbench) if self.choices.group is None else self.choices.group
        self.processes = self._processes()
        kinds = [len(kind) for kind in alike(self.left, self.positions)]
        size = size_for(kinds, self._at_most(size), self.processes)
        size = len(portions(members, size)[0])
        claimed: list[Job] = []
        for job in members:  # others may be claiming too: go on until there are enough
            if len(claimed) < self._at_most(size) and (taken := self.owner.take(self._folder(job))) is not None:
                claimed.append(job)
                files.remove_leftovers(self._folder(job))
                if taken.before is not None:
                    yield from self._report_takeover(job, taken.before, taken.died_before)
        yield from self._settle(claimed)  # another process may have finished one between our look and our claim
        states = yield from self._states([job for job in claimed if job in self.left])
        self.positions |= {job.cell: position_of(state) for job, state in states.items()}
        together = alike(list(states), self.positions)[0][: self._at_most(size)] if states else []
        for job in states:
            if job not in together:
                self.owner.release(self._folder(job))
        return {job: states[job] for job in together}

    def _processes(self) -> int:
        """Return how many processes that want several of the cells that are left train here, or are to come."""
        wanted = {job.cell.key for job in self.left}
        at_least = min(WORTH_DIVIDING, len(wanted))
        there = max(self.owner.processes(among, wanted, at_least) for among in self.among)
        return max(there, self.choices.worker.planned)

    def _share(self) -> int:
        """Return the most cells that we take while others want some: of all that are not finished, theirs included."""
        return -(-len(self.left) // self.processes)

    def _is_to_share(self, step: StepDone, in_group: int) -> bool:
        """Tell at an epoch's end whether a process came since the group was formed that could train some cells."""
        if in_group == 1 or step.step < step.steps_per_epoch or (now := self._processes()) <= self.processes:
            return False
        self.processes = now
        return in_group > self._share()

    def _report_takeover(self, job: Job, claim: Lease, died_before: bool) -> Iterator[tuple[Job, Note]]:
        """Say whose cells are taken over; if it trained several and died for lack of memory, groups get smaller.

        Whether it did, the kernel may tell. A group that dies a second time while its machine lives on is taken to be
        too large; of a machine that fell silent nothing is known, it was taken away most likely.
        """
        text = f"taken over from {claim.who}, which is gone"
        if claim.group > 1 and (claim.out_of_memory or (died_before and claim.is_of_gone_process())):
            self.most = self._at_most(halved(claim.group))
            others = "1 other" if claim.group == 2 else f"{claim.group - 1} others"
            why = (
                "when memory ran out" if claim.out_of_memory else "and so was one before it, perhaps for lack of memory"
            )
            text = (
                f"the process that trained it with {others} was killed, {why} ({claim.who}); "
                f"from now on groups have at most {self.most}"
            )
        if claim.owner not in self.reported_gone:
            self.reported_gone.add(claim.owner)
            yield job, Note(job.cell, text)

    def _states(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Note], None, dict[Job, State | None]]:
        """Read the checkpoints of cells that are ours; one that is of no use is named and moved aside."""
        states: dict[Job, State | None] = {}
        for job in jobs:
            try:
                states[job] = checkpoints.read(self._folder(job), job.cell)
            except UserError as error:
                states[job] = None
                moved = checkpoints.set_aside(self._folder(job))
                yield job, Note(job.cell, f"{error}; moved to {moved.name}, the cell begins anew")
        return states

    def _position(self, job: Job) -> Position | None:
        try:
            return position_of(checkpoints.read(self._folder(job), job.cell))
        except UserError:  # it is looked at again when the cell is ours
            return None

    def _claims_of_others(self) -> dict[Path, Lease]:
        """Return the claims for which we wait, by the cells' folders; none if there is something to do, after all."""
        folders = [self._folder(job) for job in self.left]
        if any(self.owner.may_take(folder) for folder in folders):
            return {}
        return {folder: claim for folder in folders if (claim := in_force(folder)) is not None}

    def _train_group(self, members: Mapping[Job, State | None]) -> Iterator[tuple[Job, SweepEvent]]:
        """Train cells side by side and store each. Those for which memory ran out, or that were lost, stay left."""
        group = GroupInTraining(members)
        keeper = Keeper(self.store, self.choices.checkpoint_seconds, self.requests, self.owner)
        self.owner.beat()  # tells the size of the group, before memory can run out
        yield self._began(list(members))
        try:
            with contextlib.closing(_train_together(members, self.study, self.choices)) as events:
                for event in events:
                    yield from self._drop_lost(group)
                    if not group.jobs:
                        break
                    if isinstance(event, Working):
                        yield from group.each(keeper.between(event))
                    elif isinstance(event, StepDone):
                        yield from ((job, event) for job in group.jobs.values())
                        yield from group.each(keeper.after(event))
                        if self._is_to_share(event, len(group.jobs)):
                            if notes := list(keeper.write(event)):  # what cannot be kept is not given away
                                yield from group.each(notes)
                                continue
                            self.positions |= {cell: (event.epoch, event.step) for cell in group.jobs}
                            job, text = next(iter(group.jobs.values())), "its group is shared with a process that came"
                            yield job, Note(job.cell, text)
                            break
                    elif event.cell in group.jobs:
                        yield from self._keep(event, group)
        finally:
            for job in members:
                self.owner.release(self._folder(job))
        if group.again:
            memory.release()
            self.most = self._at_most(halved(group.size))
            self.left = group.again + [job for job in self.left if job not in group.again]
            self.positions |= {job.cell: self._position(job) for job in group.again}

    def _began(self, members: Sequence[Job]) -> tuple[Job, Began]:
        batch = members[0].cell.recipe.batch or 0
        rates = tuple(job.cell.recipe.lr for job in members)
        return members[0], Began(len(members), self.study.workbench.steps_per_epoch(batch), batch, rates)

    def _drop_lost(self, group: GroupInTraining) -> Iterator[tuple[Job, Note]]:
        for job in list(group.jobs.values()):
            if self.owner.has_lost(self._folder(job)):
                yield job, self._drop(job, group)

    def _drop(self, job: Job, group: GroupInTraining) -> Note:
        """Leave a cell to the process that took it over."""
        del group.jobs[job.cell]
        return Note(job.cell, "another process took it over while this one stood still; it is left to that one")

    def _keep(
        self, event: EpochDone | Finished | Failed | Note, group: GroupInTraining
    ) -> Iterator[tuple[Job, SweepEvent]]:
        """Store what came of a cell, if it is still ours."""
        job = group.jobs[event.cell]
        if not isinstance(event, (Finished, Failed)):
            yield job, event
        elif not self.owner.holds(self._folder(job)):
            yield job, self._drop(job, group)
        else:
            del group.jobs[event.cell]
            end = self._stored(job, event) if isinstance(event, Finished) else self._failed(job, event, group)
            self.owner.release(self._folder(job))
            yield job, end

    def _stored(self, job: Job, finished: Finished) -> Stored:
        try:
            record = self.store.write(finished, self.facts, self.choices.keep_weights)
        except UserError:
            if self.store.find(job.cell) is not None:  # the disk got full when its last file was there already
                checkpoints.remove(self._folder(job))
            raise
        checkpoints.remove(self._folder(job))
        self.left.remove(job)
        return Stored.from_finished(finished, record)

    def _failed(self, job: Job, failed: Failed, group: GroupInTraining) -> Failed | Note:
        """Store the failure; a cell for which memory ran out in company is to come again, one at restoring anew."""
        if group.size > 1 and memory.ran_out(failed.reason):
            group.again.append(job)
            text = f"no memory left in a group of {group.size} ({failed.reason}); tried again in one of at most"
            return Note(failed.cell, f"{text} {halved(group.size)}")
        if failed.at_restoring and not memory.ran_out(failed.reason):
            return self._begin_anew(job, failed)
        self.store.write_failure(failed.cell, failed.reason, failed.traceback)
        self.left.remove(job)
        return failed

    def _begin_anew(self, job: Job, event: Failed) -> Note:
        """Say that training cannot go on from a checkpoint, whole as its file is; the cell stays left."""
        moved = checkpoints.set_aside(self._folder(job))
        self.positions[job.cell] = None
        path = self._folder(job) / checkpoints.FILE
        return Note(
            event.cell,
            f"checkpoint {path} cannot be used ({event.reason}); moved to {moved.name}, the cell begins anew",
        )

    def _at_most(self, size: int) -> int:
        return size if self.most is None else min(size, self.most)

    def _folder(self, job: Job) -> Path:
        return self.store.folder(job.cell)


def _all_live(claims: Mapping[Path, Lease], seen: dict[Path, Lease]) -> bool:
    """Tell whether each claim has beaten since it was first seen, which is remembered in `seen`.

    A claim that stands still may be of a machine that was taken away; whoever ends now would leave its cells undone.
    """
    return all(seen.setdefault(folder, claim) != claim for folder, claim in claims.items())


def _skipped_images(study: Study) -> dict[str, list[dict[str, str]]]:
    """Return the images that could not be used, by split, each with its reason."""
    return {
        name: [{"id": str(identity), "reason": reason} for identity, reason in images]
        for name, images in study.skipped_images.items()
    }


def _train_together(members: Mapping[Job, State | None], study: Study, choices: Choices) -> Generator[Event]:
    left = {job.cell for job in members}
    evaluated = choices.evaluated(next(iter(members)).cell.recipe.epochs or 0)
    states = {job.cell: state for job, state in members.items() if state is not None}
    try:
        for cell, state in states.items():
            yield Note(cell, f"goes on at epoch {state['epoch'] + 1}, step {state['step']}")
        for event in train(list(members), study.workbench, states, PAUSE_SECONDS, evaluated):
            if isinstance(event, (Finished, Failed)):
                left.discard(event.cell)
            yield event
    except Exception as error:
        if (shortage := shortages.shortage(error)) is not None:
            raise shortage from error
        if isinstance(error, BadImage):  # no fault of a cell: the others would meet the image too
            raise inputs.met_in_training(error, study.options.on_bad_image) from error
        for job in members:
            if job.cell in left:
                is_told = isinstance(error, UserError)  # a file that cannot be read; else the frozen part fails
                yield Failed(job.cell, str(error), traceback="") if is_told else Failed.because_of(job.cell, error)
