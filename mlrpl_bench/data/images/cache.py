"""A cache of a split's images, resized once to the square that the training transform starts from.

Two kinds, named like the views' backends that read them: JPEG files of quality 95, small, and raw pixels in one
memory-mapped file, without loss. The folder of one split and kind:

    manifest.json          what it is, and the rows left out with the reason; written last, so the cache is complete
                           where it exists
    unfinished.json        the same, while the cache is being written
    0012/0012345.jpg       row 12345 (JPEG)
    pixels_NHW3.npy        all rows (raw)
    done.bin               which pieces of rows are written (raw, while unfinished)
    owner.lock             held by the process that writes
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.decoding import FILES_PER_PIECE, NOT_THERE, BadImage, decode
from mlrpl_bench.data.images.transforms import BICUBIC, ImageTransform
from mlrpl_bench.utils.errors import UserError, one_line
from mlrpl_bench.utils.files import cache_folder, write_atomically
from mlrpl_bench.utils.processes import in_parallel
from mlrpl_bench.utils.progress import Count

KINDS = (PREPARED_JPEG, PREPARED_RAW)
VERSION = 1
"""The version of the folder's format; it is raised with every change to files or pixels."""

JPEG_QUALITY = 95
ROWS_PER_FOLDER = 1000
SAMPLED_FOR_SIZE = 16
MARGIN = 1.1
"""The free disk space must exceed the estimate by this factor."""

MANIFEST, UNFINISHED, PIXELS, DONE = "manifest.json", "unfinished.json", "pixels_NHW3.npy", "done.bin"
LOCK = "owner.lock"
LEFT_OUT = "left_out"


def size_of(split: Split, kind: str, side: int) -> int:
    """Bytes that the prepared images will take: exact for raw, for JPEG estimated from a sample of the images.

    Raises:
        UserError: no image of the sample can be decoded.
    """
    if kind == PREPARED_RAW:
        return _npy_header_bytes(len(split), side) + len(split) * _bytes_per_row(side)
    step = math.ceil(len(split) / SAMPLED_FOR_SIZE)
    sizes, problem = [], None
    for path in split.image_paths[::step]:
        try:
            sizes.append(len(_as_jpeg(_enlarge(path, side))))
        except BadImage as error:  # what becomes of it is decided elsewhere
            problem = error
    if problem is not None and not sizes:
        raise problem
    return round(len(split) * sum(sizes) / len(sizes))


def prepare(
    split: Split,
    folder: Path,
    kind: str,
    side: int,
    report: Count | None = None,
    workers: int = 0,
    left_out: Mapping[int, str] = MappingProxyType({}),
) -> Prepared:
    """Resize all images of a split into a folder, unless that is done; what an earlier try has done stays.

    Args:
        kind: one of `KINDS`.
        side: of the square, pixels: `ImageTransform.enlarged`.
        report: told (rows done, rows total).
        workers: processes; 0 for this one.
        left_out: rows whose image is not read, with the reason; the manifest keeps them.

    Raises:
        BadImage: an image cannot be decoded.
        UserError: the folder holds something else, another process is preparing it, or the disk is or would be full.
    """
    assert kind in KINDS, f"there is no kind {kind!r} of prepared images"
    if not (folder / MANIFEST).exists():
        refuse_to_fill_the_disk([(split, folder)], kind, side)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _claimed(folder):
                if not (folder / MANIFEST).exists():  # another process may have finished just now
                    _write_all(split, folder, kind, side, report, workers, left_out)
                (folder / LOCK).unlink(missing_ok=True)  # whoever has it open already finds the manifest
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"the disk of {folder} is full; free some space and start again; what is done stays"
                ) from error
            raise UserError(f"{folder} cannot be written ({error}); choose another folder") from error
    return Prepared(folder, split, kind, side)


def refuse_to_fill_the_disk(parts: Sequence[tuple[Split, Path]], kind: str, side: int) -> None:
    """Refuse to prepare splits, each in its folder on the same disk, if what is not done of them does not fit together.

    Raises:
        UserError: it does not.
    """
    needed = 0.0
    for split, folder in parts:
        if not (folder / MANIFEST).exists():
            share = 1 - len(set(_done_rows(folder, kind, len(split)))) / len(split)
            needed += share and share * size_of(split, kind, side) * (MARGIN if kind == PREPARED_JPEG else 1)
    folder = parts[0][1]
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"the prepared images need about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on the disk of "
            f"{folder}; free some space, choose another place with MLRPL_CACHE, or a smaller --image-size"
        )


class Prepared:
    """The prepared images of a split, by row; what a `loader.Reader` takes instead of the files.

    What it gives for a row, RGB of `side` x `side` pixels, is for `PREPARED_RAW` exactly the original resized by the
    first step of the reference's training transform, for `PREPARED_JPEG` that after JPEG's loss. A row of `left_out`
    has no image; its reason stands there.

    Raises:
        UserError: the cache is missing, unfinished, damaged, of another version, split, kind or size.
    """

    def __init__(self, folder: Path, split: Split, kind: str, side: int) -> None:
        self.folder, self.kind, self.side = folder, kind, side
        self._num_rows = len(split)
        self._pixels_NHW3: NDArray[np.uint8] | None = None
        if not (folder / MANIFEST).exists():
            what = "is unfinished" if (folder / UNFINISHED).exists() else "does not exist"
            raise UserError(
                f"the cache of prepared images {folder} {what}; prepare the images first, with data prepare --images"
            )
        facts = _read_facts(folder / MANIFEST)
        _check(facts, _facts(split, kind, side), folder)
        self.left_out = _left_out(facts, folder, len(split))
        self._names = {row: str(split.image_paths[row]) for row in self.left_out}
        if kind == PREPARED_RAW:
            self._map()

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, row: int) -> Image.Image:
        if row in self.left_out:
            raise BadImage(
                f"image {self._names[row]} was left out when the images were prepared ({self.left_out[row]}); "
                "use --on-bad-image skip, or mend it and prepare the images again"
            )
        if self.kind == PREPARED_JPEG:
            try:
                image = decode(_jpeg_path(self.folder, row))
            except UserError as error:
                raise _damaged(self.folder, str(error)) from error
            if image.size != (self.side, self.side):
                raise _damaged(self.folder, f"row {row} has {image.width} x {image.height} pixels")
            return image
        if self._pixels_NHW3 is None:
            self._map()
        assert self._pixels_NHW3 is not None
        return Image.fromarray(self._pixels_NHW3[row])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels_NHW3": None}  # pickled, a memory map would carry all its pixels

    def _map(self) -> None:
        try:
            pixels_NHW3 = np.lib.format.open_memmap(self.folder / PIXELS, mode="r")
        except Exception as error:  # NumPy, and the tokenizer that it reads headers with, raise many kinds
            raise _damaged(self.folder, str(error)) from error
        if pixels_NHW3.shape != (self._num_rows, self.side, self.side, 3) or pixels_NHW3.dtype != np.uint8:
            raise _damaged(self.folder, f"{PIXELS} holds {pixels_NHW3.dtype} of shape {pixels_NHW3.shape}")
        self._pixels_NHW3 = pixels_NHW3


class PreparedRows:
    """Some rows of prepared images, in the order given: those that are trained on, or evaluated on.

    Args:
        images: of the dataset's whole split.
        rows: N rows of it.
    """

    def __init__(self, images: Prepared, rows: NDArray[np.intp]) -> None:
        self.images, self.rows = images, rows
        self.kind, self.side = images.kind, images.side

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Image.Image:
        return self.images[int(self.rows[row])]


def prepared_folder(split: Split, view: ImageTransform) -> Path:
    """Where the images of a split that a view takes are kept."""
    digest = hashlib.sha256(split.fingerprint().encode())
    for path in split.image_paths:  # the same labels may stand for other pictures, or for pictures that were replaced
        try:
            found = path.stat()
            facts = (found.st_size, found.st_mtime_ns)
        except NOT_THERE:  # one that is left out; once it is there, the images are others
            facts = (0, 0)
        except OSError as error:
            raise UserError(f"image {path} cannot be read ({error.strerror}); check the data folder") from error
        digest.update(repr((str(path.resolve()), *facts)).encode())
    return cache_folder() / "prepared" / f"{digest.hexdigest()[:16]}-{view.enlarged}-{view.backend}"


def _facts(split: Split, kind: str, side: int) -> dict[str, Any]:
    return {"version": VERSION, "kind": kind, "side": side, "rows": len(split), "fingerprint": split.fingerprint()}


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from error
    if not isinstance(facts, dict):
        raise _damaged(path.parent, f"{path.name} is no JSON object")
    return facts


def _left_out(facts: dict[str, Any], folder: Path, num_rows: int) -> dict[int, str]:
    pairs = facts.get(LEFT_OUT, [])
    try:
        if all(type(row) is int and 0 <= row < num_rows and isinstance(reason, str) for row, reason in pairs):
            return {row: one_line(reason) for row, reason in pairs}
    except (TypeError, ValueError):  # no list of pairs
        pass
    raise _damaged(folder, f"{MANIFEST}: {LEFT_OUT} is no list of rows and reasons")


def _check(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            what = {"fingerprint": "split or dataset"}.get(name, name)
            there = one_line(found.get(name))
            raise UserError(
                f"the prepared images in {folder} are of another {what} ({there}, wanted {value}); "
                "delete the folder or choose another"
            )


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"the prepared images in {folder} are damaged ({what}); delete the folder and prepare them again")


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Lock the folder against other writers, which would begin the raw file anew for each other.

    The system takes a lock back when its owner ends, however that happens; a mark that merely exists would outlive a
    crash. It is a record lock because worker processes do not inherit these: else they would hold it for a dead owner.
    """
    with (folder / LOCK).open("a") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise UserError(f"another process is preparing {folder}; wait for it, or end it and start again") from None
        yield


def _write_all(
    split: Split,
    folder: Path,
    kind: str,
    side: int,
    report: Count | None,
    workers: int,
    left_out: Mapping[int, str],
) -> None:
    facts = _facts(split, kind, side)
    if (folder / UNFINISHED).exists():
        _check(_read_facts(folder / UNFINISHED), facts, folder)
    done_rows = set(_done_rows(folder, kind, len(split)))
    write_atomically(folder / UNFINISHED, json.dumps(facts, indent=1))
    if kind == PREPARED_RAW and not done_rows:
        np.lib.format.open_memmap(folder / PIXELS, "w+", np.uint8, (len(split), side, side, 3))
    _write_missing(split, folder, kind, side, done_rows, report, workers, left_out)
    write_atomically(folder / MANIFEST, json.dumps({**facts, LEFT_OUT: list(left_out.items())}, indent=1))
    for name in (UNFINISHED, DONE):
        (folder / name).unlink(missing_ok=True)


def _done_rows(folder: Path, kind: str, num_rows: int) -> Iterator[int]:
    if not (folder / UNFINISHED).exists():  # whatever else lies there is none of ours
        return
    if kind == PREPARED_JPEG:
        yield from (row for row in range(num_rows) if _jpeg_path(folder, row).exists())
    elif (folder / DONE).exists() and (folder / PIXELS).exists():
        done = (folder / DONE).read_bytes()
        if len(done) == math.ceil(num_rows / FILES_PER_PIECE):
            yield from (row for row in range(num_rows) if done[row // FILES_PER_PIECE])


def _write_missing(
    split: Split,
    folder: Path,
    kind: str,
    side: int,
    done_rows: set[int],
    report: Count | None,
    workers: int,
    left_out: Mapping[int, str],
) -> None:
    finished = done_rows | left_out.keys()
    pieces = [range(len(split))[start : start + FILES_PER_PIECE] for start in range(0, len(split), FILES_PER_PIECE)]
    missing = [[row for row in piece if row not in finished] for piece in pieces]
    tasks = [tuple((row, split.image_paths[row]) for row in rows) for rows in missing if rows]
    num_done, done = len(finished), bytearray(not rows for rows in missing)
    header = _npy_header_bytes(len(split), side)
    write = partial(_write_jpegs, folder, side) if kind == PREPARED_JPEG else partial(_write_raw, folder, side, header)
    if report is not None:
        report(num_done, len(split))
    for task, _ in in_parallel(write, tasks, workers):
        num_done += len(task)
        if kind == PREPARED_RAW:
            done[task[0][0] // FILES_PER_PIECE] = True
            write_atomically(folder / DONE, bytes(done))
        if report is not None:
            report(num_done, len(split))


def _write_jpegs(folder: Path, side: int, rows: Sequence[tuple[int, Path]]) -> None:
    for row, path in rows:
        write_atomically(_jpeg_path(folder, row), _as_jpeg(_enlarge(path, side)))


def _write_raw(folder: Path, side: int, header: int, rows: Sequence[tuple[int, Path]]) -> None:
    """Write the rows of one piece by ordinary writes; through a memory map a full disk would end the process."""
    pixels = {row: np.asarray(_enlarge(path, side)).tobytes() for row, path in rows}
    with (folder / PIXELS).open("r+b") as file:
        for row, its_pixels in pixels.items():  # not one block: rows that are left out lie between
            file.seek(header + row * _bytes_per_row(side))
            file.write(its_pixels)
        file.flush()
        os.fsync(file.fileno())


def as_prepared(image: Image.Image, view: ImageTransform) -> Image.Image:
    """What the reader would give a view of a decoded image: for a prepared view, the image prepared as `prepare` does.

    Args:
        image: decoded, in full size.
        view: how images become the network's input; of an unprepared view the image comes back as it is.
    """
    if not view.is_prepared:
        return image
    enlarged = _enlarged(image, view.enlarged)
    return Image.open(io.BytesIO(_as_jpeg(enlarged))) if view.backend == PREPARED_JPEG else enlarged


def _enlarge(path: Path, side: int) -> Image.Image:
    return _enlarged(decode(path), side)


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    """The first step of the reference's training transform; an image of that size is left as it is."""
    return image if image.size == (side, side) else image.resize((side, side), BICUBIC)


def _as_jpeg(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "jpeg", quality=JPEG_QUALITY, comment=b"")  # the original's comment stays there
    return content.getvalue()


def _jpeg_path(folder: Path, row: int) -> Path:
    return folder / f"{row // ROWS_PER_FOLDER:04d}" / f"{row:07d}.jpg"


def _bytes_per_row(side: int) -> int:
    return 3 * side**2


def _npy_header_bytes(num_rows: int, side: int) -> int:
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": (num_rows, side, side, 3)}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.tell()
