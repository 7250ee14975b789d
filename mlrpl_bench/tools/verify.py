"""This module checks whether records still hold: files by size and hash, numbers by training the cell again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data import protocol
from mlrpl_bench.leaderboard.evidence import mAP_of_epochs
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.records.elsewhere.origin import write_origin
from mlrpl_bench.records.matching import obstacle, reason_against
from mlrpl_bench.records.provenance import provenance
from mlrpl_bench.records.record import (
    RECORD,
    DamagedRecord,
    OtherVersion,
    Record,
    Unreadable,
    digest,
    read_arrays_of,
    read_record,
    to_plain,
)
from mlrpl_bench.records.store import ResultStore, npz_bytes, set_aside
from mlrpl_bench.training.parts.device import threads
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Event, Failed, train
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import sha256_of_file
from mlrpl_bench.utils.progress import Report, silent
from mlrpl_bench.utils.randomness import seed_of

LISTED = 8
"""An error message lists at most this many keys."""

Tell = Callable[[str, int, Event], None]
"""This type is a function that is told about training, as (title, epochs, event)."""


@dataclass(frozen=True)
class Damage:
    """A damage says what of a record is not as it was written.

    Attributes:
        folder: the folder in which the record was found.
        reason: what is wrong, in one line.
        moved_to: where the folder was moved; None if it was not.
    """

    folder: Path
    reason: str
    moved_to: Path | None

    def to_text(self) -> str:
        """Write the damage as one line."""
        return f"damaged: {self.reason}; {f'moved to {self.moved_to}' if self.moved_to else 'not moved'}"


@dataclass
class FilesFound:
    """This class holds what a look at every byte of every record found.

    Attributes:
        cells: how many records have this protocol version, damaged ones too.
        bytes_read: how many bytes their files have.
        whole: the records of which every byte is what was written.
        damages: the records of which something is not as it was written.
        excluded_folders: the folders of records of another protocol version, by that reason.
    """

    cells: int = 0
    bytes_read: int = 0
    whole: list[Record] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    excluded_folders: dict[str, list[Path]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        return {
            "cells": self.cells,
            "bytes": self.bytes_read,
            "damaged": [
                {
                    "folder": str(d.folder),
                    "reason": d.reason,
                    "moved_to": None if d.moved_to is None else str(d.moved_to),
                }
                for d in self.damages
            ],
            "left_out": {
                reason: [str(folder) for folder in folders] for reason, folders in self.excluded_folders.items()
            },
        }


def check_files(store: ResultStore, datasets: Sequence[str], report: Report = silent) -> FilesFound:
    """Compare every file that a record names with its size and hash; a damaged record's folder is moved aside.

    Only folders below the store's root are moved, and only records that could be read: one that may not be read is
    perhaps whole.

    Args:
        datasets: the names of the data sets whose records are checked.
        report: told about the progress as (what, done, total).

    Raises:
        UserError: a folder is an address.
    """
    store.refuse_copies("every byte is compared, of weights too")
    paths = [path for dataset in datasets for path in store.record_files(dataset)]
    found = FilesFound()
    for number, path in enumerate(paths, start=1):
        try:
            record = read_record(path)
            if record.content.get("sha256") not in (None, digest(record.content)):  # older records have none
                raise DamagedRecord(f"{path} is not what was written (SHA-256 differs)")
            for name in record.files:
                _check_hash(record, name)
                found.bytes_read += record.files[name]["bytes"]
            found.whole.append(record)
        except OtherVersion as error:
            found.excluded_folders.setdefault(error.reason, []).append(path.parent)
        except Unreadable as error:
            found.damages.append(Damage(path.parent, str(error), None))
        except DamagedRecord as error:
            moved_to = set_aside(path.parent) if store.root in path.parents else None
            found.damages.append(Damage(path.parent, str(error), moved_to))
        report("checking files", number, len(paths))
    found.cells = len(paths) - sum(map(len, found.excluded_folders.values()))
    return found


def _check_hash(record: Record, name: str) -> None:
    """Compare a file of a record with its hash.

    Raises:
        DamagedRecord: the file is not the one that was written.
        Unreadable: the system could not read it.
    """
    path = record.folder / name
    try:
        same = sha256_of_file(path) == record.files[name].get("sha256")
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror})") from error
    if not same:
        raise DamagedRecord(f"{path} is not what its record says (SHA-256 differs)")


def find(store: ResultStore, datasets: Sequence[str], text: str) -> Record:
    """Find a record by the beginning of its cell's key, or by its folder.

    Raises:
        UserError: there is none, there are several, or it is damaged.
    """
    if (Path(text) / RECORD).is_file():
        return read_record(Path(text) / RECORD)
    surveys = [store.survey(dataset) for dataset in datasets]
    found = [r for survey in surveys for r in survey.records if text and r.cell.key.startswith(text)]
    if len(found) > 1:
        keys = ", ".join(record.cell.key[: len(text) + 4] for record in found[:LISTED])
        raise UserError(f"{text} is the beginning of {len(found)} keys: {keys}; give more of one")
    if not found:
        problems = [line for survey in surveys for line in survey.problems]
        unusable = f"; {len(problems)} cannot be used: {problems[0]}" if problems else ""
        raise UserError(
            f"no record has a key that begins with {text!r}, nor is it a cell's folder; see: list cells{unusable}"
        )
    return found[0]


def rebuild(record: Record, methods: Mapping[str, MethodEntry], study: Study) -> Job:
    """Rebuild the job that a record came from.

    Raises:
        UserError: it cannot be trained here and now; the message says why.
    """
    cell = record.cell
    name = f"{cell.title} ({cell.key[:8]})"
    entry = methods.get(cell.method)
    if entry is None:
        raise UserError(f"{name} is of a method that is not registered; name its file with --plugin")
    if reason := obstacle(cell, entry, study):
        advice = "give the same" if cell.setting != study.setting else "its file must be as it was then"
        raise UserError(f"{name} was {reason}; {advice}")
    if protocol.mask_hash(study.masks(cell.ratio, cell.mask_seed)) != cell.mask_hash:
        raise UserError(f"{name} was trained under another mask; name it with --mask-file")
    return Job(cell, entry.cls, entry.hyperparameters(cell.hyperparameters))


def share(records: Sequence[Record], percent: float, seed: int) -> list[Record]:
    """Draw so many percent of the records, at least one; which ones follows from their keys and the seed alone.

    Args:
        percent: in (0, 100]; the number of records is rounded up.
    """
    number = max(1, math.ceil(len(records) * percent / 100))
    drawn = sorted(records, key=lambda record: seed_of("verify", seed, record.cell.key))[:number]
    return sorted(drawn, key=lambda record: (record.cell.method, record.cell.ratio, record.cell.seed))


def records_of_setting(store: ResultStore, study: Study, methods: Mapping[str, MethodEntry]) -> list[Record]:
    """Return the records that would stand in a table of the study's setting.

    Raises:
        UserError: there are none.
    """
    survey = store.survey(study.setting.dataset)
    reasons = {record.cell.key: reason_against(record.cell, study, methods) for record in survey.records}
    found = [record for record in survey.records if reasons[record.cell.key] is None]
    if not found:
        why = sorted({*filter(None, reasons.values()), *survey.excluded_folders}) or ["there are none at all"]
        raise UserError(f"no records of this setting to verify: {'; '.join(why)}")
    return found


@dataclass(frozen=True)
class Recheck:
    """A recheck compares a cell that was trained again with its record.

    Attributes:
        record: the record.
        problem: why it could not be compared: a damaged record, or a cell that fails now. The other fields are then
            unset. Empty where it was compared.
        differing: what is not the same to the bit.
        largest: the largest absolute difference of a logit, of test and training images; infinite where their numbers
            differ.
        points: mAP now minus mAP in the record, in percent points.
        elsewhere: what is known to be different here from where the record was made.
        unrepeatable: why no training could give the same bits; empty where one could.
    """

    record: Record
    problem: str = ""
    differing: Sequence[str] = ()
    largest: float = 0.0
    points: float = 0.0
    elsewhere: Sequence[str] = ()
    unrepeatable: str = ""

    def holds(self, tolerance: float = 0.0) -> bool:
        """Tell whether the record is confirmed: to the bit, or within a tolerance, in percent points of mAP."""
        if self.problem or not self.differing:
            return not self.problem
        return 0 < tolerance >= abs(self.points)

    def to_text(self) -> str:
        """Write the comparison as one line."""
        if self.problem:
            return self.problem
        if not self.differing:
            return "bit-identical"
        return (
            f"not identical: {', '.join(self.differing)}; logits differ by up to {self.largest:.3g}, "
            f"mAP by {self.points:+.3f} points{f'; {self.unrepeatable}' if self.unrepeatable else ''}"
        )

    def to_json(self, tolerance: float) -> dict[str, Any]:
        """Return the comparison as plain data."""
        cell = self.record.cell
        return {
            "cell": cell.title,
            "key": cell.key,
            "dataset": cell.setting.dataset,
            "holds": self.holds(tolerance),
            "identical": not self.problem and not self.differing,
            "problem": self.problem or None,
            "differing": list(self.differing),
            "largest_difference_of_logits": self.largest if math.isfinite(self.largest) else None,
            "mAP_points": self.points,
            "elsewhere": list(self.elsewhere),
            "unrepeatable": self.unrepeatable or None,
        }


def verify(record: Record, job: Job, study: Study, tell: Tell = lambda *_: None) -> Recheck:
    """Train a record's cell again, alone and without storing anything, and compare it with the record.

    On a CPU it is trained with as many threads as then: sums are split among threads, so another number of them gives
    other last bits.

    Args:
        tell: told about training as (title, epochs, event).
    """
    try:
        for name in record.files:
            _check_hash(record, name)
    except UserError as error:
        return Recheck(record, f"damaged: {error}; see verify --files")
    device = study.workbench.fabric.device
    with threads(record.content.get("threads") if device.type == "cpu" else None):
        for event in train([job], study.workbench, evaluated=_evaluated(record)):
            tell(job.cell.title, job.cell.recipe.epochs or 0, event)
        here = provenance(device)
    if isinstance(event, Failed):
        return Recheck(record, f"fails now: {event.reason}")
    assert isinstance(event, Finished)
    return compare(record, event, here)


def _evaluated(record: Record) -> set[int]:
    """Return the epochs, from 0, after which the record's cell was evaluated: the best one is among them."""
    return {epoch for epoch, value in enumerate(mAP_of_epochs(record)) if not math.isnan(value)}


def compare(record: Record, again: Finished, here: Mapping[str, Any]) -> Recheck:
    """Compare a record with what the same cell gave now.

    Args:
        again: what the cell gave now.
        here: the provenance of the training now.

    Raises:
        DamagedRecord: a file of the record is damaged.
        Unreadable: the system could not read a file.
    """
    kept = [name for name in ("scores", "train_scores", "steps") if f"{name}.npz" in record.files]
    then = {name: read_arrays_of(record, name) for name in kept}
    now = {
        "scores": again.test_scores(),
        "train_scores": {"scores": again.train_scores_NC},
        "steps": again.steps,
    }
    names = {"scores": "test scores", "train_scores": "training scores", "steps": "losses of the steps"}
    differing = [title for name, title in names.items() if not _is_confirmed(record, name, then.get(name), now[name])]
    if any(record.content[name] != to_plain(getattr(again, name)) for name in ("metrics", "best_metrics")):
        differing.append("metrics")
    logits = [(then[name]["scores"], now[name]["scores"]) for name in kept if name != "steps"]
    return Recheck(
        record,
        differing=differing,
        largest=max(_largest_difference(*pair) for pair in logits),
        points=100 * (again.metrics["mAP"] - record.metrics["mAP"]),
        elsewhere=_elsewhere(record.content, here) if differing else (),
        unrepeatable=_why_unrepeatable(record) if differing else "",
    )


def _why_unrepeatable(record: Record) -> str:
    """Say that a cell went on with another number of threads on a CPU, so sums were split in several ways; else ""."""
    counts = record.content.get("thread_counts")
    if not isinstance(counts, list) or len(counts) < 2 or not str(record.content.get("device")).endswith("CPU"):
        return ""
    words = " and then ".join(str(number) for number in counts)
    return f"it was trained with {words} threads, which cannot be repeated exactly: give a --tolerance"


def _is_confirmed(record: Record, name: str, then: Mapping[str, NDArray] | None, now: Mapping[str, NDArray]) -> bool:
    """Tell whether arrays are equal to the bit to those that training wrote.

    Where a pack rounded them or left them out, the hash of the file that training wrote decides: the same arrays give
    the same file.

    Args:
        then: what is kept of them; None where nothing is.
    """
    stated, here = record.content["files"].get(f"{name}.npz"), record.files.get(f"{name}.npz")
    if then is not None and stated == here:
        return _same(then, now)
    return stated["sha256"] == hashlib.sha256(npz_bytes(now)).hexdigest()


def confirm(verdict: Recheck, tolerance: float, store: ResultStore) -> None:
    """Write beside a submitted record that its cell was trained again here and held.

    Args:
        tolerance: the difference of mAP, in percent points, up to which it holds.
        store: only records below its first folder are written to.
    """
    record = verdict.record
    if record.origin.pack and verdict.holds(tolerance) and store.root in record.folder.parents:
        write_origin(record.folder, replace(record.origin, remeasured=verdict.to_text()))


def _same(then: Mapping[str, NDArray], now: Mapping[str, NDArray]) -> bool:
    """Tell whether arrays are equal to the bit; NaN, of a loss term that a step lacks, is equal to itself."""
    return then.keys() == now.keys() and all(
        then[name].dtype == now[name].dtype and np.array_equal(then[name], now[name], equal_nan=True) for name in then
    )


def _largest_difference(then_NC: NDArray, now_NC: NDArray) -> float:
    """Return the largest absolute difference of two logits; infinite where the shapes differ."""
    return float(np.abs(then_NC - now_NC).max()) if then_NC.shape == now_NC.shape else math.inf


def _elsewhere(then: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List the facts that differ here, of those that both know: ``torch 2.4.0, here 2.5.0``."""
    before, now = _facts(then), _facts(here)
    return [f"{name} {before[name]}, here {now[name]}" for name in now if before.get(name, now[name]) != now[name]]


def _facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        name: provenance[name] for name in ("device", "threads", "deterministic", "mlrpl_bench") if name in provenance
    }
    facts |= provenance.get("versions", {})
    git = provenance.get("git") or {}
    return facts | {f"git {name}": value for name, value in git.items()}
