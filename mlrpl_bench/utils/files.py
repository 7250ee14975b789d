"""This module writes files atomically, builds folders once, hashes files and knows the cache folder.

A reader, or a crash, sees the old file or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mlrpl_bench.utils.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
"""This is the folder of the package `mlrpl_bench`. Every other module asks here, so that it can be moved."""

UNFINISHED = ".part"
"""A file that is being written has a temporary name with this ending."""


def bundled_folder(name: str) -> Path:
    """Return the folder ``methods`` or ``datasets``: inside the package (a wheel), else beside it (a checkout).

    Inside first: beside an installed package may lie somebody else's ``datasets``.

    Raises:
        UserError: it is in neither place.
    """
    for folder in (PACKAGE / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise UserError(f"no folder {name}/ in or beside {PACKAGE}; the installation is incomplete, install it again")


def cache_folder() -> Path:
    """Return the folder for generated data and weights: ``MLRPL_CACHE``, else the platform's cache folder."""
    if chosen := os.environ.get("MLRPL_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("mlrpl-bench", appauthor=False))


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one and nothing between.

    Raises:
        OSError: names the file; the old content is still there, and nothing else.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path, content) as temporary:
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        sync_folder(path.parent)


def write_lines_atomically(path: Path, lines: Iterable[str]) -> None:
    """Write a file as `write_atomically` does, without holding all of it in memory.

    Args:
        lines: with their line breaks.

    Raises:
        OSError: names the file; the old content is still there, and nothing else.
    """
    with written_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Write a file as `write_atomically` does, by whatever writes it to the temporary path that is given.

    Raises:
        OSError: names the file; the old content is still there, and nothing else.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path, "") as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def unfinished(path: Path, content: bytes | str) -> Iterator[Path]:
    """Give a file beside `path` that holds all of the content, on the disk too; to be renamed or linked to its name in
    here.

    Whatever is left of it afterwards is removed.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def is_writable(folder: Path) -> bool:
    """Tell whether the system lets files be made in a folder, which may not exist yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return os.access(there, os.W_OK)


def set_aside(path: Path, mark: str) -> Path:
    """Rename a file or a folder to its name with `mark` and the next free number, as in ``name.damaged-1``.

    Returns:
        Where it is now.

    Raises:
        OSError: it cannot be renamed; `FileNotFoundError` where another process moved it in the same moment.
    """
    number = next(n for n in range(1, 10_000) if not path.with_name(f"{path.name}{mark}{n}").exists())
    return path.rename(path.with_name(f"{path.name}{mark}{number}"))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes; no other process may be writing in this folder."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give every `OSError` raised in here this path: a failed write names no file, or only a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else it says in words of its own what is wrong
            error.filename = str(path)
        raise


def build_folder_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder by ``build(temporary_folder)`` if it does not exist yet, and return it.

    The folder appears by one rename, so it is complete whenever it exists. Of several processes that start at once
    each builds its own copy; the first one to finish is kept and the others are deleted.

    Raises:
        OSError: names a file; nothing is left then.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        build(temporary)
        temporary.chmod(0o777 & ~_umask())
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        sync_folder(folder.parent)
    except OSError as error:
        if error.filename is None:  # a write that fails names no file
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def sync_folder(folder: Path) -> None:
    """Make a rename inside the folder durable, where the system can (Windows cannot open folders)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
