"""This module asks the system whether a process is gone, and how many the kernel killed for lack of memory."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
from pathlib import Path

COUNTER = re.compile(r"/proc/vmstat|/sys/fs/cgroup/(?!.*\.\.).*memory\.events")
"""These are the files in which Linux counts the processes that it killed for lack of memory."""


@functools.cache
def place() -> str | None:
    """Identify where process ids mean what they mean here: this boot of this machine and its namespace of ids.

    None where the system does not tell.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {start} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def is_gone(pid: int) -> bool:
    """Tell whether there is no process of this id here, or a dead one that its parent has not asked for yet."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, IndexError):
        return False
    return state in (b"Z", b"X")


def kill_counts() -> dict[str, int]:
    """Count the processes killed for lack of memory up to now: in this process's control group, and on the machine."""
    paths = [Path("/proc/vmstat")]
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        paths[:0] = [
            Path(f"/sys/fs/cgroup{line[3:].rstrip('/')}/memory.events") for line in lines if line.startswith("0::/")
        ]
    return {str(path): number for path in paths if (number := kills(path)) is not None}


def kills(path: Path) -> int | None:
    """Read such a count from its file; None where there is none."""
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):  # another system, or a control group that is gone
        return None
    return None if found is None else int(found[1])
