"""This module decides which process trains a cell, where several share a results folder, over NFS too.

A cell's folder holds claims, ``claim-1.jsonl`` and so on; the one with the highest number is in force. Its first line
says who owns the cell; a heartbeat adds a line every few seconds, which says how many cells the owner trains side by
side. A claim is stale when its process is known to be gone, or when nobody added to it for `LEASE_SECONDS` by the
observer's own clock. A process makes the next number only above a stale claim or where there is none, and only one
process can make it: a file appears whole, by a hard link, which fails where the name is taken.

Heartbeats are appended, never written anew: a process that was suspended in the middle of one cannot bring back a claim
that was taken away meanwhile, and no reader ever sees half a file.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrpl_bench.records.leases.trial import append
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import unfinished, write_atomically
from mlrpl_bench.utils.shortages import is_full

BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
"""A lease expires when its heartbeat stands still for this many seconds; NFS shows changes late."""

PRESENT_FOLDER = ".processes"
"""This folder, in a dataset's folder of results, holds a claim of each process that trains there or waits."""

PROGRESS = "progress.json"
"""This file lies beside the claim of a process that trains and says how far it is."""

BY_HAND = "by hand"
"""This stands in place of a launcher for a process that no launcher started."""

_LOST = "its machine fell silent"
_DIED = "it died and its machine lived on"

_COUNTER = re.compile(r"/proc/vmstat|/sys/fs/cgroup/(?!.*\.\.).*memory\.events")
"""These are the files in which Linux counts the processes that it killed for lack of memory."""

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
        if self.facts.get("place") is None or self.facts["place"] != _place() or not isinstance(then, dict):
            return False
        for name, before in then.items():
            if _COUNTER.fullmatch(name) and (now := _kills(Path(name))) is not None:
                return isinstance(before, int) and now > before  # the first is the narrowest
        return False

    def is_of_gone_process(self) -> bool:
        """Tell whether the owner is known to be gone; of a process that cannot be seen from here nothing is known."""
        pid, place = self.facts.get("pid"), self.facts.get("place")
        return isinstance(pid, int) and place is not None and place == _place() and _is_gone(pid)


@dataclass(frozen=True)
class _Sight:
    """A sight of a claim says for how long the claim has stood still.

    Attributes:
        claim: the claim as it was read last.
        still: the seconds for which it has stood still.
        looked: the time of the last look, by the owner's clock.
    """

    claim: Lease
    still: float
    looked: float


@dataclass(frozen=True)
class Taken:
    """This process has taken a cell.

    Attributes:
        before: the stale claim that was in force before, if there was one.
        died_before: whether the owner before had taken the cell over, in its turn, from one that died with a group and
            not with its machine.
    """

    before: Lease | None
    died_before: bool = False


def in_force(folder: Path) -> Lease | None:
    """Return the claim that is in force in a cell's folder; None where there is none."""
    while numbers := _numbers(folder):
        if (content := _read(_path(folder, numbers[-1]))) is not None:  # else it was released between two looks
            return Lease(numbers[-1], content)
    return None


def sweep_away(folder: Path) -> None:
    """Delete all claims on a cell, and the folder if nothing else is in it."""
    if folder.parent.name == PRESENT_FOLDER:
        (folder / PROGRESS).unlink(missing_ok=True)
    for number in _numbers(folder):  # upwards, so that a stale one is never in force again
        _path(folder, number).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds more than claims
        folder.rmdir()


class Owner:
    """An owner holds the claims of one sweep of one process.

    As a context it sends heartbeats, and at the end it releases all cells.

    Args:
        clock: seconds from any start that never go back.
        launcher: what started this process.
        says: returns what others may know of this process's progress, as plain data; asked at each heartbeat, and
            written where the process announced itself.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        launcher: str = BY_HAND,
        says: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.id, self.clock, self.launcher = secrets.token_hex(16), clock, launcher
        self._says, self._said = says, ""
        self._numbers: dict[Path, int] = {}
        self._presences: set[Path] = set()
        self._seen: dict[Path, _Sight] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="heartbeat of claims", daemon=True)

    def __enter__(self) -> Owner:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._heart.join()
        for folder in list(self._numbers):
            self.release(folder)
        for folder in self._presences:
            with contextlib.suppress(OSError):  # others are there, or it was never made
                folder.parent.rmdir()

    def announce(self, among: Path) -> None:
        """Tell other processes that this one is there, by a claim that nobody else wants.

        The claim gets heartbeats as all do.

        Args:
            among: the folder in which the processes that share cells announce themselves.

        Raises:
            UserError: the folder cannot be written to.
        """
        presence = among / PRESENT_FOLDER / self.id
        self._presences.add(presence)
        if presence not in self._numbers:
            try:
                self.take(presence)
            except BaseException:  # a full disk: leave no empty folders behind
                for folder in (presence, presence.parent):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
                raise

    def processes(self, among: Path) -> int:
        """Count the processes that are there, this one included; what dead ones left is deleted."""
        try:
            names = os.listdir(among / PRESENT_FOLDER)
        except OSError:  # nobody announced itself, or it cannot be looked at, which is no news
            return 1
        alive = {self.id}
        for name in names:
            folder = among / PRESENT_FOLDER / name
            if name == self.id or in_force(folder) is None:
                continue
            if self.may_take(folder):
                sweep_away(folder)
            else:
                alive.add(name)
        return len(alive)

    def may_take(self, folder: Path) -> bool:
        """Tell whether nobody owns a cell, as far as is seen from here; the answer may change with every call."""
        claim = in_force(folder)
        return claim is None or self._is_stale(folder, claim)

    def take(self, folder: Path) -> Taken | None:
        """Take a cell for this process; None where another process owns it or was quicker.

        Raises:
            UserError: the folder cannot be written to.
        """
        before = in_force(folder)
        if before is not None and not self._is_stale(folder, before):
            return None
        number = before.number + 1 if before else 1
        try:
            if not _create(_path(folder, number), self._first_line(before)):
                return None
        except OSError as error:
            advice = "make room" if is_full(error) else "allow it"
            message = f"{folder} cannot be written ({error.strerror}); {advice}, or name another --results-dir"
            raise UserError(message) from error
        with self._lock:
            self._numbers[folder] = number
            if not self._holds(folder):
                return None
            # Between looking and making, the cell may have been finished, released and claimed anew from 1 upwards.
            if before is not None and _read(_path(folder, before.number)) != before.content:
                _path(folder, number).unlink(missing_ok=True)
                del self._numbers[folder]
                return None
        return Taken(before, before is not None and _died_in_company(folder, before))

    def holds(self, folder: Path) -> bool:
        """Tell whether this process still owns a cell.

        A cell that was lost, because this process was suspended for long, stays lost.
        """
        with self._lock:
            return self._holds(folder)

    def has_lost(self, folder: Path) -> bool:
        """Tell whether the heartbeat saw that another process has a cell that this one took; costs nothing."""
        return folder not in self._numbers

    def release(self, folder: Path) -> None:
        """Give a cell up, if this process still owns it."""
        with self._lock:
            if self._holds(folder):
                sweep_away(folder)
            self._numbers.pop(folder, None)

    def beat(self) -> None:
        """Add a heartbeat to every claim of this process: a line with the number of its cells."""
        with self._lock:
            held = [folder for folder in list(self._numbers) if self._holds(folder)]
            cells = len(set(held) - self._presences)
            for folder in held:
                with contextlib.suppress(OSError):  # a full disk, say; the next beat may find room
                    append(_path(folder, self._numbers[folder]), b"%d\n" % cells)
        self._say(self._presences.intersection(held))

    def _say(self, presences: set[Path]) -> None:
        """Write what this process says of its progress, if it is another word than at the last beat."""
        if (said := json.dumps(dict(self._says()))) == self._said:
            return
        for presence in presences:
            with contextlib.suppress(OSError):  # as above
                write_atomically(presence / PROGRESS, said)
                self._said = said

    def _beat_on(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self.beat()

    def _holds(self, folder: Path) -> bool:
        number = self._numbers.get(folder)
        if number is None:
            return False
        try:
            claim = in_force(folder)
        except OSError:  # it could not be looked at, which is no news
            return True
        if claim is not None and (claim.number, claim.owner) == (number, self.id):
            return True
        del self._numbers[folder]
        return False

    def _is_stale(self, folder: Path, claim: Lease) -> bool:
        now, before = self.clock(), self._seen.get(folder)
        still = 0.0
        if before is not None and before.claim == claim:
            # A gap longer than a beat counts as one: this process may have been suspended together with the owner.
            still = before.still + min(now - before.looked, BEAT_SECONDS)
        self._seen[folder] = _Sight(claim, still, now)
        return still >= LEASE_SECONDS or claim.is_of_gone_process()

    def _first_line(self, before: Lease | None = None) -> bytes:
        facts = {
            "owner": self.id,
            "pid": os.getpid(),
            "process_group": os.getpgrp(),
            "host": platform.node(),
            "launcher": self.launcher,
            "place": _place(),
            "kills": _counters(),
        }
        if before is not None:
            facts["owner_before"] = _DIED if before.is_of_gone_process() else _LOST
        return json.dumps(facts).encode() + b"\n"


def _died_in_company(folder: Path, last: Lease) -> bool:
    """Tell whether an owner before the last one died while it trained several cells, and its machine lived on."""
    claims = [Lease(n, content) for n in _numbers(folder) if (content := _read(_path(folder, n))) is not None]
    by_number = {claim.number: claim for claim in claims if claim.number <= last.number} | {last.number: last}
    pairs = itertools.pairwise(by_number[number] for number in sorted(by_number))
    return any(dead.group > 1 and after.facts.get("owner_before") != _LOST for dead, after in pairs)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of the claims in a folder, in ascending order."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def _path(folder: Path, number: int) -> Path:
    return folder / f"claim-{number}.jsonl"


def _read(path: Path) -> bytes | None:
    """Read a file's bytes; None where it is gone."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # the latter is how NFS may say it
            raise
        return None


def _create(path: Path, content: bytes) -> bool:
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


@functools.cache
def _place() -> str | None:
    """Identify where process ids mean what they mean here: this boot of this machine and its namespace of ids.

    None where the system does not tell.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {start} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _counters() -> dict[str, int]:
    """Count the processes killed for lack of memory up to now: in this process's control group, and on the machine."""
    paths = [Path("/proc/vmstat")]
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        paths[:0] = [
            Path(f"/sys/fs/cgroup{line[3:].rstrip('/')}/memory.events") for line in lines if line.startswith("0::/")
        ]
    return {str(path): number for path in paths if (number := _kills(path)) is not None}


def _kills(path: Path) -> int | None:
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):  # another system, or a control group that is gone
        return None
    return None if found is None else int(found[1])


def _is_gone(pid: int) -> bool:
    """Tell whether there is no process of this id here, or a dead one that its parent has not asked for yet."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, IndexError):
        return False
    return state in (b"Z", b"X")
