"""Two rows of a table compared, on the test images and seeds that both have."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mlrpl_bench.evaluation import intervals
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.evidence import INFLUENCED, EvidenceGrid
from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.utils.errors import UserError

NO_DIFFERENCE = "cannot be told apart"
NONE_COMMON = "cannot be compared"


@dataclass(frozen=True)
class Row:
    """One metric at one known ratio, or averaged over the ratios.

    Attributes:
        known_ratio: ``0.1``, ``avg`` over the nine ratios, ``avg of 3`` over other sets.
        mean_a, mean_b: percent, over the common seeds alone. difference, low, high: points; NaN without common seeds.
        p_adjusted: Holm's, over the rows that have a p-value.
        seeds: how many are common. left_out: the others, each with what it lacks.
        caution: what cannot be concluded.
    """

    metric: str
    known_ratio: str
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    seeds: int
    left_out: tuple[str, ...]
    verdict: str
    caution: str


@dataclass(frozen=True)
class Comparison:
    """Row a against row b of a table; `level` is that of the intervals and of the verdicts."""

    a: str
    b: str
    level: float
    lines: list[Row]

    def header(self) -> list[str]:
        """The columns of `rows`."""
        difference = f"difference [{100 * self.level:g} %]"
        return ["metric", "known ratio", self.a, self.b, difference, "p", "p (Holm)", "seeds", "verdict"]

    def rows(self) -> list[list[str]]:
        """As text: percent with one decimal, points with two."""
        return [_text(line) for line in self.lines]

    def notes(self) -> list[str]:
        """What to know when reading the rows, without repetition."""
        told = [
            f"difference: {self.a} less {self.b} in percent points, same test images and seeds; each interval is for "
            "its own row, verdicts follow p (Holm), corrected over the rows; from these two alone, while the marks of "
            "a leaderboard learn the seeds' spread from all its rows",
            *(line.caution for line in self.lines if line.caution),
            *(
                f"left out, {line.known_ratio} {line.metric}: {seed}"
                for line in self.lines
                if line.metric == self.lines[0].metric
                for seed in line.left_out
            ),
        ]
        return list(dict.fromkeys(told))

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for what there is not."""
        lines = [{name: _plain(value) for name, value in asdict(line).items()} for line in self.lines]
        return {"a": self.a, "b": self.b, "level": self.level, "rows": lines, "notes": self.notes()}


def compare(
    cells: EvidenceGrid,
    a: str,
    b: str,
    ratios: Sequence[float],
    metrics: Sequence[str] = INFLUENCED,
    level: float = 0.95,
) -> Comparison:
    """Compare two rows at each ratio and, from two ratios on, averaged over them.

    Args:
        a, b: row labels.
        metrics: of `evidence.INFLUENCED`.

    Raises:
        UserError: a row is unknown, or is compared with itself.
    """
    check({label for label, _ in cells}, a, b)
    columns = {f"{ratio:g}": [ratio] for ratio in sorted(ratios)}
    if len(ratios) > 1:
        columns[average_name(ratios)] = sorted(ratios)
    lines = [_row(cells, a, b, metric, name, of, level) for metric in metrics for name, of in columns.items()]
    compared = [place for place, line in enumerate(lines) if not math.isnan(line.p_value)]
    adjusted = intervals.holm([lines[place].p_value for place in compared])
    for place, p_adjusted in zip(compared, adjusted, strict=True):
        found = replace(lines[place], p_adjusted=float(p_adjusted))
        lines[place] = replace(found, verdict=_verdict(found, a, b, level))
    return Comparison(a, b, level, lines)


def check(labels: Collection[str], a: str, b: str) -> None:
    """Whether there are records to compare.

    Args:
        labels: of all rows that there are.

    Raises:
        UserError: one of the two is not among them, or they are the same.
    """
    for label in (a, b):
        if label not in labels:
            close = difflib.get_close_matches(label, labels, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(f"no records of {label!r}; {hint}there are: {', '.join(sorted(labels)) or 'none'}")
    if a == b:
        raise UserError(f"{a!r} is to be compared with itself; name two rows")


def _row(cells: EvidenceGrid, a: str, b: str, metric: str, name: str, ratios: Sequence[float], level: float) -> Row:
    seeds = pairing.common_seeds(cells, (a, b), ratios, metric)
    left_out = tuple(pairing.left_out(cells, (a, b), ratios, metric))
    nan = math.nan
    if not seeds:
        why = pairing.why_none_common(cells, (a, b), ratios, metric)
        return Row(metric, name, nan, nan, nan, nan, nan, nan, nan, 0, left_out, f"{NONE_COMMON}: {why}", "")
    of_a, of_b = (pairing.measured(cells, label, ratios, metric, seeds) for label in (a, b))
    found = intervals.paired(of_a, of_b, level)
    return Row(
        metric=metric,
        known_ratio=name,
        mean_a=float(np.mean(of_a.estimates_S)),  # type: ignore[arg-type]
        mean_b=float(np.mean(of_b.estimates_S)),  # type: ignore[arg-type]
        difference=found.mean,
        low=found.low,
        high=found.high,
        p_value=found.p_value,
        p_adjusted=nan,
        seeds=len(seeds),
        left_out=left_out,
        verdict="",
        caution=_caution(found.caution, [mask_seed for _, mask_seed in seeds]),
    )


def _caution(of_interval: str, mask_seeds: Sequence[int]) -> str:
    one_mask = len(mask_seeds) > 1 and len(set(mask_seeds)) == 1
    return "; ".join(filter(None, [of_interval, pairing.ONE_MASK if one_mask else ""]))


def _verdict(row: Row, a: str, b: str, level: float) -> str:
    if row.p_adjusted > 1 - level or not row.difference:
        return NO_DIFFERENCE
    return f"{a if row.difference > 0 else b} is better" + (" (these trained models)" if row.seeds == 1 else "")


def _text(row: Row) -> list[str]:
    return [
        row.metric,
        row.known_ratio,
        *("-" if math.isnan(mean) else f"{mean:.1f}" for mean in (row.mean_a, row.mean_b)),
        pairing.difference_text(row.difference, row.low, row.high),
        pairing.p_text(row.p_value),
        pairing.p_text(row.p_adjusted),
        str(row.seeds),
        row.verdict,
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return list(value) if isinstance(value, tuple) else value
