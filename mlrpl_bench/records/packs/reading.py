"""This module reads a pack that may come from anybody: an archive or a folder, of which every byte is checked.

Where a file goes follows from the record's own cell, never from a name in the archive; nothing is run or unpickled, and
no more is expanded than the manifest states.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from mlrpl_bench.records.packs.manifest import LARGEST, MANIFEST, BadPack, Manifest
from mlrpl_bench.utils import arrays
from mlrpl_bench.utils.progress import Report, silent

PIECE = 2**20
"""Files are read in pieces of so many bytes."""

ENCRYPTED = 0x1
"""This bit of an archive's entry says that a password is needed."""


class Source(Protocol):
    """This protocol describes what files are read from: an archive or a folder."""

    def names(self) -> list[str]:
        """List the files, each as often as it is there."""

    def size(self, name: str) -> int:
        """Return the size that a file states, in bytes."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.is_dir() or kind not in (0, stat.S_IFREG):
                raise BadPack(f"{path} has an entry {entry.filename!r} that is no plain file")
            if entry.flag_bits & ENCRYPTED:
                raise BadPack(f"{path} has an entry {entry.filename!r} that needs a password")
        arrays.refuse_bomb(archive, path.stat().st_size)

    def names(self) -> list[str]:
        return self.archive.namelist()

    def size(self, name: str) -> int:
        return self.archive.getinfo(name).file_size

    def open(self, name: str) -> BinaryIO:
        return self.archive.open(name)  # type: ignore[return-value]


class _Folder:
    """This reads a pack that is a folder.

    A hub may add files on its top (``README.md``, ``.gitattributes``), which are never read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        found = [MANIFEST] if (self.path / MANIFEST).exists() else []
        for top in sorted(self.path.iterdir()):
            if top.is_symlink() and not top.name.startswith("."):
                raise BadPack(f"{top} is a link, which does not belong into a pack")
            if top.is_dir() and not top.name.startswith("."):
                found += [str(path.relative_to(self.path).as_posix()) for path in _files_below(top)]
        return found

    def size(self, name: str) -> int:
        return (self.path / name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _files_below(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise BadPack(f"{path} is no plain file and does not belong into a pack")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a pack.

    Raises:
        BadPack: it is not there, is neither an archive nor a folder, is cut short, or may be a bomb; or what is read
            of it while it is open is damaged.
    """
    try:
        if path.is_dir():
            yield _Folder(path)
        else:
            with zipfile.ZipFile(path) as archive:
                yield _Archive(path, archive)
    except FileNotFoundError as error:
        raise BadPack(f"{error.filename or path} is not there") from error
    except arrays.Damaged as error:
        raise BadPack(f"{path}: {error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise BadPack(f"{path} is damaged or no pack ({error}); fetch it again") from error


def read_manifest(path: Path, source: Source) -> Manifest:
    """Read a pack's manifest and compare the files that are there with those that it names.

    Raises:
        BadPack: there is no manifest, or another file is missing, of another size, twice there or not named.
    """
    names = source.names()
    if MANIFEST not in names:
        raise BadPack(f"{path} has no {MANIFEST}, so it is no pack or cut short")
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise BadPack(f"{path} has {twice[0]!r} twice")
    if source.size(MANIFEST) > LARGEST:
        raise BadPack(f"{path}: its {MANIFEST} has {source.size(MANIFEST):,} bytes, and {LARGEST:,} are the most")
    with source.open(MANIFEST) as file:
        manifest = Manifest.read(str(path), file.read(LARGEST + 1))
    stated = dict(manifest.members())
    if unknown := sorted(set(names) - set(stated) - {MANIFEST}):
        raise BadPack(f"{path} has a file {unknown[0]!r} that its {MANIFEST} does not name")
    if missing := sorted(set(stated) - set(names)):
        raise BadPack(f"{path} lacks {missing[0]}; fetch it again")
    for name, facts in stated.items():
        if (size := source.size(name)) != facts["bytes"]:
            raise BadPack(f"{path}: {name} has {size} bytes where its {MANIFEST} says {facts['bytes']}; fetch it again")
    return manifest


def unpack(path: Path, source: Source, manifest: Manifest, folder: Path, report: Report = silent) -> dict[str, Path]:
    """Write the files of each record into a folder of its own, and compare each with its SHA-256.

    Args:
        folder: where the records' folders are made, called by numbers.
        report: told about the progress as (what, done, total).

    Returns:
        By place, the folder of its files.

    Raises:
        BadPack: a file is not the one that the manifest states.
    """
    folders = {}
    for number, (place, files) in enumerate(sorted(manifest.records.items()), start=1):
        folders[place] = folder / str(number)
        folders[place].mkdir(parents=True)
        for name, facts in sorted(files.items()):
            with source.open(f"{place}/{name}") as there:
                _copy(f"{path}: {place}/{name}", there, folders[place] / name, facts["bytes"], facts["sha256"])
        report("unpacking", number, len(manifest.records))
    return folders


def _copy(what: str, there: BinaryIO, path: Path, size: int, sha256: str) -> None:
    """Copy a file that states its size and its hash; no more bytes than that are ever written."""
    digest, left = hashlib.sha256(), size
    with path.open("wb") as file:
        while piece := there.read(min(PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                raise BadPack(f"{what} has more bytes than are stated")
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if left or digest.hexdigest() != sha256:
        raise BadPack(f"{what} is not what was packed (SHA-256 differs); fetch the pack again")
