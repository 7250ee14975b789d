"""This module handles lists of image files: read from text files, located in a folder, refused where files are
missing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from mlrpl_bench.utils.errors import UserError


def read_list(list_file: Path) -> list[str]:
    """Return the names in a text file, one a line; a last line counts with and without a line break, blank lines do
    not.

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
    """Tell whether a value is text that can be printed and can name a file; JSON may hold NULs and lone surrogates.

    >>> is_text("dog"), is_text(7), is_text("a\\0b"), is_text("\\ud800")
    (True, False, False, False)
    """
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def locate(names: Sequence[str], folders: Sequence[Path], listed_in: Path) -> list[Path]:
    """Return where each of the listed files lies: in the first of the folders that has it.

    One that no folder has gets a path where most of the others are. It is not refused: whether a run goes on without
    an image is the user's choice (``--on-bad-image``), and `missing_rows` finds it.

    Raises:
        UserError: a name is there twice or leads out of the folders, or a folder cannot be read.
    """
    refuse_repeated([os.path.normpath(name) for name in names], "file name", listed_in)
    refuse_outside(names, folders[0], listed_in)
    listed: dict[Path, frozenset[str]] = {}
    places = [next((f for f in folders if is_in_folder(f / name, listed)), None) for name in names]
    found = Counter(folder for folder in places if folder is not None)
    usual = found.most_common(1)[0][0] if found else folders[0]
    return [(folder or usual) / name for folder, name in zip(places, names, strict=True)]


def refuse_missing(paths: Sequence[Path], what: str, else_: str = "") -> None:
    """Refuse to go on where files are not there; whether they are whole is only found when they are read.

    Args:
        paths: all the files.
        what: they are, such as ``training images of scenes``.
        else_: what else may be done than to get the files.

    Raises:
        UserError: some are not there; the line says how many, and names the first.
    """
    if missing := missing_rows(paths):
        raise UserError(
            f"{len(missing):,} of {len(paths):,} {what} are missing, the first is {paths[missing[0]]}; "
            f"finish the download or unpack the archive again{else_}"
        )


def refuse_repeated(values: Sequence[Hashable], what: str, annotation_file: Path) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[Hashable] = set()
    twice = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
    raise UserError(f"{annotation_file} has the {what} {twice!r} twice; remove one of the two entries")


def refuse_outside(file_names: Iterable[str], image_folder: Path, annotation_file: Path) -> None:
    """Refuse names that lead outside the image folder, since an annotation file may come from anybody."""
    for name in file_names:
        path = PureWindowsPath(name)  # knows both kinds of slash, and drives
        if path.anchor or ".." in path.parts or not path.name:
            raise UserError(
                f"{annotation_file} names an image outside {image_folder}: {name!r}; "
                "file names must be relative to the image folder"
            )


def missing_rows(paths: Sequence[Path]) -> list[int]:
    """Return the rows whose file is not there. A folder is listed once, which is faster than asking for each file.

    Raises:
        UserError: a folder cannot be read.
    """
    folders: dict[Path, frozenset[str]] = {}
    return [row for row, path in enumerate(paths) if not is_in_folder(path, folders)]


def is_in_folder(path: Path, folders: dict[Path, frozenset[str]]) -> bool:
    """Tell whether there is such a file; `folders` are those listed so far, and grows.

    Raises:
        UserError: the folder cannot be read.
    """
    if path.parent not in folders:
        folders[path.parent] = _files_in(path.parent)
    return path.name in folders[path.parent]


def _files_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error
