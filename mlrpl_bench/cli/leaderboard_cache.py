"""This module keeps a leaderboard that was made, and finds it again while nothing that it was made from has changed.

It compares size and time of change of every file of a record, of the code, of the data set's label files and of the
files that were written. It imports neither torch nor pandas, which take longer than everything here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlrpl_bench.api.request import Request
from mlrpl_bench.records.elsewhere.remote import address_of
from mlrpl_bench.utils.files import PACKAGE, cache_folder, write_atomically
from mlrpl_bench.utils.tables import Entry, Table

FOLDER = "unchanged"
"""This folder in the cache folder holds the leaderboards; it may be deleted at any time."""

CODE = (PACKAGE, PACKAGE.parent / "methods", PACKAGE.parent / "datasets")

MADE_ANEW = "evidence.npz"
"""The leaderboard itself writes this file in a cell's folder, so a change of it does not count."""

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Files with these endings are not looked at one by one: their folder's time of change shows that one was added or
taken away."""

LIBRARIES = ("numpy", "pandas", "scipy")


@dataclass(frozen=True)
class CachedLeaderboard:
    """A cached leaderboard holds what is printed again.

    Attributes:
        table: the main table.
        json: the leaderboard for programs, as text.
        written: the files that were written, each with its size in bytes and its time of change in nanoseconds.
    """

    table: Table
    json: str
    written: dict[str, list[int]]

    @classmethod
    def from_table(cls, table: Table, as_json: Mapping[str, Any], written: Iterable[Path]) -> CachedLeaderboard:
        """Make one from a leaderboard and the files that it was just written to."""
        return cls(table, json.dumps(as_json, indent=1), {str(path): _facts(path) or [] for path in written})


@dataclass(frozen=True)
class CacheKey:
    """A cache key identifies what was asked for, and what the answer was made from.

    Attributes:
        request: everything that the user chose.
        imported: the local modules that methods and data sets import; known once these are loaded, and then kept.
    """

    request: Request
    imported: tuple[Path, ...] = ()

    def with_imports(self, files: Iterable[Path]) -> CacheKey:
        """Return the key with the local modules that files of methods and data sets import."""
        from mlrpl_bench.models.parts.source_digest import local_modules

        return replace(self, imported=tuple(sorted({module.path for file in files for module in local_modules(file)})))

    def find(self) -> CachedLeaderboard | None:
        """Return the answer if it was given before and nothing has changed since; else None."""
        try:
            content = json.loads(self._path().read_bytes())
            table = content["table"]
            table["rows"] = [(label, [Entry(**entry) for entry in entries]) for label, entries in table["rows"]]
            table |= {name: tuple(table[name]) for name in ("columns", "notes", "left")}
            found = CachedLeaderboard(Table(**table), content["json"], content["written"])
            imported = tuple(map(Path, content["imported"]))
            same = content["state"] == replace(self, imported=imported).state()
            same = same and all(_facts(Path(name)) == facts for name, facts in found.written.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # not asked before, or damaged: then it is made again
        return found if same and _can_be_printed(found) else None

    def remember(self, answer: CachedLeaderboard, state: str) -> None:
        """Keep an answer; where the folder cannot be written to, nothing is kept.

        Args:
            state: the `state` from before the records were read, as another process may have added some since.
        """
        content = {"state": state, "imported": list(map(str, self.imported)), **asdict(answer)}
        try:
            write_atomically(self._path(), json.dumps(content))
        except OSError:
            return

    def _path(self) -> Path:
        request = self.request
        places = [
            str(folder.resolve()) for folder in (*request.results, request.out or Path(), request.tuned_file or Path())
        ]
        asked = json.dumps([places, request.to_json()], sort_keys=True)
        return cache_folder() / FOLDER / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"

    def state(self) -> str:
        """Return a SHA-256 that identifies everything that the answer is made from."""
        digest = hashlib.sha256(repr([sys.version, *map(importlib.metadata.version, LIBRARIES)]).encode())
        for path, facts in self._rests_on():
            digest.update(repr((str(path), facts)).encode())
        return digest.hexdigest()

    def _rests_on(self) -> Iterator[tuple[Path, list[int] | None]]:
        request = self.request
        for root in request.results:
            # Of every data set: ranks go over all of them.
            for folder in sorted(root.glob("*/*/*/")):
                yield from ((path, _facts(path)) for path in sorted(folder.iterdir()) if path.name != MADE_ANEW)
            for path in (
                root / request.dataset / "profile.json",
                *sorted((root / request.dataset).glob("tuned*.json")),
            ):
                yield path, _facts(path)
        for code in CODE:
            yield from ((path, _facts(path)) for path in sorted(code.rglob("*.py")))
        yield from ((path, _facts(path)) for path in sorted((cache_folder() / "words").glob("*")))
        options = request.options
        named = [Path(name) for name in (options.weights, options.mask_file, request.tuned_file) if name is not None]
        yield from ((path, _facts(path)) for path in (*request.plugins, *named, *self.imported))
        if options.data_root is not None:
            yield from _label_files(options.data_root)
            # An option of the data set may name a file elsewhere, such as a table of labels; other values name nothing.
            places = [options.data_root / value for value in options.data.values()]
            yield from ((path, _facts(path)) for path in places)


def key(request: Request) -> CacheKey | None:
    """Return the key of a leaderboard that may be kept; None for other requests, and where every image is looked at.

    None, too, where records are at an address: whether they have changed is only known there.
    """
    if any(address_of(folder) for folder in request.results):
        return None
    return CacheKey(request) if request.leaderboard and request.options.on_bad_image == "error" else None


def _can_be_printed(found: CachedLeaderboard) -> bool:
    """Tell whether all that must be text is text, and each row has as many entries as there are columns."""
    table = found.table
    texts = [found.json, table.name, table.title, table.corner, *table.columns, *table.notes]
    texts += [
        text
        for label, entries in table.rows
        for text in (label, *(word for entry in entries for word in (entry.text, entry.mark)))
    ]
    columns = len(table.columns)
    if not all(type(place) is int and 0 <= place < columns for place in (table.repeated, *table.left)):
        return False
    return all(isinstance(text, str) for text in texts) and all(len(entries) == columns for _, entries in table.rows)


def _label_files(root: Path) -> Iterator[tuple[Path, list[int] | None]]:
    """Yield every folder and every file that is no image, with size and time of change."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield Path(folder), _facts(Path(folder))
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() not in IMAGES:
                yield Path(folder, name), _facts(Path(folder, name))


def _facts(path: Path) -> list[int] | None:
    """Return a file's size in bytes and its time of change in nanoseconds; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
