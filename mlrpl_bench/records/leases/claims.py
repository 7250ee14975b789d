"""This module makes and reads the files that are claims on a cell: numbered, and the highest number is in force.

The first line says whose the claim is; every further one is a heartbeat. Who may make the next claim, `lease` decides.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrpl_bench.records.leases import liveness
from mlrpl_bench.utils.files import unfinished

PRESENT_FOLDER = ".processes"
"""This folder, in a dataset's folder of results, holds a claim of each process that trains there or waits."""

PROGRESS = "progress.json"
"""This file lies beside the claim of a process that trains and says how far it is."""

BY_HAND = "by hand"
"""This stands in place of a launcher for a process that no launcher started."""

_NAME = re.compile(r"claim-([1-9]\d*)\.jsonl")


@dataclass(frozen=True)
class Lease:
    """A lease holds a claim on a cell as it was read from its file.

    Attributes:
        number: the number of the file; the highest is in force.
        content: all bytes of the file; while they change, the owner lives.
    """

    number: int
    content: bytes

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Return what the owner says of itself; nothing where the file is damaged."""
        try:
            found = json.loads(self.content.partition(b"\n")[0])
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def owner(self) -> str | None:
        """Return the random id that one `Owner` alone has."""
        return self.facts.get("owner")

    @property
    def who(self) -> str:
        """Name the owner for people."""
        launcher = self.facts.get("launcher", BY_HAND)
        by = "" if launcher == BY_HAND else f", started by {launcher}"
        return f"process {self.facts.get('pid', 'unknown')} on {self.host}{by}"

    @property
    def host(self) -> str:
        return str(self.facts.get("host", "an unknown machine"))

    @property
    def group(self) -> int:
        """Return how many cells the owner trained side by side at its last heartbeat."""
        beats = self.content.split(b"\n")[1:-1]
        return int(beats[-1]) if beats and beats[-1].isdigit() else 1

    @property
    def out_of_memory(self) -> bool:
        """Tell whether the kernel killed a process for lack of memory since the claim was made.

        False where that cannot be seen, as on another machine.
        """
        then = self.facts.get("kills")
        if self.facts.get("place") is None or self.facts["place"] != liveness.place() or not isinstance(then, dict):
            return False
        for name, before in then.items():
            if liveness.COUNTER.fullmatch(name) and (now := liveness.kills(Path(name))) is not None:
                return isinstance(before, int) and now > before  # the first is the narrowest
        return False

    def is_of_gone_process(self) -> bool:
        """Tell whether the owner is known to be gone; of a process that cannot be seen from here nothing is known."""
        pid, place = self.facts.get("pid"), self.facts.get("place")
        return isinstance(pid, int) and place is not None and place == liveness.place() and liveness.is_gone(pid)


def in_force(folder: Path) -> Lease | None:
    """Return the claim that is in force in a cell's folder; None where there is none."""
    while numbers := _numbers_in(folder):
        if (content := read(path_of(folder, numbers[-1]))) is not None:  # else it was released between two looks
            return Lease(numbers[-1], content)
    return None


def all_in(folder: Path) -> list[Lease]:
    """Return all claims in a cell's folder by number, upwards, without those that were released meanwhile."""
    return [Lease(n, content) for n in _numbers_in(folder) if (content := read(path_of(folder, n))) is not None]


def sweep_away(folder: Path) -> None:
    """Delete all claims on a cell, and the folder if nothing else is in it."""
    if folder.parent.name == PRESENT_FOLDER:
        (folder / PROGRESS).unlink(missing_ok=True)
    for number in _numbers_in(folder):  # upwards, so that a stale one is never in force again
        path_of(folder, number).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds more than claims
        folder.rmdir()


def _numbers_in(folder: Path) -> list[int]:
    """Return the numbers of the claims in a folder, in ascending order."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def path_of(folder: Path, number: int) -> Path:
    return folder / f"claim-{number}.jsonl"


def read(path: Path) -> bytes | None:
    """Read a file's bytes; None where it is gone."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # the latter is how NFS may say it
            raise
        return None


def create(path: Path, content: bytes) -> bool:
    """Make a file that is whole from the start; False where the name is taken."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the owner before took the empty folder away just now
            return _create_in_folder(path, content)


def _create_in_folder(path: Path, content: bytes) -> bool:
    with unfinished(path, content) as temporary:
        os.chmod(temporary, 0o644)  # whatever the mask: every process that shares the folder must read it
        try:
            os.link(temporary, path)
        except FileExistsError:
            return os.stat(temporary).st_nlink == 2  # over NFS an answer may be lost and the question sent twice
        return True


def append(path: Path, content: bytes) -> None:
    """Append bytes to a file; one that is not there is not made."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
