"""Sets rows that differ in their head and in their training side by side, so that each gain is seen for itself.

Which row stands where is in ``facts/heads.csv``: a head, a training, the row that has both, and what else there is to
know of it. A place without a row is one that no method here fills.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlrpl_bench.evaluation import intervals
from mlrpl_bench.evaluation.intervals import Difference, Measured
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.claims.published import facts
from mlrpl_bench.leaderboard.evidence import EvidenceGrid
from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.utils.arrays import plain
from mlrpl_bench.utils.tables import Entry, Table

METRIC = "mAP"

Signs = Mapping[str, int]
"""This maps each name to 1 where it is added and to -1 where it is subtracted."""


@dataclass(frozen=True)
class Place:
    """This is a place of the table, and what fills it.

    Attributes:
        head: what makes logits of the backbone's maps.
        training: the loss, and what is done with unknown labels.
        row: the label of the row that has both; empty where no method here does.
        remark: what else differs, or why there is no row; empty where nothing is to be said.
    """

    head: str
    training: str
    row: str
    remark: str


@dataclass(frozen=True)
class Number:
    """This is a number of the table: a row's mean, or a difference.

    Attributes:
        mean: percent, or percent points; NaN where a row has no records.
        deviation: of a row over its seeds, NaN for one seed and for a difference.
        low: the lower end of a difference's interval; NaN for a row.
        high: the upper end.
        seeds: how many seeds it rests on.
        caution: what the interval does not allow to conclude.
    """

    mean: float = math.nan
    deviation: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: int = 0
    caution: str = ""


@dataclass(frozen=True)
class Heads:
    """This table has every head under every training, with the differences between heads, between trainings, and
    between these.

    Attributes:
        dataset: the name of the data set.
        ratios: the known ratios that are averaged.
        level: of the intervals, in (0, 1).
        places: all places, see `load`.
        numbers: by line and column: what `lines` and `columns` name.
    """

    dataset: str
    ratios: tuple[float, ...]
    level: float
    places: Sequence[Place]
    numbers: Mapping[tuple[str, str], Number]

    @property
    def heads_measured(self) -> int:
        """Return how many heads have a number under some training; with one there is nothing to compare."""
        return len({p.head for p in self.places if self.numbers[p.head, p.training].seeds})

    def table(self) -> Table:
        """Return the numbers as a table with its notes: heads and their differences down, trainings across."""
        titles = tuple(columns(self.places))
        rows = [
            (line, [_entry(self.numbers[line, column]) for column in columns(self.places)])
            for line in lines(self.places)
        ]
        return Table("head-and-training", "Head beside training", titles, rows, tuple(self.notes()), corner="head")

    def notes(self) -> list[str]:
        """Say which row stands where, what else differs, and which rows are missing."""
        average = average_name(self.ratios)
        where = f"{average} ratios" if average.startswith("avg of") else average
        missing = [p.row for p in self.places if p.row and not self.numbers[p.head, p.training].seeds]
        notes = [
            f"{METRIC} in percent, {where}; a row: mean ± standard deviation over its seeds; a - b: difference in "
            f"percent points over the seeds that the rows share, with {100 * self.level:g} % interval over seeds and "
            "test images, not corrected for their number",
            "down: what a head gains under one training; across: what a training gains on one head; where both meet: "
            "how much more the training gains on that head",
            *self._about_rows(),
        ]
        if missing:
            commands = ", ".join(f"{row} (run {as_arguments(row)})" for row in missing)
            notes.append(f"without records at {pairing.percents(self.ratios)}: {commands}")
        return list(dict.fromkeys([*notes, *(n.caution for n in self.numbers.values() if n.caution)]))

    def _about_rows(self) -> list[str]:
        """Say which row stands where, a line for each head."""
        by_head: dict[str, list[str]] = {}
        for place in self.places:
            remark = f" ({place.remark})" if place.remark else ""
            by_head.setdefault(place.head, []).append(f"{place.row or '-'}{remark}")
        return [f"{head}, from left to right: {', '.join(rows)}" for head, rows in by_head.items()]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None where there is no number."""
        numbers = {
            line: {column: _plain(self.numbers[line, column]) for column in columns(self.places)}
            for line in lines(self.places)
        }
        rows: dict[str, dict[str, str | None]] = {}
        for place in self.places:
            rows.setdefault(place.head, {})[place.training] = place.row or None
        return {"rows": rows, "numbers": numbers, "notes": self.notes()}


def load() -> list[Place]:
    """Load the places, in the file's order; every head has every training."""
    return [Place(**row) for row in facts("heads.csv")]


def rows_needed() -> set[str]:
    """List the rows that the table shows."""
    return {place.row for place in load() if place.row}


def lines(places: Sequence[Place]) -> dict[str, Signs]:
    """Name the lines: each head, and each less the first one."""
    return _alone_and_less_the_first([place.head for place in places])


def columns(places: Sequence[Place]) -> dict[str, Signs]:
    """Name the columns: each training, and each less the first one."""
    return _alone_and_less_the_first([place.training for place in places])


def compare(cells: EvidenceGrid, dataset: str, ratios: Sequence[float], level: float = 0.95) -> Heads:
    """Measure every head under every training, and all differences.

    Args:
        cells: the evidence of the rows, see `rows_needed`.
        dataset: the name of the data set.
        ratios: the known ratios that are averaged.
        level: of the intervals, in (0, 1).
    """
    places, ratios = load(), tuple(sorted(ratios))
    row_at = {(place.head, place.training): place.row for place in places}
    numbers = {
        (line, column): _number(
            cells,
            {row_at[head, training]: a * b for head, a in heads.items() for training, b in trainings.items()},
            ratios,
            level,
        )
        for line, heads in lines(places).items()
        for column, trainings in columns(places).items()
    }
    return Heads(dataset, ratios, level, places, numbers)


def _alone_and_less_the_first(names: Sequence[str]) -> dict[str, Signs]:
    first, *others = dict.fromkeys(names)
    alone: dict[str, Signs] = {name: {name: 1} for name in (first, *others)}
    return alone | {f"{name} - {first}": {name: 1, first: -1} for name in others}


def _number(cells: EvidenceGrid, rows: Signs, ratios: Sequence[float], level: float) -> Number:
    """Return the sum of some rows less that of others, over the seeds that all of them have.

    Of no row there are none.
    """
    seeds = pairing.common_seeds(cells, list(rows), ratios, METRIC)
    if not seeds:
        return Number()
    measured = {row: pairing.measured(pairing.by_seeds(cells, row, ratios, seeds), METRIC) for row in rows}
    if len(rows) == 1:
        (values_S,) = (of_row.estimates_S for of_row in measured.values())
        deviation = float(np.std(values_S, ddof=1)) if len(seeds) > 1 else math.nan
        return Number(float(np.mean(values_S)), deviation, seeds=len(seeds))
    plus, minus = (_sum([measured[row] for row, sign in rows.items() if sign == wanted]) for wanted in (1, -1))
    found: Difference = intervals.paired(plus, minus, level)
    return Number(found.mean, low=found.low, high=found.high, seeds=len(seeds), caution=found.caution)


def _sum(rows: Sequence[Measured]) -> Measured:
    return Measured(
        np.sum([row.influences_SN for row in rows], axis=0), np.sum([row.estimates_S for row in rows], axis=0)
    )


def _entry(number: Number) -> Entry:
    if math.isnan(number.mean):
        return Entry("-")
    if not math.isnan(number.low):
        return Entry(pairing.difference_text(number.mean, number.low, number.high), value=number.mean)
    spread = "" if math.isnan(number.deviation) else f" ± {number.deviation:.1f}"
    return Entry(f"{number.mean:.1f}{spread}", value=number.mean)


def _plain(number: Number) -> dict[str, Any]:
    names = ("mean", "deviation", "low", "high")
    return {**{name: plain(getattr(number, name)) for name in names}, "seeds": number.seeds}


def as_arguments(label: str) -> str:
    """Return a row's label as arguments of ``run``.

    >>> as_arguments("sarb"), as_arguments("asl[unknown=ignored, margin=0]")
    ('sarb', 'asl --set unknown=ignored --set margin=0')
    """
    method, _, changed = label.rstrip("]").partition("[")
    return " ".join([method, *(f"--set {value}" for value in filter(None, changed.split(", ")))])
