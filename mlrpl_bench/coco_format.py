"""Reads and writes COCO-format annotations.

An image has a category when at least one annotation says so, crowds included. Rows keep the order of the file's
``images`` list, because the order decides the mask (torchvision's CocoDetection sorts, and gives other masks);
columns are the category ids in ascending order, which may have gaps.

`read_list` and `locate` read a plain list of names and find the files it names; they serve other formats as well.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.dataset import Split
from mlrpl_bench.errors import UserError
from mlrpl_bench.files import write_atomically
from mlrpl_bench.image_files import is_in_folder, missing_rows
from mlrpl_bench.label_cache import kept
from mlrpl_bench.protocol import ABSENT, PRESENT

LISTS = ("images", "annotations", "categories")


def read(annotation_file: Path, image_folder: Path) -> Split:
    """The complete labels that an annotation file gives its images; without word vectors.

    Images without annotations are kept, all ABSENT. The image files themselves are not looked at.

    Raises:
        UserError: the file is missing, cut short or inconsistent; the line names it.
    """
    split = kept(annotation_file, lambda: _read(annotation_file, image_folder))
    return replace(split, image_paths=[image_folder / name for name in split.image_paths])


def read_with_images(annotation_file: Path, image_folders: Sequence[Path]) -> Split:
    """As `read`, with every image in the first of the folders that has it; see `locate` for those that are missing."""
    split = kept(annotation_file, lambda: _read(annotation_file, image_folders[0]))
    return replace(split, image_paths=locate([str(path) for path in split.image_paths], image_folders, annotation_file))


def write(
    annotation_file: Path,
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
) -> None:
    """Write an annotation file, atomically; equal content gives equal bytes.

    Args:
        images: each with ``id`` and ``file_name`` (relative to the image folder), in the order of the rows.
        annotations: each with ``id``, ``image_id`` and ``category_id``.
        categories: each with ``id`` and ``name``.
    """
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_atomically(annotation_file, json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")


def read_list(list_file: Path) -> list[str]:
    """The names in a text file, one a line; a last line counts with and without a line break, blank lines do not.

    Raises:
        UserError: the file is missing, is no text or has no names.
    """
    if not list_file.is_file():
        raise UserError(f"no list {list_file}; check the path of the data, or download the file")
    try:
        text = list_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{list_file} is no text ({error}); download it again") from error
    except OSError as error:
        raise UserError(f"{list_file} cannot be read ({error.strerror}); check its permissions") from error
    if "\0" in text:
        raise UserError(f"{list_file} is no text (it has a NUL character); download it again")
    lines = text.splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{list_file} has no names; download it again")
    return names


def is_text(value: Any) -> bool:
    """Whether it is text that can be printed and can name a file: JSON's may have NULs and halves of characters.

    >>> is_text("dog"), is_text(7), is_text("a\\0b"), is_text("\\ud800")
    (True, False, False, False)
    """
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def locate(names: Sequence[str], folders: Sequence[Path], listed_in: Path) -> list[Path]:
    """Where each of the listed files lies: in the first of the folders that has it.

    One that no folder has gets a path where most of the others are. It is not refused: whether a run goes on without
    an image is the user's choice (``--on-bad-image``), and `image_files.missing_rows` finds it.

    Raises:
        UserError: a name is there twice or leads out of the folders, or a folder cannot be read.
    """
    _refuse_repeated([os.path.normpath(name) for name in names], "file name", listed_in)
    _refuse_outside(names, folders[0], listed_in)
    listed: dict[Path, frozenset[str]] = {}
    places = [next((f for f in folders if is_in_folder(f / name, listed)), None) for name in names]
    found = Counter(folder for folder in places if folder is not None)
    usual = found.most_common(1)[0][0] if found else folders[0]
    return [(folder or usual) / name for folder, name in zip(places, names, strict=True)]


def refuse_missing(paths: Sequence[Path], listed_in: Path) -> None:
    """For files that nothing can be read without.

    Raises:
        UserError: some are not there; the line says how many, and names the first.
    """
    if missing := missing_rows(paths):
        raise UserError(
            f"{listed_in} lists {len(paths):,} files, of which {len(missing):,} are missing, the first is "
            f"{paths[missing[0]]}; finish the download or unpack the archive again"
        )


def _read(annotation_file: Path, image_folder: Path) -> Split:
    """A split whose image paths are the file's own relative names."""
    content = _parse(annotation_file)
    images, annotations, categories = (content[name] for name in LISTS)
    names = tuple(category["name"] for category in categories)
    file_names = [image["file_name"] for image in images]

    image_ids = [image["id"] for image in images]
    category_ids = [category["id"] for category in categories]
    for what, values in (
        ("image id", image_ids),
        ("file name", [os.path.normpath(name) for name in file_names]),
        ("category id", category_ids),
        ("category name", names),
    ):
        _refuse_repeated(values, what, annotation_file)
    _refuse_outside(file_names, image_folder, annotation_file)

    row_A = _places(annotations, "image_id", image_ids, annotation_file)
    column_A = _places(annotations, "category_id", category_ids, annotation_file)
    labels_NC = np.full((len(images), len(categories)), ABSENT, dtype=np.int8)
    labels_NC[row_A, column_A] = PRESENT
    return Split(image_ids, [Path(name) for name in file_names], labels_NC, names)


def _parse(annotation_file: Path) -> dict[str, list[dict[str, Any]]]:
    """What the file holds, every key that `read` uses in place and the categories in the order of the columns."""
    from pycocotools.coco import COCO

    if not annotation_file.is_file():
        raise UserError(f"no annotation file {annotation_file}; check the path of the data, or download the file")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress with print
            content = COCO(str(annotation_file)).dataset
        for name in LISTS:
            if not isinstance(content[name], list):
                raise TypeError(f"{name!r} is not a list")
        for image in content["images"]:
            if not is_text(image["file_name"]):
                raise TypeError(f"the file name {image['file_name']!r} is not text")
        for category in content["categories"]:
            if not is_text(category["name"]):
                raise TypeError(f"the category name {category['name']!r} is not text")
        for entry in (*content["images"], *content["categories"]):
            if not _is_id(entry["id"]):
                raise TypeError(f"the id {entry['id']!r} is neither a number nor text")
        content["categories"].sort(key=lambda category: category["id"])
    except KeyError as error:
        raise UserError(
            f"{annotation_file} lacks {error}; it must be a COCO instances file with {', '.join(LISTS)}"
        ) from error
    except (TypeError, AssertionError) as error:
        raise UserError(
            f"{annotation_file} is JSON but no COCO instances file ({error}); check which file it is"
        ) from error
    except RecursionError as error:
        raise UserError(f"{annotation_file} is nested too deeply for a COCO instances file; get it again") from error
    except OSError as error:
        raise UserError(f"{annotation_file} cannot be read ({error.strerror}); check its permissions") from error
    except ValueError as error:  # JSON that does not parse, bytes that are no text
        raise UserError(
            f"{annotation_file} is cut short or not JSON ({error}); download or generate it again"
        ) from error
    for name in ("images", "categories"):
        if not content[name]:
            raise UserError(f"{annotation_file} has no {name}; check which file it is")
    return content


def _is_id(value: Any) -> bool:
    """Other programs write whole numbers as 1.0, too."""
    return is_text(value) or type(value) is int or (type(value) is float and math.isfinite(value))


def _refuse_repeated(values: Sequence[Hashable], what: str, annotation_file: Path) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[Hashable] = set()
    twice = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
    raise UserError(f"{annotation_file} has the {what} {twice!r} twice; remove one of the two entries")


def _refuse_outside(file_names: Iterable[str], image_folder: Path, annotation_file: Path) -> None:
    """An annotation file comes from elsewhere and must not make us read just any file."""
    for name in file_names:
        path = PureWindowsPath(name)  # knows both kinds of slash, and drives
        if path.anchor or ".." in path.parts or not path.name:
            raise UserError(
                f"{annotation_file} names an image outside {image_folder}: {name!r}; "
                "file names must be relative to the image folder"
            )


def _places(
    annotations: Sequence[Mapping[str, Any]], key: str, ids: Sequence[Hashable], annotation_file: Path
) -> NDArray[np.intp]:
    """Where the id that each of A annotations refers to stands among `ids`: shape (A,)."""
    place_of = {identity: place for place, identity in enumerate(ids)}
    places_A = np.array([place_of.get(annotation[key], -1) for annotation in annotations], dtype=np.intp)
    if (places_A < 0).any():
        lost = annotations[int(np.argmax(places_A < 0))]
        raise UserError(
            f"{annotation_file}: annotation {lost['id']!r} has the unknown {key} {lost[key]!r}; "
            "the file is incomplete or was put together from two; get it again"
        )
    return places_A
