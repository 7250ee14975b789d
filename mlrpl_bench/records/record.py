"""This module composes ``record.json`` for a finished cell, and reads and checks it with the files that it names."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data import protocol
from mlrpl_bench.evaluation.metrics import SHARES
from mlrpl_bench.records.cell import Cell, Finished, OtherWeights
from mlrpl_bench.records.elsewhere.origin import OWN, Origin, read_origin
from mlrpl_bench.records.elsewhere.packed import EXAMPLES, MAY_BE_ROUNDED, PACKED, Packed, expanded
from mlrpl_bench.records.elsewhere.remote import left_elsewhere
from mlrpl_bench.utils import arrays
from mlrpl_bench.utils.errors import UserError

RECORD = "record.json"
FILES = ("history.csv", "steps.npz", "scores.npz", "train_scores.npz", "examples.npz")
"""Every record has these files; the weights may have been left out, and a pack may have left out more."""

OTHER_WEIGHTS = "other_weights"
"""This entry of a record has the metrics of the weights that are not the row's, where its recipe averages weights."""

COSTS: Mapping[str, int | None] = {
    "seconds": 3,
    "images_per_second": 1,
    "peak_memory_bytes": None,
    "cells_in_group": None,
}
"""These costs of its cell stand in every record, each with so many decimals; None for whole numbers."""


@dataclass(frozen=True, eq=False)
class Record:
    """A record holds what a finished cell left behind.

    Attributes:
        cell: the cell that was trained.
        folder: the folder of its files.
        metrics: the test metrics of the last epoch, in [0, 1], see `metrics.evaluate`; AP_C has NaN where a category
            has no positives.
        content: all of record.json.
        packed: what a pack changed of its files; None where they are as training wrote them.
        origin: whether it was measured here, and what is known of it else.
    """

    cell: Cell
    folder: Path
    metrics: dict[str, Any]
    content: dict[str, Any]
    packed: Packed | None = None
    origin: Origin = OWN

    @property
    def files(self) -> dict[str, Any]:
        """Return size and hash of each file that lies beside the record, by name."""
        stated = self.content["files"]
        return stated if self.packed is None else self.packed.files_here(stated)

    def is_rounded(self) -> bool:
        """Tell whether its scores have fewer digits here than those that its metrics were computed from."""
        return self.packed is not None and self.packed.is_rounded()


class DamagedRecord(UserError):
    """A record, or one of its files, is not what was written."""


class Unreadable(UserError):
    """The system could not read a file, which says nothing about what is in it."""


class OtherVersion(UserError):
    """A record has another protocol version: it is not damaged, but its numbers stand in no table of this version."""

    def __init__(self, path: Path, version: Any) -> None:
        super().__init__(
            f"record {path} is of protocol version {version!r} and this is version {protocol.VERSION}: their numbers "
            "do not mix; move it away or choose another --results-dir"
        )
        self.reason = f"of protocol version {version!r}"


def compose(
    finished: Finished, provenance: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Compose the content of ``record.json`` for a finished cell, with its own digest.

    Args:
        provenance: facts about code and machine, as plain data; they become entries of the record.
        files: by name of each file beside the record, its ``bytes`` and its ``sha256``.
    """
    content = {
        "cell": finished.cell.to_json(),
        "key": finished.cell.key,
        "metrics": to_plain(finished.metrics),
        "best_epoch": finished.best_epoch,
        "best_metrics": to_plain(finished.best_metrics),
        **_of_other_weights(finished.other_weights),
        "known_share": to_plain(finished.known_share),
        "dropped_images": finished.dropped_images,
        "cost": {name: round(getattr(finished, name), decimals) for name, decimals in COSTS.items()},
        "thread_counts": list(finished.threads),
        **provenance,
        "files": files,
    }
    return {**content, "sha256": digest(content)}


def _of_other_weights(other: OtherWeights | None) -> dict[str, Any]:
    return {} if other is None else {OTHER_WEIGHTS: {"weights": other.name, "metrics": to_plain(other.metrics)}}


def read_record(path: Path) -> Record:
    """Read one ``record.json`` and check that it is whole, of this protocol version, and has its files in full size.

    Raises:
        OtherVersion: it has another protocol version; nothing more of it was looked at.
        DamagedRecord: it or a file is damaged; the message names the file, what is wrong with it and what to do.
        Unreadable: the system could not read a file.
    """
    content = read_json(path)
    advice = f"move {path.parent} away, then run again to train the cell anew"
    try:
        version = content["cell"]["setting"]["protocol_version"]
    except (KeyError, TypeError) as error:
        raise DamagedRecord(f"record {path} is not a whole record ({error!r}); {advice}") from error
    if version != protocol.VERSION:
        raise OtherVersion(path, version)
    try:
        cell = Cell.from_json(content["cell"])
        for name, facts in content["files"].items():
            int(facts["bytes"])
            _plain_name(name)
        metrics = {name: from_plain(value) for name, value in content["metrics"].items()}
        if missing := sorted(set(FILES) - set(content["files"])):
            raise ValueError(f"it does not name its {', '.join(missing)}")
        for name in ("git", "versions", "known_share"):
            if not isinstance(content.get(name) or {}, dict):
                raise ValueError(f"its {name} is no object")
        if content["key"] != cell.key:
            raise ValueError("its key is not that of its cell")
        _check_numbers(metrics, {name: from_plain(value) for name, value in content["best_metrics"].items()})
        if cell.recipe.ema is not None:
            other = content[OTHER_WEIGHTS]["metrics"]
            _check_numbers({name: from_plain(value) for name, value in other.items()})
        for name in COSTS:
            if not isinstance(content["cost"][name], (int, float)) or not 0 <= float(content["cost"][name]) < math.inf:
                raise ValueError(f"its cost has no {name}")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DamagedRecord(f"record {path} is not a whole record ({error!r}); {advice}") from error
    record = Record(cell, path.parent, metrics, content, _packed(path.parent), read_origin(path.parent))
    elsewhere = left_elsewhere(path.parent)
    for name, facts in record.files.items():
        file, size = path.parent / name, int(facts["bytes"])
        found = _size(file)
        if found is None:
            found = elsewhere.get(name)
        if found is None:
            raise DamagedRecord(f"{file} is missing though its record names it; {advice}")
        if found != size:
            raise DamagedRecord(f"{file} has {found} bytes where its record says {size}; {advice}")
    return record


def _packed(folder: Path) -> Packed | None:
    """Read what a pack changed of a record's files; None where none did.

    Raises:
        DamagedRecord: the file that says so is damaged.
        Unreadable: the system could not read it.
    """
    path = folder / PACKED
    if _size(path) is None:
        return None
    try:
        return Packed.from_json(read_json(path))
    except ValueError as error:
        raise DamagedRecord(f"{path} is damaged ({error}); move {folder} away, then run again") from error


def _size(file: Path) -> int | None:
    """Return a file's size in bytes; None where there is no file.

    Raises:
        Unreadable: the system could not look.
    """
    try:
        found = file.stat()  # `is_file` of later Pythons says no where it may not look
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(path: Path, error: OSError) -> Unreadable:
    return Unreadable(f"{path} cannot be read ({error.strerror}); allow it, or move {path.parent} away")


def digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of all that a record says, but for this digest itself."""
    said = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _plain_name(name: str) -> str:
    """Return the name of a file if it can lie in a record's own folder.

    Raises:
        ValueError: it leads elsewhere, or no file can have it.
    """
    if name == ".." or Path(name).name != name or "\0" in name or len(os.fsencode(name)) > 255:
        raise ValueError(f"it names the file {name!r}, which cannot lie beside it")
    return name


def _check_numbers(*metrics: dict[str, Any]) -> None:
    """Refuse metrics that lack a number that tables show; NaN is a share of no entries only in AP_C.

    Raises:
        KeyError: a number is missing.
        ValueError: a number is no share between 0 and 1.
    """
    for of_epoch in metrics:
        for name in SHARES:
            if not isinstance(of_epoch[name], float) or not 0 <= of_epoch[name] <= 1:  # NaN neither
                raise ValueError(f"its {name} is no share between 0 and 1")
        if getattr(of_epoch["AP_C"], "ndim", 0) != 1 or ((of_epoch["AP_C"] < 0) | (of_epoch["AP_C"] > 1)).any():
            raise ValueError("its AP_C are no shares between 0 and 1")


def read_arrays(path: Path) -> dict[str, NDArray]:
    """Read the arrays of one of a record's ``.npz`` files.

    Raises:
        DamagedRecord: the file is damaged.
        Unreadable: the system could not read it.
    """
    try:
        return arrays.read(path)
    except arrays.Damaged as error:
        cause = error.__cause__
        of_the_file = (errno.ENOENT, errno.EINVAL)  # the latter: a damaged file leads to a place that it has not
        if isinstance(cause, OSError) and cause.errno not in of_the_file:
            raise _unreadable(path, cause) from error
        raise DamagedRecord(f"{path} is damaged ({error}); move {path.parent} away, then run again") from error


def read_arrays_of(record: Record, name: str) -> dict[str, NDArray]:
    """Read the arrays of a record's ``.npz`` file as training wrote them; what a pack rounded has fewer digits.

    Args:
        name: the name of the file, without the ending.

    Raises:
        DamagedRecord: the file is damaged.
        Unreadable: the system could not read it.
    """
    path = record.folder / f"{name}.npz"
    found = read_arrays(path)
    if not record.is_rounded() or path.name not in MAY_BE_ROUNDED:
        return found
    if path.name == EXAMPLES:
        return {name: each.astype(np.float32) if each.dtype == np.float16 else each for name, each in found.items()}
    try:
        return {"scores": expanded(found)}
    except ValueError as error:
        raise DamagedRecord(f"{path} is damaged ({error}); move {path.parent} away, then run again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a cell's JSON file.

    Raises:
        DamagedRecord: it is damaged, or holds something else.
        Unreadable: the system could not read it.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        advice = f"move {path.parent} away, then run again to train the cell anew"
        raise DamagedRecord(f"{path} is cut short or no JSON ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise DamagedRecord(f"{path} holds no JSON object; move {path.parent} away, then run again")
    return content


def to_json(content: dict[str, Any]) -> str:
    """Write plain data as JSON that people can read too; numbers that JSON does not have are refused."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def to_plain(metrics: dict[str, Any]) -> dict[str, Any]:
    """Turn arrays into lists and NaN into None, as JSON has neither arrays nor NaN."""
    return {name: arrays.plain(value) for name, value in metrics.items()}


def from_plain(value: Any) -> Any:
    """Turn a list into an array and None into NaN."""
    if isinstance(value, list):
        return np.array([math.nan if item is None else item for item in value], dtype=np.float64)
    return math.nan if value is None else value
