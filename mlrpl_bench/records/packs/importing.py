"""This module brings the records of a pack into a folder of records, after every one of them was checked.

A record that is there already stays as it is. One of the same cell with other numbers is a conflict, which is shown and
never resolved: both can stand in folders of their own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlrpl_bench.models.finishing import JOINT
from mlrpl_bench.records.elsewhere.origin import ORIGIN, Origin, write_origin
from mlrpl_bench.records.elsewhere.packed import PACKED, SCORES, TRAIN_EVIDENCE, TRAIN_SCORES
from mlrpl_bench.records.packs import reading, signatures
from mlrpl_bench.records.packs.manifest import BadPack, Manifest
from mlrpl_bench.records.packs.signatures import SIGNATURE
from mlrpl_bench.records.record import RECORD, Record, digest, read_arrays_of, read_record, to_json, to_plain
from mlrpl_bench.records.store import FAILED, ResultStore, place_of
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import sync_folder, write_atomically
from mlrpl_bench.utils.progress import Report, silent

STAGING = ".import-"
"""A folder whose name begins so holds what is being imported; of an import that was killed it may be deleted."""


@dataclass(frozen=True, eq=False)
class Conflict:
    """A conflict is a cell of which the pack has other numbers than the folder here.

    Attributes:
        here: the record that is there, and stays.
        there: the facts of the record in the pack, as `_facts` gives them.
        facts: the same of the record that is there.
    """

    here: Path
    title: str
    key: str
    facts: Mapping[str, str]
    there: Mapping[str, str]

    def to_text(self) -> str:
        """Write the conflict as one line with both values."""
        both = (
            f"mAP {each['mAP']} (scores {each['scores']}, {each['machine']}) {where}"
            for each, where in ((self.facts, "here"), (self.there, "in the pack"))
        )
        return f"{self.title} ({self.key[:8]}): {', '.join(both)}"

    def to_json(self) -> dict[str, Any]:
        """Return the conflict as plain data."""
        here = {**self.facts, "folder": str(self.here)}
        return {"cell": self.title, "key": self.key, "here": here, "there": dict(self.there)}


@dataclass(frozen=True, eq=False)
class Imported:
    """This class says what became of the records of a pack.

    Attributes:
        sha256: the digest of the pack.
        imported: the records that are new here, in order.
        already: those of cells that have a record with the same scores and metrics here.
        conflicts: those of cells that have a record with others here.
        unusable: a line for each cell that has a damaged record here, which stays.
        signed: by key, who signed the record.
    """

    sha256: str
    imported: list[Record] = field(default_factory=list)
    already: list[Record] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    signed: dict[str, str] = field(default_factory=dict)

    def is_complete(self) -> bool:
        """Tell whether every record of the pack is here now."""
        return not self.conflicts and not self.unusable

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "sha256": self.sha256,
            "imported": [record.cell.key for record in self.imported],
            "already_here": [record.cell.key for record in self.already],
            "conflicts": [conflict.to_json() for conflict in self.conflicts],
            "unusable": self.unusable,
            "signed": self.signed,
            "folders": [str(record.folder) for record in self.imported],
        }


def bring_in(pack: Path, store: ResultStore, trusted_keys: Path | None = None, report: Report = silent) -> Imported:
    """Check a pack and bring its records into the first folder of a store.

    Args:
        pack: an archive or a folder.
        trusted_keys: the keys whose signatures count, see `signatures`; None to look at no signature.
        report: told about the progress as (what, done, total).

    Raises:
        BadPack: something of the pack is not as it must be; nothing was brought in then.
        UserError: a folder cannot be written, or signatures cannot be checked.
    """
    if trusted_keys is not None:
        signatures.check_trusted_keys(trusted_keys)
    with reading.opened(pack) as source:
        manifest = reading.read_manifest(pack, source)
        with _Staging(store.root) as staging:
            folders = reading.unpack(pack, source, manifest, staging, report)
            records = [_checked(pack, place, folder, manifest) for place, folder in folders.items()]
            found = _sorted_out(records, store, manifest)
            _look_at_signatures(found, records, trusted_keys)
            for record in found.imported:
                write_origin(record.folder, Origin(manifest.sha256, found.signed.get(record.cell.key, "")))
            _note_signatures(records, found)
            placed = [_moved(record, store) for record in found.imported]
    return replace(found, imported=placed)


class _Staging:
    """A folder beside the data sets' that is made for one import, and removed with the last folder made for it."""

    def __init__(self, root: Path) -> None:
        self.root, self.is_new = root, not root.exists()

    def __enter__(self) -> Path:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(dir=self.root, prefix=STAGING))
        except OSError as error:
            raise UserError(f"{self.root} cannot be written ({error.strerror}); name another --results-dir") from error
        return self.path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if kind is not None and self.is_new and not any(self.root.iterdir()):
            self.root.rmdir()


def _checked(pack: Path, place: str, folder: Path, manifest: Manifest) -> Record:
    """Read a record that was unpacked, and refuse whatever does not belong to it.

    Raises:
        BadPack: it is no whole record, lies at another's place, or its files are not those that it names.
    """
    what = f"{pack}: {place}"
    if RECORD not in manifest.records[place]:
        raise BadPack(f"{what} has no {RECORD}")
    try:
        record = read_record(folder / RECORD)
    except UserError as error:
        reason = str(error).replace(f"{folder}/", "").replace(str(folder), place).split("; move ")[0]
        raise BadPack(f"{what}: {reason}") from error
    cell = record.cell
    for word in (cell.setting.dataset, *cell.method.split(JOINT, maxsplit=1)):
        if not word.isidentifier():
            raise BadPack(f"{what}: a data set or method cannot be called {word!r}")
    if place_of(cell).as_posix() != place:
        raise BadPack(f"{what} holds the record of {place_of(cell).as_posix()}")
    if record.content.get("sha256") != digest(record.content):
        raise BadPack(f"{what}: its {RECORD} is not what was written (SHA-256 differs)")
    own = {RECORD, SIGNATURE, PACKED} & set(manifest.records[place])
    if other := set(manifest.records[place]) ^ (set(record.files) | own):
        raise BadPack(f"{what}: {sorted(other)[0]} is not a file of this record, or is missing")
    for name, facts in record.files.items():
        if facts.get("sha256") != manifest.records[place][name]["sha256"]:
            raise BadPack(f"{what}: {name} is not what its record says (SHA-256 differs)")
    try:
        _check_arrays(record)
    except (UserError, ValueError) as error:
        reason = str(error).replace(f"{folder}/", "").split("; move ")[0]
        raise BadPack(f"{what}: {reason}") from error
    return record


def _check_arrays(record: Record) -> None:
    """Refuse arrays that are unsafe to read, of another number format than stated, or of no scores of this record.

    Raises:
        UserError: a file is damaged.
        ValueError: it holds something else.
    """
    for name in record.files:
        if not name.endswith(".npz"):
            continue
        found = read_arrays_of(record, name.removesuffix(".npz"))  # rounded scores are of their own form
        if name in (SCORES, TRAIN_SCORES):
            _check_scores(name, found, len(record.metrics["AP_C"]))
        if name == TRAIN_EVIDENCE and any(values.dtype != np.float64 for values in found.values()):
            raise ValueError(f"{name} holds something else than numbers of 64 bits")


def _check_scores(name: str, found: Mapping[str, np.ndarray], num_categories: int) -> None:
    scores_NC = found.get("scores")
    if scores_NC is None or scores_NC.ndim != 2 or scores_NC.shape[1] != num_categories:
        shape = "no scores" if scores_NC is None else f"scores of shape {scores_NC.shape}"
        raise ValueError(f"{name} holds {shape} and the record has {num_categories} categories")
    if scores_NC.dtype.kind != "f" or not np.isfinite(scores_NC).all():
        raise ValueError(f"{name} holds scores that are no finite numbers")


def _sorted_out(records: list[Record], store: ResultStore, manifest: Manifest) -> Imported:
    found = Imported(manifest.sha256)
    for record in records:
        there = list(_records_here(record, store, found.unusable))
        if others := [other for other in there if not _same(record, other)]:
            facts = (_facts(others[0]), _facts(record))
            found.conflicts.append(Conflict(others[0].folder, record.cell.title, record.cell.key, *facts))
        elif there:
            found.already.append(there[0])
        elif (store.folder(record.cell) / RECORD).exists():
            continue  # damaged, which `unusable` says
        else:
            found.imported.append(record)
    return found


def _records_here(record: Record, store: ResultStore, unusable: list[str]) -> Iterator[Record]:
    for root in (store.root, *store.others):
        path = root / place_of(record.cell) / RECORD
        if not path.exists():
            continue
        try:
            yield read_record(path)
        except UserError as error:
            if root == store.root:
                unusable.append(str(error))


def _same(a: Record, b: Record) -> bool:
    """Tell whether two records are of one cell and have the same scores before any rounding, and the same metrics."""
    scores = (record.content["files"][SCORES].get("sha256") for record in (a, b))
    return a.cell.key == b.cell.key and len(set(scores)) == 1 and to_plain(a.metrics) == to_plain(b.metrics)


def _facts(record: Record) -> dict[str, str]:
    content = record.content
    machine = " ".join(str(content[name]) for name in ("node", "device") if content.get(name)) or "unknown machine"
    return {
        "mAP": f"{100 * record.metrics['mAP']:.4f}",
        "scores": str(content["files"][SCORES].get("sha256"))[:8],
        "machine": "".join(letter for letter in machine if letter.isprintable()),
        "origin": record.origin.to_text(),
    }


def _look_at_signatures(found: Imported, records: list[Record], trusted_keys: Path | None) -> None:
    if trusted_keys is None:
        return
    for record in records:
        try:
            name = signatures.signer(record, trusted_keys)
        except UserError as error:
            raise BadPack(str(error)) from error
        if name:
            found.signed[record.cell.key] = name


def _note_signatures(records: list[Record], found: Imported) -> None:
    """Write beside records that are here already who signed them, where the pack's are the same to the byte."""
    here = {record.cell.key: record for record in found.already}
    for record in records:
        name, there = found.signed.get(record.cell.key), here.get(record.cell.key)
        if name and there is not None and there.origin.pack and there.content["sha256"] == record.content["sha256"]:
            shutil.copyfile(record.folder / SIGNATURE, there.folder / SIGNATURE)
            write_origin(there.folder, replace(there.origin, signed_by=name))


def _moved(record: Record, store: ResultStore) -> Record:
    """Move a record's files to their place; the record itself goes last, so that it is whole when it is there."""
    folder = store.folder(record.cell)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "cell.json", to_json(record.cell.to_json()))
        for name in (PACKED, ORIGIN, SIGNATURE, FAILED):  # of what lay here before and left no record
            (folder / name).unlink(missing_ok=True)
        for path in sorted(record.folder.iterdir(), key=lambda path: path.name == RECORD):
            os.replace(path, folder / path.name)
        sync_folder(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); allow it and import again") from error
    return read_record(folder / RECORD)
