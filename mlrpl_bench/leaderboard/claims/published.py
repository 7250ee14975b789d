"""Holds the numbers that papers printed, with their sources, and sets them beside measured ones.

The numbers are facts in ``facts/published.csv``, in percent. They never enter a measured row, and an average over
fewer ratios than the papers' nine is never set beside a published average. Where numbers come from another protocol
than the one here, ``facts/other_protocols.csv`` says how it differs; the table marks them and has it in its notes.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlrpl_bench.evaluation.metrics import REPORTED
from mlrpl_bench.leaderboard.measurements import Lookup
from mlrpl_bench.utils.arrays import plain
from mlrpl_bench.utils.tables import Table, from_text

VERIFIED = "verified"
STATUSES = {
    VERIFIED: "printed in the source",
    "derived": "not printed: a printed number and a printed margin together, so ±0.1",
}
AVERAGE = "avg"
"""This is the mean over the nine known ratios; any other mean is called otherwise, such as ``avg of 3``."""

OTHER_PROTOCOL = "other protocol"
"""Marks a number that does not come from the protocol here."""

HEADER = ("method", "published as", "known ratio", "metric", "measured", "published", "difference", "source")


@dataclass(frozen=True)
class Published:
    """This is a number that a paper printed.

    Attributes:
        dataset: the name of the data set here.
        method: the name of the row in the paper's table.
        metric: of `REPORTED`.
        known_ratio: ``0.1`` to ``0.9``, or ``avg``.
        value: percent.
        status: one of `STATUSES`.
        source: the paper and its table.
    """

    dataset: str
    method: str
    metric: str
    known_ratio: str
    value: float
    status: str
    source: str


@dataclass(frozen=True)
class Line:
    """A line sets a published number beside the measured one.

    Attributes:
        label: the measured row, empty where no method here is published under this name.
        published_name: the row in the papers' tables.
        known_ratio: ``0.1`` to ``0.9``, or ``avg``.
        metric: of `REPORTED`.
        measured: percent; None where there is no measured number.
        published: percent.
        difference: measured less published, percent points; None where there is no measured number.
        status: one of `STATUSES`.
        sources: numbers of the footnotes, from 1.
        protocol: how the published number's protocol differs from the one here; empty where it does not.
    """

    label: str
    published_name: str
    known_ratio: str
    metric: str
    measured: float | None
    published: float
    difference: float | None
    status: str
    sources: tuple[int, ...]
    protocol: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """A table of all published numbers of a dataset, each beside the measured one if there is one.

    Attributes:
        dataset: the name of the data set.
        lines: the numbers, in the order of the table.
        sources: the papers, numbered from 1 in the footnotes.
    """

    dataset: str
    lines: list[Line]
    sources: list[str]

    def rows(self) -> list[list[str]]:
        """Word the lines under `HEADER`; what no paper printed says so."""
        return [_row(line) for line in self.lines]

    def table(self) -> Table:
        """Return the published numbers as a table with its footnotes."""
        return from_text("published", "Published numbers beside ours", HEADER, self.rows(), self.notes())

    def notes(self) -> list[str]:
        """Write the footnotes: what each status means, how protocols differ, then the numbered sources."""
        statuses = sorted({line.status for line in self.lines} - {VERIFIED})
        others = {line.published_name: line.protocol for line in self.lines if line.protocol}
        return [
            *(f"({status}): {STATUSES[status]}" for status in statuses),
            *(f"({OTHER_PROTOCOL}) {name}: {how}" for name, how in others.items()),
            *(f"[{number}] {source}" for number, source in enumerate(self.sources, start=1)),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        lines = [{**asdict(line), "sources": list(line.sources)} for line in self.lines]
        return {"dataset": self.dataset, "lines": lines, "sources": self.sources}


def facts(name: str) -> list[dict[str, str]]:
    """Read the rows of a file in the package's folder ``facts``."""
    text = (importlib.resources.files("mlrpl_bench.leaderboard.claims") / "facts" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@functools.cache
def load() -> tuple[Published, ...]:
    """Load every published number, in the file's order."""
    return tuple(Published(**{**row, "value": float(row["value"])}) for row in facts("published.csv"))  # type: ignore[arg-type]


@functools.cache
def other_protocols() -> Mapping[str, str]:
    """Load how protocols differ from the one here, by the name of the row in the paper's table."""
    return {row["method"]: row["differs"] for row in facts("other_protocols.csv")}


def numbers_of(dataset: str, published_name: str) -> list[Published]:
    """Find what is published of a method on a dataset; several sources may print the same number."""
    return [number for number in load() if (number.dataset, number.method) == (dataset, published_name)]


def published_table(found: Lookup, dataset: str, names: Mapping[str, str], ratios: Sequence[float]) -> PublishedTable:
    """Set every published number of a dataset at these ratios and on average beside the measured one.

    Sources that print the same number share a line; where they disagree, each has its own.

    Args:
        found: the measurements of a leaderboard.
        dataset: the name of the data set.
        names: by label of a row, its name in published tables; a method with changed hyper-parameters has none.
        ratios: those of the table.
    """
    ours = [(label, names[label]) for label in found.labels if names.get(label)]
    theirs = dict.fromkeys(number.method for number in load() if number.dataset == dataset)
    known = {name for _, name in ours}
    shown = [*(f"{ratio:g}" for ratio in sorted(ratios)), AVERAGE]
    sources: dict[str, int] = {}
    lines = []
    for label, name in [*ours, *(("", name) for name in theirs if name not in known)]:
        for (ratio, metric, value, status), printed_in in _by_value(numbers_of(dataset, name), shown).items():
            mean = plain(float(found.row(label, ratio, metric).mean))
            numbers = tuple(sources.setdefault(source, len(sources) + 1) for source in printed_in)
            difference = None if mean is None else mean - value
            protocol = other_protocols().get(name, "")
            lines.append(Line(label, name, ratio, metric, mean, value, difference, status, numbers, protocol))
    return PublishedTable(dataset, lines, list(sources))


def _by_value(numbers: Sequence[Published], shown: Sequence[str]) -> dict[tuple[str, str, float, str], list[str]]:
    """Return the sources of each number at the ratios shown, ordered as the table is."""
    found: dict[tuple[str, str, float, str], list[str]] = {}
    order = sorted(
        (number for number in numbers if number.known_ratio in shown),
        key=lambda number: (REPORTED.index(number.metric), shown.index(number.known_ratio)),
    )
    for number in order:
        found.setdefault((number.known_ratio, number.metric, number.value, number.status), []).append(number.source)
    return found


def _row(line: Line) -> list[str]:
    marks = [line.status] * (line.status != VERIFIED) + [OTHER_PROTOCOL] * bool(line.protocol)
    return [
        line.label or "-",
        line.published_name,
        line.known_ratio,
        line.metric,
        "-" if line.measured is None else f"{line.measured:.1f}",
        " ".join([f"{line.published:.1f}", *(f"({mark})" for mark in marks)]),
        "-" if line.difference is None else f"{line.difference:+.1f}",
        "".join(f"[{number}]" for number in line.sources),
    ]
