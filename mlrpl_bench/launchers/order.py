"""A work order says what a worker is to do, as a file that every node can read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import PACKAGE, write_atomically

FOLDER = ".work"
"""This folder, in a data set's folder of results, holds the orders, and what workers said."""

_TYPES = {"request": dict, "launcher": str, "planned": int, "code": str, "versions": dict, "failed": dict}


@dataclass(frozen=True)
class WorkOrder:
    """A work order holds what a worker is to do.

    Attributes:
        request: which cells are wanted, as plain data; its paths are absolute.
        launcher: what starts the worker.
        planned: how many workers there are to be, at least 1.
        code: see `same_code.digest`.
        versions: of the libraries, by name.
        failed: by a cell's key, the failed try that was there before; a later one is not repeated.
    """

    request: Mapping[str, Any]
    launcher: str
    planned: int
    code: str
    versions: Mapping[str, str]
    failed: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> WorkOrder:
        """Return the order that `to_json` wrote.

        Raises:
            UserError: it is none.
        """
        if not isinstance(content, dict) or set(content) != set(_TYPES):
            raise UserError("this is no work order of this version; give the command with --launcher again")
        for name, kind in _TYPES.items():
            if type(content[name]) is not kind:
                raise UserError(f"the work order's {name} is no {kind.__name__}; give the command again")
        return cls(**content)

    def write(self, among: Path) -> Path:
        """Write the order into a data set's folder of results; the same order has the same name.

        Raises:
            UserError: the folder cannot be written to.
        """
        text = json.dumps(self.to_json(), indent=1, sort_keys=True)
        path = among.absolute() / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        try:
            write_atomically(path, text)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}); name another --results-dir") from error
        return path

    @classmethod
    def read(cls, path: Path) -> WorkOrder:
        """Read the order in a file.

        Raises:
            UserError: there is none.
        """
        try:
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); name a file that --launcher wrote") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is no JSON; name a file that --launcher wrote") from error
        return cls.from_json(content)


def command(path: Path) -> list[str]:
    """Return the worker's command line for the order in a file, as arguments."""
    script = PACKAGE.parent / "bench.py"
    start = ["-c", "from mlrpl_bench.cli.app import main; main()"] if not script.is_file() else [str(script)]
    return [sys.executable, *start, "worker", str(path)]


def command_text(path: Path) -> str:
    """Return the same for a shell."""
    return shlex.join(command(path))
