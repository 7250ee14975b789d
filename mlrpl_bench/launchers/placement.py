"""This module holds what a user chooses about where workers run, and refuses contradictions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlrpl_bench.utils.errors import UserError

LAUNCHERS = ("local", "print", "ray", "submitit")

MOST_WORKERS = 10_000

_OWN = {
    "ray_address": ("ray",),
    "accelerator": ("ray",),
    "partition": ("submitit",),
    "time": ("submitit",),
    "workers": LAUNCHERS,
}
"""These are the launchers that know a choice."""

_TIME = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d{2})|(\d+)")


@dataclass(frozen=True)
class Placement:
    """A placement says where workers run.

    Attributes:
        launcher: one of `LAUNCHERS`, or None to train in this process.
        workers: how many there are to be; None for one a GPU.
        ray_address: of the Ray cluster; ``auto`` for the one this machine belongs to, ``local`` to start one here.
        accelerator: the kind of GPU that Ray is to give, such as ``H100``.
        partition: of SLURM.
        time: that a job may take, in minutes or as ``[days-]hours:minutes:seconds``.
    """

    launcher: str | None = None
    workers: int | None = None
    ray_address: str | None = None
    accelerator: str | None = None
    partition: str | None = None
    time: str | None = None

    def check(self, device: str) -> None:
        """Refuse what no launcher can do.

        Args:
            device: the choice of ``--device``.

        Raises:
            UserError: an unknown launcher, a choice that the launcher does not know, or one that is out of range.
        """
        if self.launcher is not None and self.launcher not in LAUNCHERS:
            raise UserError(f"no launcher {self.launcher!r}; there are: {', '.join(LAUNCHERS)}")
        for name, launchers in _OWN.items():
            if getattr(self, name) is not None and self.launcher not in launchers:
                words = " or ".join(filter(None, (", ".join(launchers[:-1]), launchers[-1])))
                hint = "; loader processes are --loader-workers" if name == "workers" else ""
                raise UserError(f"--{name.replace('_', '-')} is for --launcher {words}; add it or leave this out{hint}")
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise UserError(f"--workers {self.workers} must be between 1 and {MOST_WORKERS}")
        if self.launcher is not None and device.startswith("cuda:"):
            raise UserError(f"--device {device} names one GPU, but each worker gets its own; write --device cuda")
        if self.time is not None:
            self.minutes()

    def minutes(self) -> int | None:
        """Return the time that a job may take, in whole minutes, rounded up; None where none was named.

        Raises:
            UserError: it is no time.

        >>> Placement(time="1-00:00:30").minutes(), Placement(time="90").minutes()
        (1441, 90)
        """
        if self.time is None:
            return None
        found = _TIME.fullmatch(self.time)
        if found is None or self.time.strip("0:-") == "":
            raise UserError(f"--time {self.time} is no time; write minutes, or [days-]hours:minutes:seconds")
        days, hours, minutes, seconds, alone = (int(part or 0) for part in found.groups())
        return alone or 1440 * days + 60 * hours + minutes + (seconds > 0)


HERE = Placement()
"""This placement trains in this process."""
