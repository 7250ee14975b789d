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
import itertools
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrpl_bench.records.leases import claims, liveness
from mlrpl_bench.records.leases.claims import BY_HAND, PRESENT_FOLDER, PROGRESS, Lease, in_force, sweep_away
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import write_atomically
from mlrpl_bench.utils.shortages import is_full

BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
"""A lease expires when its heartbeat stands still for this many seconds; NFS shows changes late."""

_LOST = "its machine fell silent"
_DIED = "it died and its machine lived on"


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
        self._wanted: list[str] | None = None
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

    def announce(self, among: Path, wanted: Collection[str] | None = None) -> None:
        """Tell other processes that this one is there, by a claim that nobody else wants.

        The claim gets heartbeats as all do.

        Args:
            among: the folder in which the processes that share cells announce themselves.
            wanted: the keys of the cells that this process was asked for; None to tell nobody.

        Raises:
            UserError: the folder cannot be written to.
        """
        presence = among / PRESENT_FOLDER / self.id
        self._presences.add(presence)
        if presence not in self._numbers:
            try:
                self._wanted = None if wanted is None else sorted(wanted)
                self.take(presence)
            except BaseException:  # a full disk: leave no empty folders behind
                for folder in (presence, presence.parent):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
                raise

    def processes(self, among: Path, wanted: Collection[str] | None = None, at_least: int = 1) -> int:
        """Count the processes that are there, this one included; what dead ones left is deleted.

        Args:
            among: as for `announce`.
            wanted: count those alone that were asked for some of these cells, and those that do not tell.
            at_least: of how many of them.
        """
        try:
            names = os.listdir(among / PRESENT_FOLDER)
        except OSError:  # nobody announced itself, or it cannot be looked at, which is no news
            return 1
        alive, keys = {self.id}, None if wanted is None else set(wanted)
        for name in names:
            folder = among / PRESENT_FOLDER / name
            if name == self.id or (claim := in_force(folder)) is None:
                continue
            if self.may_take(folder):
                sweep_away(folder)
            elif keys is None or _wants(claim, keys, at_least):
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
            if not claims.create(claims.path_of(folder, number), self._first_line(before, folder in self._presences)):
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
            if before is not None and claims.read(claims.path_of(folder, before.number)) != before.content:
                claims.path_of(folder, number).unlink(missing_ok=True)
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
                    claims.append(claims.path_of(folder, self._numbers[folder]), b"%d\n" % cells)
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

    def _first_line(self, before: Lease | None = None, is_presence: bool = False) -> bytes:
        facts: dict[str, Any] = {
            "owner": self.id,
            "pid": os.getpid(),
            "process_group": os.getpgrp(),
            "host": platform.node(),
            "launcher": self.launcher,
            "place": liveness.place(),
            "kills": liveness.kill_counts(),
        }
        if before is not None:
            facts["owner_before"] = _DIED if before.is_of_gone_process() else _LOST
        if is_presence and self._wanted is not None:
            facts["wanted"] = self._wanted
        return json.dumps(facts).encode() + b"\n"


def _wants(presence: Lease, keys: Set[str], at_least: int) -> bool:
    """Tell whether a process wants so many of the cells; one that does not tell may want any."""
    wanted = presence.facts.get("wanted")
    return not isinstance(wanted, list) or sum(key in keys for key in wanted) >= at_least


def _died_in_company(folder: Path, last: Lease) -> bool:
    """Tell whether an owner before the last one died while it trained several cells, and its machine lived on."""
    earlier = [claim for claim in claims.all_in(folder) if claim.number <= last.number]
    by_number = {claim.number: claim for claim in earlier} | {last.number: last}
    pairs = itertools.pairwise(by_number[number] for number in sorted(by_number))
    return any(dead.group > 1 and after.facts.get("owner_before") != _LOST for dead, after in pairs)
