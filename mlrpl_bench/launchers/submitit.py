"""This module hands workers to SLURM; a job that is preempted or runs out of time is put into the queue again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlrpl_bench.launchers.driver import Launch, Work
from mlrpl_bench.utils.errors import UserError


class Worker:
    """A worker is what a job does; it can be pickled.

    Args:
        work: see `Work`.
        order: the order, as plain data.
    """

    def __init__(self, work: Work, order: Mapping[str, Any]) -> None:
        self.work, self.order = work, order

    def __call__(self) -> Mapping[str, Any]:
        """Do the work and return what came of it.

        Raises:
            SystemExit: it was not done, or a cell failed: nobody waits for what a job returns, so that its log says
                why, and SLURM counts it as failed.
        """
        found = self.work(self.order, None)
        if found["line"]:
            print(f"error: {found['line']}", file=sys.stderr, flush=True)
        if found["code"]:
            raise SystemExit(found["code"])
        return found

    def checkpoint(self) -> Any:
        """Return what is put into the queue again: the same work, which goes on from the cells' checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def start(launch: Launch) -> None:
    """Put the workers' jobs into SLURM's queue, and say their numbers; does not wait for them.

    Raises:
        UserError: submitit or SLURM is not there, or SLURM refuses the jobs.
    """
    jobs = submit(launch, "slurm")
    launch.say(
        f"submitted {len(jobs)} workers as {', '.join(str(job.job_id) for job in jobs[:8])}"
        f"{' ...' if len(jobs) > 8 else ''}; what they say is in {launch.path.parent}; "
        "the same command without --launcher and with --no-train makes the table of what is finished"
    )


def submit(launch: Launch, cluster: str) -> list[Any]:
    """Submit a job for each worker and return the jobs.

    Args:
        cluster: ``slurm``; ``local`` and ``debug`` are submitit's own, which need no SLURM.

    Raises:
        UserError: as `start`.
    """
    try:
        import submitit
    except ImportError:
        raise UserError(
            "--launcher submitit needs submitit; install it with pip install 'mlrpl-bench[slurm]'"
        ) from None
    device = launch.order.request.get("options", {}).get("device", "auto")
    placement = launch.placement
    given: dict[str, Any] = {"name": "mlrpl-bench", "gpus_per_node": 0 if device == "cpu" else 1}
    if (minutes := placement.minutes()) is not None:
        given["timeout_min"] = minutes
    if placement.partition is not None:
        given["slurm_partition"] = placement.partition
    try:
        executor = submitit.AutoExecutor(folder=launch.path.parent / "jobs", cluster=cluster)
        executor.update_parameters(**given)
        with executor.batch():
            return [executor.submit(Worker(launch.work, launch.order.to_json())) for _ in range(launch.order.planned)]
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"SLURM takes no job from here ({words}); give the command on a login node") from error
