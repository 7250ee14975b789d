"""This module caches a split's images, resized once to the square that the training transform starts from.

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

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.decoding import NOT_THERE, BadImage, decode
from mlrpl_bench.data.images.transforms import BICUBIC, ImageTransform
from mlrpl_bench.utils.errors import UserError, one_line
from mlrpl_bench.utils.files import cache_folder

KINDS = (PREPARED_JPEG, PREPARED_RAW)
VERSION = 1
"""This is the version of the folder's format; it is raised with every change to files or pixels."""

JPEG_QUALITY = 95
ROWS_PER_FOLDER = 1000
MANIFEST, UNFINISHED, PIXELS, DONE = "manifest.json", "unfinished.json", "pixels_NHW3.npy", "done.bin"
LEFT_OUT = "left_out"


class Prepared:
    """These are the prepared images of a split, by row; what a `loader.Reader` takes instead of the files.

    What it gives for a row, RGB of `side` x `side` pixels, is for `PREPARED_RAW` exactly the original resized by the
    first step of the reference's training transform, for `PREPARED_JPEG` that after JPEG's loss. A row of
    `skipped_rows` has no image; its reason stands there.

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
        facts = read_facts(folder / MANIFEST)
        check_facts(facts, facts_of(split, kind, side), folder)
        self.skipped_rows = _skipped_rows(facts, folder, len(split))
        self._names = {row: str(split.image_paths[row]) for row in self.skipped_rows}
        if kind == PREPARED_RAW:
            self._map()

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, row: int) -> Image.Image:
        if row in self.skipped_rows:
            raise BadImage(
                f"image {self._names[row]} was left out when the images were prepared ({self.skipped_rows[row]}); "
                "use --on-bad-image skip, or mend it and prepare the images again"
            )
        if self.kind == PREPARED_JPEG:
            try:
                image = decode(jpeg_path(self.folder, row))
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
    """These are some rows of prepared images, in the order given: those that are trained on, or evaluated on.

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
    """Return where the images of a split that a view takes are kept."""
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


def facts_of(split: Split, kind: str, side: int) -> dict[str, Any]:
    """Return what a manifest says of the cache of a split."""
    return {"version": VERSION, "kind": kind, "side": side, "rows": len(split), "fingerprint": split.fingerprint()}


def read_facts(path: Path) -> dict[str, Any]:
    """Read a manifest, finished or not.

    Raises:
        UserError: it is damaged.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from error
    if not isinstance(facts, dict):
        raise _damaged(path.parent, f"{path.name} is no JSON object")
    return facts


def _skipped_rows(facts: dict[str, Any], folder: Path, num_rows: int) -> dict[int, str]:
    pairs = facts.get(LEFT_OUT, [])
    try:
        if all(type(row) is int and 0 <= row < num_rows and isinstance(reason, str) for row, reason in pairs):
            return {row: one_line(reason) for row, reason in pairs}
    except (TypeError, ValueError):  # no list of pairs
        pass
    raise _damaged(folder, f"{MANIFEST}: {LEFT_OUT} is no list of rows and reasons")


def check_facts(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Refuse a cache of another version, split, kind or size.

    Raises:
        UserError: it is one.
    """
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


def as_prepared(image: Image.Image, view: ImageTransform) -> Image.Image:
    """Return what the reader would give a view of a decoded image: for a prepared view, the image prepared as `prepare`
    does.

    Args:
        image: decoded, in full size.
        view: how images become the network's input; of an unprepared view the image comes back as it is.
    """
    if not view.is_prepared:
        return image
    square = enlarged(image, view.enlarged)
    return Image.open(io.BytesIO(as_jpeg(square))) if view.backend == PREPARED_JPEG else square


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Apply the first step of the reference's training transform; an image of that size is left as it is."""
    return image if image.size == (side, side) else image.resize((side, side), BICUBIC)


def as_jpeg(image: Image.Image) -> bytes:
    """Return the image as a JPEG file of quality 95."""
    content = io.BytesIO()
    image.save(content, "jpeg", quality=JPEG_QUALITY, comment=b"")  # the original's comment stays there
    return content.getvalue()


def jpeg_path(folder: Path, row: int) -> Path:
    """Return where a row's JPEG file lies."""
    return folder / f"{row // ROWS_PER_FOLDER:04d}" / f"{row:07d}.jpg"
