"""This module writes records into a pack: one file, or a folder of files, that a forge or a data hub can hold.

The same records give the same bytes: files stand in order, and an archive has no times and no owners.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.records.elsewhere.packed import (
    EXAMPLES,
    FULL,
    PACKED,
    ROUNDED,
    SCORES,
    TRAIN_EVIDENCE,
    TRAIN_SCORES,
    WEIGHTS,
    Packed,
    expanded,
    rounded,
)
from mlrpl_bench.records.packs.manifest import MANIFEST, Manifest
from mlrpl_bench.records.packs.signatures import SIGNATURE
from mlrpl_bench.records.record import RECORD, Record, Unreadable, read_arrays, to_json
from mlrpl_bench.records.store import place_of
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import build_folder_once, naming, sync_folder
from mlrpl_bench.utils.progress import Report, silent

ARCHIVE = ".zip"
"""A pack whose name ends so is one file; any other is a folder."""

COMPRESSED = frozenset({".json", ".csv", ".sig"})
"""Files with these endings are compressed by the archive, and ``steps.npz``; the other arrays are already."""

Put = Callable[[str, bytes], None]
OfTraining = Callable[[Record], Mapping[str, NDArray]]
"""Gives what tables need of a record's training scores, see `evidence.of_training`."""


@dataclass(frozen=True)
class Contents:
    """The contents of a pack are chosen with these.

    Attributes:
        scores: the number format of scores, `ROUNDED` or `FULL`.
        train_scores: whether the scores of the training images are in it.
        weights: whether the trained weights are in it.
    """

    scores: str = ROUNDED
    train_scores: bool = False
    weights: bool = False


@dataclass(frozen=True)
class Exported:
    """This class says what was written into a pack.

    Attributes:
        path: the pack.
        records: how many records are in it.
        bytes: the size of their files; an archive's own size is less.
        scores: the number format of their scores.
        with_weights: how many of them have trained weights in it.
        sha256: the digest of the pack, which is that of every byte of every file.
    """

    path: Path
    records: int
    bytes: int
    scores: str
    with_weights: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "path": str(self.path)}


def write(
    records: Sequence[Record], out: Path, contents: Contents, of_training: OfTraining, report: Report = silent
) -> Exported:
    """Write records into a pack, which appears whole or not at all.

    Args:
        records: of different cells; every byte of their files is compared with its hash.
        out: the pack: a file whose name ends in `ARCHIVE`, else a folder; neither may exist.
        report: told about the progress as (what, done, total).

    Raises:
        UserError: a record is damaged or cannot be packed so, or the pack is there already or cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out} is there already; name a new one, as packs are not changed")
    in_order = sorted(records, key=lambda record: str(place_of(record.cell)))
    written: list[Manifest] = []

    def fill(put: Put) -> None:
        facts: dict[str, dict[str, dict[str, Any]]] = {}
        for number, record in enumerate(in_order, start=1):
            place = place_of(record.cell).as_posix()
            facts[place] = {}
            for name, content in sorted(_files_of(record, contents, of_training).items()):
                put(f"{place}/{name}", content)
                facts[place][name] = _facts(content)
            report("packing", number, len(in_order))
        written.append(Manifest(contents.scores, facts))
        put(MANIFEST, to_json(written[0].to_json()).encode())

    try:
        if out.suffix == ARCHIVE:
            _write_archive(out, fill)
        else:
            build_folder_once(out, lambda folder: fill(lambda name, content: _write_file(folder / name, content)))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); make room, or name another --out") from error
    sizes = [facts["bytes"] for _, facts in written[0].members()]
    with_weights = sum(WEIGHTS in files for files in written[0].records.values())
    return Exported(out, len(in_order), sum(sizes), contents.scores, with_weights, written[0].sha256)


def _files_of(record: Record, contents: Contents, of_training: OfTraining) -> dict[str, bytes]:
    """Return the bytes of a record's files in a pack, by name."""
    before = record.packed
    scores = FULL if before is None else before.scores
    if before is not None and contents.scores == FULL and scores == ROUNDED:
        raise UserError(f"{record.folder} came in a pack with scores in {ROUNDED}; leave --scores {FULL} out")
    if contents.train_scores and TRAIN_SCORES not in record.files:
        raise UserError(f"{record.folder} came in a pack without training scores; leave --train-scores out")
    wanted = {name for name in record.files if name not in (TRAIN_SCORES, WEIGHTS)}
    wanted |= {TRAIN_SCORES} if contents.train_scores else set()
    wanted |= {WEIGHTS} & set(record.files) if contents.weights else set()
    files = {name: _checked(record, name) for name in wanted}
    stated = record.content["files"]
    if contents.scores == ROUNDED and scores == FULL:
        files |= _rounded(record, sorted(wanted & {SCORES, TRAIN_SCORES}))
    if TRAIN_SCORES not in files and TRAIN_EVIDENCE not in files:
        files[TRAIN_EVIDENCE] = compressed(of_training(record))
    changed = {name: _facts(content) for name, content in sorted(files.items()) if _facts(content) != stated.get(name)}
    left_out = tuple(sorted(set(stated) - set(files)))
    if changed or left_out:
        is_rounded = ROUNDED if ROUNDED in (contents.scores, scores) else FULL
        files[PACKED] = to_json(Packed(is_rounded, changed, left_out).to_json()).encode()
    files[RECORD] = (record.folder / RECORD).read_bytes()
    if (signature := record.folder / SIGNATURE).is_file():
        files[SIGNATURE] = signature.read_bytes()
    return files


def _checked(record: Record, name: str) -> bytes:
    """Read a file of a record and compare it with its hash."""
    path = record.folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror}); allow it, or leave this record out") from error
    if hashlib.sha256(content).hexdigest() != record.files[name].get("sha256"):
        raise UserError(f"{path} is not what its record says (SHA-256 differs); see verify --files")
    return content


def _rounded(record: Record, names: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes of those files of a record that hold scores, with scores rounded."""
    files = {}
    for name in names:
        path = record.folder / name
        try:
            scores_NC = read_arrays(path)["scores"]
            if scores_NC.dtype != np.float32 or scores_NC.ndim != 2 or not np.isfinite(scores_NC).all():
                raise ValueError("its scores are no finite numbers of 32 bits")
            arrays = rounded(scores_NC)
        except (KeyError, ValueError) as error:
            raise UserError(f"{path} cannot be packed in {ROUNDED} ({error}); give --scores {FULL}") from error
        files[name] = compressed(arrays)
        if name == SCORES:
            files[EXAMPLES] = _examples(record, expanded(arrays))
    return files


def _examples(record: Record, scores_NC: NDArray[np.float32]) -> bytes:
    """Return the bytes of the file of examples, which repeats rows of the scores."""
    path = record.folder / EXAMPLES
    arrays = read_arrays(path)
    try:
        arrays["scores"] = scores_NC[arrays["rows"]]
    except (KeyError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error!r}); see verify --files") from error
    for name in arrays:
        if name not in ("rows", "scores") and arrays[name].dtype == np.float32:
            arrays[name] = arrays[name].astype(np.float16)
    return compressed(arrays)


def compressed(arrays: Mapping[str, NDArray]) -> bytes:
    """Return arrays as the bytes of a compressed ``.npz`` file; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _facts(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write_archive(out: Path, fill: Callable[[Put], None]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with naming(out), _unfinished(out) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            fill(lambda name, content: archive.writestr(_entry(name), content, compresslevel=6))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, out)
        sync_folder(out.parent)


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part")
    os.close(handle)
    os.chmod(name, 0o644)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    is_small = Path(name).suffix in COMPRESSED or Path(name).name == "steps.npz"
    entry.compress_type = zipfile.ZIP_DEFLATED if is_small else zipfile.ZIP_STORED
    return entry


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
