"""This module writes a site into a folder of its own: only what changed, and nothing of anybody else's is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.shortages import is_full

MARK = "site.json"
MADE_BY = "mlrpl-bench site"
FOLDERS = ("boards", "data", "methods", "pictures", "records")
"""These folders of a site hold only the site's own files; files beside them, such as a forge's, stay."""


class Output:
    """An output is the folder of a site while it is written.

    A file that has the same bytes already stays as it is.

    Args:
        folder: the folder; new, empty, or that of a site.

    Attributes:
        files: the path of each file that was added, with its size in bytes.

    Raises:
        UserError: it holds something else, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, dict[str, int]()
        try:
            there = sorted(os.listdir(folder))
        except FileNotFoundError:
            there = []
        except OSError as error:
            raise UserError(f"--out {folder} is no folder that can be read ({error.strerror}); name another") from error
        if there and not _is_site(folder / MARK):
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise UserError(f"--out {folder} holds something else than a site ({there[0]}{more}); name another folder")

    def add(self, path: str, content: str | bytes) -> None:
        """Write a file of the site.

        Raises:
            UserError: it cannot be written.
        """
        if not self.files:
            self._write(MARK, json.dumps({"made by": MADE_BY, "folders": FOLDERS}).encode() + b"\n")
        data = content.encode() if isinstance(content, str) else content
        self.files[path] = len(data)
        self._write(path, data)

    def finish(self) -> int:
        """Remove what belonged to the site before and does not any more; return how many files that were.

        Raises:
            UserError: a file cannot be removed.
        """
        gone = 0
        for top in (self.folder / name for name in FOLDERS):
            for path in sorted(top.rglob("*"), reverse=True):  # what is in a folder comes before the folder
                try:
                    if path.is_dir() and not path.is_symlink():
                        if not any(path.iterdir()):
                            path.rmdir()
                    elif path.relative_to(self.folder).as_posix() not in self.files:
                        path.unlink()
                        gone += 1
                except OSError as error:
                    raise _unwritable(path, error) from error
        return gone

    def _write(self, path: str, data: bytes) -> None:
        target = self.folder / path
        try:
            if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink():  # writing would go where it leads
                target.unlink()
            target.write_bytes(data)
        except OSError as error:
            raise _unwritable(target, error) from error


def _is_site(mark: Path) -> bool:
    try:
        content = json.loads(mark.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("made by") == MADE_BY


def _unwritable(path: Path, error: OSError) -> UserError:
    advice = "make room and give the same command again" if is_full(error) else "allow it, or name another --out"
    return UserError(f"{path} cannot be written ({error.strerror}); {advice}")
