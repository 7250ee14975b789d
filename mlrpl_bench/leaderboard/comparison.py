"""Compares two rows of a table on the test images and seeds that both have."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mlrpl_bench.evaluation.metrics import REPORTED
from mlrpl_bench.leaderboard import pairing, verdicts
from mlrpl_bench.leaderboard.evidence import EvidenceGrid
from mlrpl_bench.leaderboard.verdicts import Finding
from mlrpl_bench.utils.arrays import plain
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import Table, from_text

NO_DIFFERENCE = "cannot be told apart"
NONE_COMMON = "cannot be compared"


@dataclass(frozen=True)
class Row:
    """A row compares one metric at one known ratio, or averaged over the ratios: a finding in a comparison's words.

    Attributes:
        finding: the measured difference; its means, interval and seeds are the row's.
        level: of the verdict, in (0, 1).
    """

    finding: Finding
    level: float

    @property
    def metric(self) -> str:
        """Return ``mAP``, ``OF1`` or ``CF1``."""
        return self.finding.part.metric

    @property
    def known_ratio(self) -> str:
        """Return ``0.1``; ``avg`` over the nine ratios, ``avg of 3`` over other sets."""
        return self.finding.part.known_ratio

    @property
    def caution(self) -> str:
        """Return what cannot be concluded; empty where nothing is to be said."""
        mask_seeds = [mask_seed for _, mask_seed in self.finding.seeds]
        one_mask = len(mask_seeds) > 1 and len(set(mask_seeds)) == 1
        return "; ".join(filter(None, [self.finding.caution, pairing.ONE_MASK if one_mask else ""]))

    @property
    def verdict(self) -> str:
        """Return which row is better, that they cannot be told apart, or why they cannot be compared."""
        found = self.finding
        if not found.seeds:
            return f"{NONE_COMMON}: {found.why}"
        if found.p_adjusted > 1 - self.level or not found.difference:
            return NO_DIFFERENCE
        better = found.part.a if found.difference > 0 else found.part.b
        return f"{better} is better" + (" (these trained models)" if len(found.seeds) == 1 else "")

    def to_text(self) -> list[str]:
        """Word the row under `Comparison.header`: percent with one decimal, points with two."""
        found = self.finding
        return [
            self.metric,
            self.known_ratio,
            *("-" if math.isnan(mean) else f"{mean:.1f}" for mean in (found.mean_a, found.mean_b)),
            pairing.difference_text(found.difference, found.low, found.high),
            pairing.p_text(found.p_value),
            pairing.p_text(found.p_adjusted),
            str(len(found.seeds)),
            self.verdict,
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None for what there is not."""
        found = self.finding
        names = ("mean_a", "mean_b", "difference", "low", "high", "p_value", "p_adjusted")
        return plain({
            "metric": self.metric,
            "known_ratio": self.known_ratio,
            **{name: getattr(found, name) for name in names},
            "seeds": len(found.seeds),
            "left_out": found.unpaired_seeds,
            "verdict": self.verdict,
            "caution": self.caution,
        })  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A comparison sets row a of a table against row b.

    Attributes:
        a: the label of the first row.
        b: the label of the second row.
        level: of the intervals and of the verdicts, in (0, 1).
        lines: a row for each metric at each known ratio, and for its average over them.
    """

    a: str
    b: str
    level: float
    lines: list[Row]

    def header(self) -> list[str]:
        """Name the columns of `rows`."""
        difference = f"difference [{100 * self.level:g} %]"
        return ["metric", "known ratio", self.a, self.b, difference, "p", "p (Holm)", "seeds", "verdict"]

    def rows(self) -> list[list[str]]:
        """Word the rows: percent with one decimal, points with two."""
        return [line.to_text() for line in self.lines]

    def table(self, title: str = "") -> Table:
        """Return the comparison as a table with its notes.

        Args:
            title: above the table; ``a and b`` unless another one is given.
        """
        title = title or f"{self.a} and {self.b}"
        return from_text("compare", title, self.header(), self.rows(), self.notes(), wraps=True, repeated=1)

    def notes(self) -> list[str]:
        """Say what to know when reading the rows, without repetition."""
        notes = [
            f"difference: {self.a} less {self.b} in percent points, same test images and seeds; each interval is for "
            "its own row, verdicts follow p (Holm), corrected over the rows; from these two alone, while the marks of "
            "a leaderboard learn the seeds' spread from all its rows",
            *(line.caution for line in self.lines if line.caution),
            *(
                f"left out, {line.known_ratio} {line.metric}: {seed}"
                for line in self.lines
                if line.metric == self.lines[0].metric
                for seed in line.finding.unpaired_seeds
            ),
        ]
        return list(dict.fromkeys(notes))

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None for what there is not."""
        rows = [line.to_json() for line in self.lines]
        return {"a": self.a, "b": self.b, "level": self.level, "rows": rows, "notes": self.notes()}


def compare(
    cells: EvidenceGrid,
    a: str,
    b: str,
    ratios: Sequence[float],
    metrics: Sequence[str] = REPORTED,
    level: float = 0.95,
) -> Comparison:
    """Compare two rows at each ratio and, from two ratios on, averaged over them.

    Args:
        cells: the evidence of both rows.
        a: the label of the first row.
        b: the label of the second row.
        ratios: known ratios.
        metrics: of `REPORTED`.
        level: of the intervals and verdicts, in (0, 1).

    Raises:
        UserError: a row is unknown, or is compared with itself.
    """
    check({label for label, _ in cells}, a, b)
    ratios = tuple(sorted(ratios))
    columns = [(ratio,) for ratio in ratios] + ([ratios] if len(ratios) > 1 else [])
    parts = [verdicts.Part(a, b, metric, column) for metric in metrics for column in columns]
    # Nothing is about equal here: which row is better follows from the difference and its p-value alone.
    found = verdicts.find(cells, parts, level, margin=0.0)
    return Comparison(a, b, level, [Row(finding, level) for finding in found])


def check(labels: Collection[str], a: str, b: str) -> None:
    """Refuse to compare rows of which there are no records.

    Args:
        labels: of all rows that there are.

    Raises:
        UserError: one of the two is not among them, or they are the same.
    """
    check_known(labels, (a, b))
    if a == b:
        raise UserError(f"{a!r} is to be compared with itself; name two rows")


def check_known(labels: Collection[str], asked: Sequence[str]) -> None:
    """Refuse rows of which there are no records.

    Args:
        labels: of all rows that there are.
        asked: those that are asked for.

    Raises:
        UserError: one of them is not among the others.
    """
    for label in asked:
        if label not in labels:
            close = difflib.get_close_matches(label, labels, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(f"no records of {label!r}; {hint}there are: {', '.join(sorted(labels)) or 'none'}")
