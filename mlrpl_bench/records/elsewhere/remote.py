"""This module copies the records in object storage into a folder of the cache, from which tables are made.

Any address that fsspec knows will do, such as ``s3://bucket/folder``; it is only read. A file is copied again when its
size or the storage's own mark of its content (ETag, time of change) is another one. Weights stay where they are: a
table needs none, and they are most of a record. The copy of a cell names what it left in `ELSEWHERE`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import UNFINISHED, cache_folder, write_atomically
from mlrpl_bench.utils.progress import Report, silent

FOLDER = "remote"
"""This folder in the cache folder holds a copy for each address; it may be deleted at any time."""

INDEX = ".files.json"
"""This file of a copy says which content each of its files has."""

ELSEWHERE = "elsewhere.json"
"""This file in a copied cell's folder names the files that were not copied, with their sizes in bytes."""

OF_A_CELL = frozenset(
    {"record.json", "cell.json", "failed.json", "history.csv", "steps.npz", "scores.npz", "train_scores.npz"}
    | {"examples.npz"}
)
"""These files of a cell are copied."""

OF_A_DATASET = re.compile(r"profile\.json|tuned.*\.json")
"""These files beside the cells are copied."""

AT_ONCE = 64
"""This many files are asked for together; what was copied is remembered after each such portion."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):/+(.*)")
"""``s3://bucket``, of which a path keeps one slash; a drive of Windows has one letter."""

_LOCAL = ("file", "local")

_MARKS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "created")
"""Under one of these names a storage says whether a file's content is still the same."""

_EXTRAS = {"s3fs": "'mlrpl-bench[remote]'", "fsspec": "'mlrpl-bench[remote]'"}


def address_of(folder: Path) -> str | None:
    """Return the address that was given in place of a folder, with both its slashes; None for a folder.

    Raises:
        UserError: it is a chain of addresses.

    >>> address_of(Path("s3://bucket/results")), address_of(Path("file:///results")), address_of(Path("results"))
    ('s3://bucket/results', 'file:///results', None)
    """
    found = _ADDRESS.fullmatch(folder.as_posix())
    if found is None:
        return None
    scheme, rest = found.groups()
    if ":" in scheme:
        raise UserError(f"--results-dir {folder} is a chain of addresses; name one, such as s3://bucket/folder")
    return f"{scheme}://{'/' if scheme in _LOCAL else ''}{rest}"


def copied(address: str, report: Report = silent) -> Path:
    """Bring the copy of an address up to date and return its folder.

    Args:
        address: of a folder of results, such as ``s3://bucket/folder``.
        report: is told how many of the files that are new or have changed are copied.

    Raises:
        UserError: the library for such addresses is not installed, or nothing can be read there.
    """
    folder = cache_folder() / FOLDER / hashlib.sha256(address.encode()).hexdigest()[:16]
    storage, files = _listed(address)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _update(folder, storage, files, address, report)
    except UserError:
        raise
    except Exception as error:  # each library raises kinds of its own
        raise UserError(_unreadable(address, error)) from error
    return folder


def left_elsewhere(folder: Path) -> dict[str, int]:
    """Return the files of a copied cell that were not copied, with their sizes in bytes; none of a cell made here."""
    try:
        return {str(name): int(size) for name, size in json.loads((folder / ELSEWHERE).read_bytes())["bytes"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # damaged: the record then lacks its files, and is named


def where_left(path: Path) -> str | None:
    """Return the address of a file that was not copied with its cell; None for any other file."""
    if path.exists() or path.name not in left_elsewhere(path.parent):
        return None
    return f"{json.loads((path.parent / ELSEWHERE).read_bytes())['address']}/{path.name}"


@dataclass(frozen=True)
class _File:
    """This is a file in the storage.

    Attributes:
        name: the storage's own.
        size: in bytes.
        mark: changes with the content.
    """

    name: str
    size: int
    mark: str


def _listed(address: str) -> tuple[Any, dict[PurePosixPath, _File]]:
    """Return the storage, and its files by their paths below the address."""
    try:
        import fsspec

        storage, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        library = _library(address, error)
        extra = _EXTRAS.get(library, library)
        raise UserError(f"--results-dir {address} needs {library}; install it with pip install {extra}") from None
    except ValueError as error:
        raise UserError(_unreadable(address, error)) from error
    try:
        storage.invalidate_cache()
        found = storage.find(root, detail=True)
    except Exception as error:  # each library raises kinds of its own
        raise UserError(_unreadable(address, error)) from error
    if not found:
        raise UserError(f"--results-dir {address} holds no file; name a folder of results")
    below = root.rstrip("/") + "/"
    files = {}
    for name, facts in found.items():
        path = PurePosixPath(name.removeprefix(below))
        # A key may be any text: nothing may lead out of the copy.
        if name.startswith(below) and ".." not in path.parts and "\\" not in str(path) and _size(facts) is not None:
            files[path] = _File(name, _size(facts) or 0, _mark(facts))
    return storage, files


def _update(folder: Path, storage: Any, files: Mapping[PurePosixPath, _File], address: str, report: Report) -> None:
    wanted = {path: file for path, file in files.items() if _is_copied(path)}
    index = _index(folder)
    for gone in [name for name in index if PurePosixPath(name) not in wanted]:
        (folder / gone).unlink(missing_ok=True)
        del index[gone]
    _drop_empty_cells(folder, {path.parent for path in wanted})
    _write_elsewhere(folder, files, address)
    changed = [path for path, file in wanted.items() if not _is_here(folder / path, file, index.get(str(path)))]
    changed.sort(key=lambda path: path.name == "record.json")  # a record comes after the files that it names
    for start in range(0, len(changed), AT_ONCE):
        portion = changed[start : start + AT_ONCE]
        _fetch(storage, [(wanted[path], folder / path) for path in portion], address)
        index |= {str(path): [wanted[path].size, wanted[path].mark] for path in portion}
        write_atomically(folder / INDEX, json.dumps(index))
        report(f"copying records from {address}", min(start + AT_ONCE, len(changed)), len(changed))
    write_atomically(folder / INDEX, json.dumps(index))


def _fetch(storage: Any, files: Sequence[tuple[_File, Path]], address: str) -> None:
    """Copy files to their places; each appears whole."""
    parts = [path.with_name(f".{path.name}{UNFINISHED}") for _, path in files]
    for part in parts:
        part.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage.get([file.name for file, _ in files], [str(part) for part in parts])
        for (file, path), part in zip(files, parts, strict=True):
            if part.stat().st_size != file.size:
                raise UserError(f"{address}: {file.name} changed while it was copied; give the same command again")
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _is_copied(path: PurePosixPath) -> bool:
    parts = len(path.parts)
    return (parts == 4 and path.name in OF_A_CELL) or (parts == 2 and OF_A_DATASET.fullmatch(path.name) is not None)


def _is_here(path: Path, file: _File, known: Any) -> bool:
    try:
        return known == [file.size, file.mark] and path.stat().st_size == file.size
    except OSError:
        return False


def _index(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError, RecursionError):  # none yet, or damaged: everything is copied again
        return {}
    return found if isinstance(found, dict) else {}


def _drop_empty_cells(folder: Path, wanted: set[PurePosixPath]) -> None:
    """Delete the copies of cells that are no longer in the storage, with what was derived from them."""
    for cell in folder.glob("*/*/*/"):
        if PurePosixPath(cell.relative_to(folder).as_posix()) not in wanted:
            shutil.rmtree(cell)


def _write_elsewhere(folder: Path, files: Mapping[PurePosixPath, _File], address: str) -> None:
    left: dict[PurePosixPath, dict[str, int]] = {}
    for path, file in files.items():
        if len(path.parts) == 4 and path.name.endswith(".safetensors"):
            left.setdefault(path.parent, {})[path.name] = file.size
    for cell in {path.parent for path in files if path.name == "record.json"}:
        place = folder / cell / ELSEWHERE
        content = json.dumps({"address": f"{address.rstrip('/')}/{cell}", "bytes": left.get(cell, {})})
        if not place.is_file() or place.read_bytes() != content.encode():
            write_atomically(place, content)


def _size(facts: Mapping[str, Any]) -> int | None:
    size = facts.get("size", facts.get("Size"))
    return size if isinstance(size, int) else None


def _mark(facts: Mapping[str, Any]) -> str:
    return next((f"{name} {facts[name]}" for name in _MARKS if facts.get(name) is not None), "")


def _library(address: str, error: ImportError) -> str:
    """Return the library that is to be installed: fsspec's message names it."""
    known = re.search(r"\b(s3fs|gcsfs|adlfs|ocifs|fsspec|huggingface_hub|paramiko|aiohttp)\b", str(error))
    return known[1] if known else f"the fsspec library for {address.partition(':')[0]}:// ({error})"


def _unreadable(address: str, error: Exception) -> str:
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return f"--results-dir {address} cannot be read ({words}); check the address and your access to it"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time bring a copy up to date; the others wait. Windows has no such lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
