"""This module reads which processes train in a folder of results, and how far each says that it is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrpl_bench.records.leases.claims import PRESENT_FOLDER, PROGRESS, Lease, in_force
from mlrpl_bench.records.leases.lease import Owner


@dataclass(frozen=True)
class AtWork:
    """A process that trains a group of cells, as it was at its last heartbeat.

    Attributes:
        owner: a random id that no other process has.
        node: the machine.
        process: the number of the process there.
        device: what trains, such as the GPU's name.
        cells: how many are trained side by side.
        epoch: how many of the `epochs` have ended.
        epochs: how many there are.
        step: how many of the `steps` are made.
        steps: of all epochs together.
        loss: the mean over the cells in the epoch that ended last; None before the first.
        test_mAP: the mean over the cells in the epoch that ended last, in percent; None if it was not evaluated.
        images_per_second: over all cells.
        seconds_left: until the group ends.
    """

    owner: str
    node: str
    process: int
    device: str
    cells: int
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    test_mAP: float | None
    images_per_second: float
    seconds_left: float

    @property
    def name(self) -> str:
        """Name the process for people."""
        return f"{self.node} {self.process}"


def at_work(among: Path, observer: Owner) -> list[AtWork]:
    """Read which processes train cells now, in a fixed order; those that died are left out.

    Args:
        among: the folder in which they announced themselves, see `Owner.announce`.
        observer: remembers for how long each has stood still.
    """
    try:
        names = sorted(os.listdir(among / PRESENT_FOLDER))
    except OSError:  # nobody announced itself, or it cannot be looked at, which is no news
        return []
    found = []
    for folder in (among / PRESENT_FOLDER / name for name in names):
        try:
            facts = json.loads((folder / PROGRESS).read_bytes())
            if not facts.get("cells") or (claim := in_force(folder)) is None or observer.may_take(folder):
                continue
            found.append(_from(facts, claim, folder.name))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # it says nothing, or has just ended
    return sorted(found, key=lambda each: (each.node, each.process))


def _from(facts: Mapping[str, Any], claim: Lease, owner: str) -> AtWork:
    loss, precision = facts.get("loss"), facts.get("test_mAP")
    return AtWork(
        owner=owner,
        node=claim.host,
        process=int(claim.facts["pid"]),
        device=str(facts["device"]),
        **{name: int(facts[name]) for name in ("cells", "epoch", "epochs", "step", "steps")},
        loss=None if loss is None else float(loss),
        test_mAP=None if precision is None else float(precision),
        images_per_second=_finite(facts["images_per_second"]),
        seconds_left=_finite(facts["seconds_left"]),
    )


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value} is no finite number")
    return number
