"""The record store keeps a folder for each cell, which is complete once its ``record.json`` is there.

results/<dataset>/<method>/<ratio>-s<seed>-<key8>/
    cell.json             what was asked for
    history.csv           each epoch: loss terms, learning rate, the method's scalars, test metrics
    steps.npz             every loss term at every step
    scores.npz            test logits
    train_scores.npz      final logits on the training images, test transform
    examples.npz          a few test images: scores, and where each category looks
    weights.safetensors   the method's state, see `weights`
    record.json           written last: metrics, provenance, sizes and hashes of the others and of itself
    failed.json           instead of all these, if the cell failed: why
    claim-1.jsonl         while it is being trained: by which process, see `lease`
    checkpoint.pt         until it is finished: where training goes on, see `checkpoint`
    evidence.npz          derived from the others, see `evidence`
    origin.json           beside a record that came in a pack: from which, and what is known of it, see `origin`
    packed.json           beside a record that came in a pack: which files are rounded or left out, see `packed`
    record.json.sig       a signature of record.json, see `packs.signatures`
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.records import weights
from mlrpl_bench.records.cell import Cell, Finished
from mlrpl_bench.records.elsewhere import remote
from mlrpl_bench.records.elsewhere.origin import ORIGIN
from mlrpl_bench.records.elsewhere.packed import PACKED
from mlrpl_bench.records.leases.claims import in_force
from mlrpl_bench.records.record import (
    RECORD,
    DamagedRecord,
    OtherVersion,
    Record,
    Unreadable,
    compose,
    read_json,
    read_record,
    to_json,
    to_plain,
)
from mlrpl_bench.utils import files
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import sha256_of_file, write_atomically
from mlrpl_bench.utils.progress import Report, silent
from mlrpl_bench.utils.shortages import is_full

FAILED = "failed.json"
SET_ASIDE = ".damaged-"
"""This mark stands in the name of a folder whose record is damaged and which was moved aside."""
NAMED = 4
"""A line names at most this many records, by their folders."""


@dataclass(frozen=True)
class Missing:
    """A cell has no record."""


@dataclass(frozen=True)
class Damaged:
    """A cell's record, or one of the files that it names, is not what was written.

    Attributes:
        reason: the file, what is wrong with it and what to do, in one line.
    """

    reason: str


@dataclass(frozen=True, eq=False)
class Found:
    """A cell has a record that is whole.

    Attributes:
        record: the record.
    """

    record: Record


Status = Missing | Damaged | Found


@dataclass(frozen=True)
class Survey:
    """A survey holds what a look through all folders of a dataset found.

    Attributes:
        records: the records that are whole, in a fixed order, one for a key.
        problems: a line for everything that is there and cannot be used.
        excluded_folders: the folders of records that are of another protocol version, by that reason.
        disagreeing: the keys of cells whose records state different metrics.
    """

    records: list[Record]
    problems: list[str]
    excluded_folders: dict[str, list[Path]]
    disagreeing: frozenset[str] = frozenset()


class ResultStore:
    """A result store reads and writes the records below one folder, which is made when the first one is written.

    An address such as ``s3://bucket/folder`` may stand for a folder: then its copy is read, see `remote`.

    Args:
        root: the folder in which records are written and looked for; where it is an address, nothing is written.
        others: folders that are only read, such as another machine's.
        report: is told how many files of an address are copied.

    Raises:
        UserError: a folder or an address cannot be read, or a folder that is only read is not there.
    """

    def __init__(self, root: Path, others: Sequence[Path] = (), report: Report = silent) -> None:
        given = [remote.address_of(folder) for folder in (root, *others)]
        self._addresses = {remote.copied(address, report): address for address in given if address is not None}
        copies = {address: copy for copy, address in self._addresses.items()}
        root, *others = [
            folder if address is None else copies[address]
            for folder, address in zip((root, *others), given, strict=True)
        ]
        for folder in (root, *others):
            try:
                os.listdir(folder)
            except FileNotFoundError:
                if folder != root:
                    raise UserError(f"--results-dir {folder} is not there; only the first may be new") from None
            except OSError as error:
                message = f"--results-dir {folder} cannot be read ({error.strerror}); name another folder"
                raise UserError(message) from error
        self.root, self.others = root, tuple(others)

    def in_words(self, text: object) -> str:
        """Write a path, or a line with paths, for people: an address instead of the folder of its copy."""
        words = str(text)
        for copy, address in self._addresses.items():
            words = words.replace(str(copy), address.rstrip("/"))
        return words

    @property
    def why_not_written(self) -> str:
        """Say why nothing can be written below `root` because it is an address; "" where it is a folder."""
        if self.root not in self._addresses:
            return ""
        return f"--results-dir {self._addresses[self.root]} is object storage, which is only read"

    def refuse_address(self) -> None:
        """Refuse to write below an address.

        Raises:
            UserError: `root` is one.
        """
        if self.why_not_written:
            raise UserError(f"{self.why_not_written}; name a folder of this machine with a --results-dir before it")

    def refuse_copies(self, why: str) -> None:
        """Refuse what needs more than the copy of an address has.

        Raises:
            UserError: a folder of this store is an address.
        """
        if self._addresses:
            address = next(iter(self._addresses.values()))
            raise UserError(f"--results-dir {address} is read for tables alone ({why}); copy it to a folder first")

    def folder(self, cell: Cell) -> Path:
        """Return the folder in which a cell's files are, or will be."""
        return self.root / place_of(cell)

    def has_own_record(self, cell: Cell) -> bool:
        """Tell whether a cell's record, whole or not, is in the folder that is written to."""
        return (self.folder(cell) / RECORD).is_file()

    def status(self, cell: Cell) -> Status:
        """Tell whether a cell has a record that can be used; the record is read and checked once.

        Raises:
            OtherVersion: a record of another version is in its place, which is not to be moved aside.
            Unreadable: the system could not read the record, which says nothing about what is in it.
        """
        path = self.folder(cell) / RECORD
        with _readable(path):
            there = path.is_file()
        if there:
            try:
                return Found(read_record(path))
            except DamagedRecord as error:
                return Damaged(str(error))
        for root in self.others:
            with contextlib.suppress(UserError):  # named by `survey`; only one below `root` stands in the way
                return Found(read_record(root / place_of(cell) / RECORD))
        return Missing()

    def find(self, cell: Cell) -> Record | None:
        """Return the cell's record, or None while there is none.

        Raises:
            DamagedRecord: the record or one of its files is damaged.
            OtherVersion: see `status`.
            Unreadable: see `status`.
        """
        status = self.status(cell)
        if isinstance(status, Damaged):
            raise DamagedRecord(status.reason)
        return status.record if isinstance(status, Found) else None

    def datasets(self) -> list[str]:
        """List the names of the data sets that have a folder, in order."""
        folders = (folder for root in (self.root, *self.others) for folder in _folders_in(root))
        return sorted({folder.name for folder in folders if not folder.name.startswith(".")})

    def record_files(self, dataset: str) -> list[Path]:
        """List every ``record.json`` of a dataset, whatever is in it, those below `root` first."""
        return [path for root in (self.root, *self.others) for path in _record_files(root / dataset)]

    def survey(self, dataset: str) -> Survey:
        """Read every record of a dataset that can be used, and name each that cannot; nothing is touched.

        A cell whose records in two folders state different metrics is not used at all, as nothing tells which is right.

        Raises:
            UserError: a folder cannot be read.
        """
        by_key: dict[str, list[Record]] = {}
        problems = []
        excluded_folders: dict[str, list[Path]] = {}
        for path in self.record_files(dataset):
            try:
                record = read_record(path)
            except OtherVersion as error:
                excluded_folders.setdefault(error.reason, []).append(path.parent)
            except UserError as error:
                problems.append(self.in_words(error))
            else:
                by_key.setdefault(record.cell.key, []).append(record)
        records: list[Record] = []
        disagreeing: set[str] = set()
        for of_key in by_key.values():
            if all(to_plain(record.metrics) == to_plain(of_key[0].metrics) for record in of_key):
                records.append(of_key[0])
            else:
                folders = " and ".join(str(record.folder) for record in of_key)
                problems.append(self.in_words(f"{folders} are of one cell and disagree; move the wrong one away"))
                disagreeing.add(of_key[0].cell.key)
        return Survey(records, problems, excluded_folders, frozenset(disagreeing))

    def set_aside(self, cell: Cell) -> Path | None:
        """Move a cell's folder out of the way, see the function `set_aside`."""
        self.refuse_address()
        return set_aside(self.folder(cell))

    def why_missing(self, cell: Cell) -> str:
        """Say in a few words why a cell has no record that could be used."""
        reasons = (_why_missing(root / place_of(cell)) for root in (self.root, *self.others))
        return next((reason for reason in reasons if reason is not None), "not run")

    def unfinished(self, dataset: str) -> dict[Path, str]:
        """List the folders below `root` of a data set's cells without a record, with what `why_missing` says of each.

        Raises:
            UserError: a folder cannot be read.
        """
        with _readable(self.root):
            folders = [folder for folder in _cell_folders(self.root / dataset) if not (folder / RECORD).exists()]
        return {folder: _why_missing(folder) or "not run" for folder in folders}

    def write(self, finished: Finished, provenance: dict[str, Any], keep_weights: bool = True) -> Record:
        """Store a finished cell and return its record, which appears last, by one rename.

        Raises:
            UserError: a file cannot be written. There is no record then, unless it was the record's folder that could
                not be made durable.
        """
        import pandas

        self.refuse_address()
        folder = self.folder(finished.cell)
        _write(folder / "cell.json", to_json(finished.cell.to_json()))
        for name in (PACKED, ORIGIN):  # of a record that lay here before and was taken away
            (folder / name).unlink(missing_ok=True)
        contents = {
            "history.csv": pandas.DataFrame(finished.history).to_csv(index=False).encode(),
            "steps.npz": npz_bytes(finished.steps),
            "scores.npz": npz_bytes(finished.test_scores()),
            "train_scores.npz": npz_bytes({"scores": finished.train_scores_NC}),
            "examples.npz": npz_bytes(finished.examples),
        }
        if keep_weights:
            contents["weights.safetensors"] = weights.to_bytes(finished.weights)
        facts = {}
        for name, content in contents.items():
            _write(folder / name, content)
            facts[name] = {"bytes": len(content), "sha256": sha256_of_file(folder / name)}
        _write(folder / RECORD, to_json(compose(finished, provenance, facts)))
        (folder / FAILED).unlink(missing_ok=True)
        return read_record(folder / RECORD)

    def write_failure(self, cell: Cell, reason: str, traceback: str) -> Path:
        """Write down why a cell has no record; the record replaces the note once the cell is trained."""
        self.refuse_address()
        path = self.folder(cell) / FAILED
        content = {"cell": cell.to_json(), "reason": reason, "traceback": traceback, "try": secrets.token_hex(8)}
        _write(path, to_json(content))
        return path

    def write_table(self, dataset: str, name: str, content: str | bytes) -> Path:
        """Write a table beside the records that it was made from.

        Raises:
            UserError: the file cannot be written.
        """
        self.refuse_address()
        path = self.root / dataset / name
        _write(path, content)
        return path

    def failure(self, cell: Cell) -> str | None:
        """Return why the last try at a cell failed, or None."""
        return _failure(self.folder(cell))

    def failed_try(self, cell: Cell) -> str | None:
        """Return an id of the last try at a cell that failed; None where none did, or where the note is damaged."""
        path = self.folder(cell) / FAILED
        try:
            return str(read_json(path).get("try")) if path.is_file() else None
        except UserError:
            return None


def _failure(folder: Path) -> str | None:
    path = folder / FAILED
    return str(read_json(path).get("reason")) if path.is_file() else None


def _why_missing(folder: Path) -> str | None:
    """Say from a cell's folder why there is no record in it that could be used; None where it tells nothing."""
    if (folder / RECORD).exists():
        return "record damaged"
    with contextlib.suppress(UserError):  # a damaged note says nothing
        if (reason := _failure(folder)) is not None:
            return f"failed: {reason}"
    if (claim := in_force(folder)) is not None:
        return f"{'interrupted' if claim.is_of_gone_process() else 'still running'} ({claim.who})"
    return None


def set_aside(folder: Path) -> Path | None:
    """Move the folder of a damaged record out of the way, without deleting anything, and return where it is then.

    Returns None if another process moved it in the same moment.

    Raises:
        UserError: the folder cannot be moved.
    """
    try:
        return files.set_aside(folder, SET_ASIDE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{folder} is damaged and cannot be moved aside ({error.strerror}); move it") from error


def left_out_line(reason: str, folders: Sequence[Path]) -> str:
    """Write the line about records that stand in no table for one reason."""
    names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    named = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"left out: {len(folders)} record{'s' if len(folders) > 1 else ''} {reason}: {named}"


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{error.filename or path} cannot be read ({error.strerror}); allow it, or name another --results-dir"
        raise Unreadable(message) from error


def place_of(cell: Cell) -> Path:
    """Return a cell's folder below the results folder."""
    return Path(cell.setting.dataset, cell.method, f"{cell.ratio:g}-s{cell.seed}-{cell.key[:8]}")


def _record_files(folder: Path) -> list[Path]:
    """List the records below a dataset's folder, in a fixed order."""
    with _readable(folder):
        return [cell / RECORD for cell in _cell_folders(folder) if (cell / RECORD).is_file()]


def _cell_folders(folder: Path) -> list[Path]:
    """List the cells' folders below a dataset's folder, in a fixed order, but those that were set aside."""
    return [cell for method in _folders_in(folder) for cell in _folders_in(method) if SET_ASIDE not in cell.name]


def _folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, in a fixed order; unlike a glob, it refuses a folder that may not be read."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _write(path: Path, content: bytes | str) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        advice = "make room and give the same command again" if is_full(error) else "allow it"
        message = f"{path} cannot be written ({error.strerror}); {advice}, or name another --results-dir"
        raise UserError(message) from error


def npz_bytes(arrays: Mapping[str, NDArray]) -> bytes:
    """Return arrays as the bytes of the ``.npz`` file that a record keeps; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
