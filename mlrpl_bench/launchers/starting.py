"""This module finds a launcher by its name; each is imported only when it is used."""

from __future__ import annotations

from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.placement import Placement

WAITING = ("local", "ray")
"""The launchers that end when all is trained; the others only hand workers to somebody else."""


def planned_workers(placement: Placement, device: str) -> int:
    """Return how many workers there are to be: those asked for, else one a GPU of this machine, else one.

    Raises:
        UserError: this machine cannot have so many.
    """
    if placement.launcher == "local":
        from mlrpl_bench.launchers.local import number_of_workers

        return number_of_workers(placement.workers, device)[0]
    return placement.workers or 1


def start(launch: Launch) -> None:
    """Start workers, and wait for their end where the launcher is one of `WAITING`.

    Raises:
        UserError: the launcher's library is not there, or it can start nothing.
    """
    name = launch.placement.launcher
    if name == "local":
        from mlrpl_bench.launchers import local

        local.start(launch)
    elif name == "print":
        from mlrpl_bench.launchers import printed

        printed.start(launch)
    elif name == "ray":
        from mlrpl_bench.launchers import ray

        ray.start(launch)
    elif name == "submitit":
        from mlrpl_bench.launchers import submitit

        submitit.start(launch)
    else:
        raise ValueError(name)
