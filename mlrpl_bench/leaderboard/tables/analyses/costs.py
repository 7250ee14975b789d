"""Sets what a cell costs to train beside the mAP that it reaches; devices are kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlrpl_bench.evaluation import pareto
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.evidence import Evidence, EvidenceGrid
from mlrpl_bench.leaderboard.measurements import LEVEL, average_name
from mlrpl_bench.leaderboard.tables.analyses.analysis import Analysis, ratio_name
from mlrpl_bench.leaderboard.tables.analyses.cost_picture import Point, draw
from mlrpl_bench.records.record import Record
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import BEST, Entry, Table

CPU, GPU = "CPU-hours", "GPU-hours"
COLUMNS = (
    "method",
    "device",
    "unit",
    "known_ratio",
    "mAP",
    "seeds",
    "hours",
    "group_hours",
    "cells_in_group",
    "on_front",
)


@dataclass(frozen=True)
class Cost:
    """A cost says what the cells of a row took on one device, a mean over them.

    Attributes:
        hours: of a cell, that is the time of its group divided by the number of the group's cells, in `unit`.
        group_hours: of the whole group, in `unit`.
        cells_in_group: how many cells were trained side by side.
    """

    hours: float
    group_hours: float
    cells_in_group: float


@dataclass(frozen=True)
class _Row:
    label: str
    device: str
    mAP: float
    seeds: int
    cost: Cost


def analyse(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float]) -> Analysis:
    """Compare rows by what a cell costs and by mAP, averaged over the known ratios, on each device by itself.

    Args:
        cells: the evidence of the rows.
        labels: the rows.
        ratios: known ratios; a row counts on a device with the seeds that were trained there at all of them.

    Returns:
        A frame with `COLUMNS`, a row for each device and row of the table; ``on_front`` says whether no other row on
        this device has as high an mAP at as low a cost. One table for each device, and a picture with a panel for
        each.

    Raises:
        UserError: no row has all ratios on one device.
    """
    rows, notes = _rows(cells, labels, sorted(ratios))
    if not rows:
        at = pairing.percents(sorted(ratios))
        raise UserError(f"no row has a seed with all of {at} on one device; name a known ratio with --ratios")
    by_device = {device: [row for row in rows if row.device == device] for device in sorted({r.device for r in rows})}
    fronts = {
        device: pareto.front([row.cost.hours for row in found], [row.mAP for row in found])
        for device, found in by_device.items()
    }
    average = average_name(ratios)
    points = {
        f"{device} ({unit_of(device)})": [
            Point(row.label, row.cost.hours, row.mAP, bool(on)) for row, on in zip(found, fronts[device], strict=True)
        ]
        for device, found in by_device.items()
    }
    tables = [
        _table(device, found, fronts[device].tolist(), average, [*_about(device, cells, found, ratios), *notes])
        for device, found in by_device.items()
    ]
    tidy = [
        _tidy(row, ratio_name(ratios), bool(on))
        for device, found in by_device.items()
        for row, on in zip(found, fronts[device], strict=True)
    ]
    where = f"average over {len(ratios)} known ratios" if len(ratios) > 1 else f"{average} known"
    pictures = draw(points, f"mAP (percent), {where}")
    return Analysis("cost", pd.DataFrame(tidy, columns=list(COLUMNS)), tables, pictures)


def unit_of(device: str) -> str:
    """Return ``CPU-hours`` for a processor, ``GPU-hours`` for anything else."""
    return CPU if device.endswith(" CPU") else GPU


def cost_of(records: Sequence[Record]) -> Cost:
    """Average what cells took on one device.

    CPU-hours are hours times threads (the most that torch had), GPU-hours are hours of one GPU, idle or not. A cell's
    part of its group is an equal one: that a method's own steps take longer than its neighbours' is not in it.
    """
    hours = np.array([_hours(record) for record in records])
    in_group = np.array([record.content["cost"]["cells_in_group"] for record in records], dtype=np.float64)
    return Cost(float((hours / np.maximum(in_group, 1)).mean()), float(hours.mean()), float(in_group.mean()))


def _hours(record: Record) -> float:
    seconds: float = record.content["cost"]["seconds"]
    return seconds / 3600 * (threads_of(record) if unit_of(device_of(record)) == CPU else 1)


def device_of(record: Record) -> str:
    """Return the kind of the device that trained, as the record has it."""
    return str(record.content.get("device") or "unknown device")


def threads_of(record: Record) -> int:
    """Return the most threads that torch worked with."""
    counts = record.content.get("thread_counts") or [record.content.get("threads") or 1]
    return max(int(count) for count in counts)


def _rows(cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float]) -> tuple[list[_Row], list[str]]:
    """Return the rows on each device, and a line for those that are on none with all ratios."""
    rows, incomplete = [], []
    for label in labels:
        found = [_row(label, device, by_seeds) for device, by_seeds in _by_device(cells, label, ratios).items()]
        rows += found
        if not found:
            incomplete.append(label)
    notes = []
    if incomplete:
        at = pairing.percents(ratios)
        notes.append(f"without a seed that has {at} on one device, so left out: {', '.join(incomplete)}")
    return rows, notes


def _by_device(cells: EvidenceGrid, label: str, ratios: Sequence[float]) -> Mapping[str, list[list[Evidence]]]:
    """Return, by device, the cells of each seed that has all ratios there."""
    found: dict[str, list[list[Evidence]]] = {}
    for seeds in pairing.common_seeds(cells, [label], ratios, "mAP"):
        of_seed = [cells[label, ratio][seeds] for ratio in ratios]
        devices = {device_of(evidence.record) for evidence in of_seed}
        if len(devices) == 1:
            found.setdefault(devices.pop(), []).append(of_seed)
    return found


def _row(label: str, device: str, by_seeds: Sequence[Sequence[Evidence]]) -> _Row:
    mAP = 100 * float(np.mean([[evidence.record.metrics["mAP"] for evidence in of_seed] for of_seed in by_seeds]))
    cost = cost_of([evidence.record for of_seed in by_seeds for evidence in of_seed])
    return _Row(label, device, mAP, len(by_seeds), cost)


def _tidy(row: _Row, known_ratio: str, on_front: bool) -> dict[str, object]:
    place = {"method": row.label, "device": row.device, "unit": unit_of(row.device), "known_ratio": known_ratio}
    return {**place, "mAP": row.mAP, "seeds": row.seeds, **vars(row.cost), "on_front": on_front}


def _table(device: str, rows: Sequence[_Row], on_front: Sequence[bool], average: str, notes: Sequence[str]) -> Table:
    unit = unit_of(device)
    columns = (f"mAP ({average})", unit, "of its group", "cells in it", "seeds")
    lines = []
    for row, on in sorted(zip(rows, on_front, strict=True), key=lambda pair: (pair[0].cost.hours, -pair[0].mAP)):
        cost = row.cost
        entries = [
            Entry(f"{row.mAP:.1f}", BEST if on else "", value=row.mAP),
            *(Entry(f"{hours:.3g}", value=hours) for hours in (cost.hours, cost.group_hours)),
            Entry(f"{cost.cells_in_group:.3g}", value=cost.cells_in_group),
            Entry(str(row.seeds), value=row.seeds),
        ]
        lines.append((row.label, entries))
    return Table(f"cost-{unit}", f"Cost against mAP, {device}", columns, lines, tuple(notes))


def _about(device: str, cells: EvidenceGrid, rows: Sequence[_Row], ratios: Sequence[float]) -> list[str]:
    unit = unit_of(device)
    labels = {row.label for row in rows}
    records = [
        evidence.record
        for (label, ratio), by_seeds in cells.items()
        if label in labels and ratio in ratios
        for evidence in by_seeds.values()
        if device_of(evidence.record) == device
    ]
    nodes = {record.content.get("node") for record in records} - {None}
    threads = sorted({threads_of(record) for record in records})
    of_threads = f"hours times threads ({', '.join(map(str, threads))})" if unit == CPU else "hours of one GPU"
    notes = [
        f"{unit} of a cell: {of_threads}, from the first step to the last evaluation, those of each epoch included; a "
        "mean over known ratios and seeds",
        "not in it: preparing images, pre-training the backbone, choosing hyper-parameters, waiting for others",
        "cells trained side by side share reading and the frozen part; each is charged an equal part of its group, so "
        "a costly method beside cheap ones looks cheaper than it is, and rows of unlike groups compare badly; "
        "`profile` measures a method's own steps",
        "bold, in plain text *: on the front, where no other row here has as high an mAP for as little; it takes means "
        f"as they are, so see the {100 * LEVEL:g} % intervals of the leaderboard before a close call",
    ]
    if len({row.cost.cells_in_group for row in rows}) > 1:
        notes.append("groups are of unlike sizes here")
    if len(nodes) > 1:
        notes.append(f"{device}: {len(nodes)} machines of this kind, whose speeds may differ, are taken together")
    return notes
