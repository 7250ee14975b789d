"""Measures differences between two rows of a table, and judges them: holds, does not hold, or cannot tell yet.

`comparison` and the papers' claims both rest on this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mlrpl_bench.evaluation import intervals
from mlrpl_bench.evaluation.intervals import Difference, Measured
from mlrpl_bench.evaluation.power import MOST, images_alone_cannot_tell, more_seeds
from mlrpl_bench.leaderboard import numbers, pairing
from mlrpl_bench.leaderboard.evidence import EvidenceGrid, Seeds
from mlrpl_bench.leaderboard.measurements import average_name
from mlrpl_bench.utils.arrays import plain

HOLDS, DOES_NOT_HOLD, CANNOT_TELL = "holds", "does not hold", "cannot tell"
MORE, LESS, EQUAL = "more", "less", "equal"


@dataclass(frozen=True)
class Part:
    """This is a difference to measure: row a less row b, averaged over some known ratios, and what is expected of it.

    Attributes:
        a: the label of the first row.
        b: the label of the second row.
        metric: a key of `numbers.METRICS`: one with influences, or the loss fluctuation.
        ratios: the known ratios that are averaged.
        expects: `MORE` than 0, `LESS`, or about `EQUAL`.
        less_at: if there are any, the same difference at these ratios is taken off.
        counts: whether the claim's verdict depends on it; a control stands beside.
    """

    a: str
    b: str
    metric: str
    ratios: tuple[float, ...]
    expects: str = MORE
    less_at: tuple[float, ...] = ()
    counts: bool = True

    @property
    def known_ratio(self) -> str:
        """Return ``0.1`` for one, else as averages are called."""
        return f"{self.ratios[0]:g}" if len(self.ratios) == 1 else average_name(self.ratios)

    @property
    def what(self) -> str:
        """Return the part in words for people: ``sarb - kggr, mAP, 10 % less 90 %``."""
        at = pairing.percents(self.ratios) if len(self.ratios) == 1 else self.known_ratio
        less_at = f" less {pairing.percents(self.less_at)}" if self.less_at else ""
        return f"{self.a} - {self.b}, {self.metric.replace('_', ' ')}, {at}{less_at}"


@dataclass(frozen=True)
class Finding:
    """A finding says what the cells at hand tell about a part.

    Attributes:
        part: the difference that was measured.
        mean_a: of row a over the common seeds, in the unit of the metric; NaN without common seeds.
        mean_b: of row b.
        difference: in percent points, or in the unit of the loss; NaN without common seeds.
        low: the lower end of the interval; NaN where there is none.
        high: the upper end.
        level: of the interval: 0.9 for equality, which two one-sided tests at 0.05 decide.
        p_value: of no difference; for equality of being outside the margin.
        p_adjusted: Holm's, over the parts that were measured together.
        seeds: those that both rows have.
        unpaired_seeds: a line for each of the others, with what it lacks.
        caution: what the interval does not allow to conclude.
        answer: `HOLDS`, `DOES_NOT_HOLD` or `CANNOT_TELL`.
        more_seeds: about how many more would tell; infinity where none would, NaN where that is no question.
        why: what it would take, for what cannot be told; else that the difference is small, if it is.
    """

    part: Part
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    level: float
    p_value: float
    p_adjusted: float
    seeds: tuple[Seeds, ...]
    unpaired_seeds: tuple[str, ...]
    caution: str
    answer: str
    more_seeds: float
    why: str

    @property
    def verdict(self) -> str:
        """Return the answer, with what it would take."""
        if self.answer != CANNOT_TELL:
            return f"{self.answer} ({self.why})" if self.why else self.answer
        return f"cannot tell yet ({self.why})" if math.isfinite(self.more_seeds) else f"cannot tell: {self.why}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data; None for what there is not, ``inf`` seeds as text."""
        found = {name: value for name, value in asdict(self).items() if name not in ("mean_a", "mean_b", "caution")}
        found["left_out"] = found.pop("unpaired_seeds")
        if math.isinf(self.more_seeds):
            found["more_seeds"] = "inf"
        order = ("part", "difference", "low", "high", "level", "p_value", "p_adjusted", "seeds", "left_out", "answer")
        return plain({name: found[name] for name in (*order, "more_seeds", "why")} | {"verdict": self.verdict})


class _Measurement(NamedTuple):
    """The difference that a part is about, with both rows' means, over the seeds that both have."""

    seeds: tuple[Seeds, ...]
    mean_a: float
    mean_b: float
    difference: Difference


def find(cells: EvidenceGrid, parts: Sequence[Part], level: float, margin: float) -> list[Finding]:
    """Measure differences between rows, and judge what was expected of them.

    The p-values of those that expect more or less and count are adjusted for each other (Holm); equality and controls
    stand alone.

    Args:
        cells: the evidence of the rows.
        parts: the differences.
        level: of the intervals and verdicts, in (0, 1).
        margin: what counts as about equal, in percent points.

    Returns:
        One finding for each part, in their order.
    """
    measured = [_measure(cells, part, level, margin) for part in parts]
    p_values = {place: one.difference.p_value for place, one in enumerate(measured) if one is not None}
    family = {place: p for place, p in p_values.items() if parts[place].counts and parts[place].expects != EQUAL}
    adjusted = p_values | intervals.holm_by_name(family)
    size = sum(not math.isnan(p_value) for p_value in family.values())
    return [
        _missing(cells, part, level)
        if one is None
        else _finding(cells, part, one, adjusted[place], size if place in family else 1, margin)
        for place, (part, one) in enumerate(zip(parts, measured, strict=True))
    ]


def _unpaired_seeds(cells: EvidenceGrid, part: Part) -> tuple[str, ...]:
    return tuple(pairing.unpaired_seeds(cells, (part.a, part.b), part.ratios + part.less_at, part.metric))


def _missing(cells: EvidenceGrid, part: Part, level: float) -> Finding:
    nan = math.nan
    return Finding(
        part=part,
        **dict.fromkeys(("mean_a", "mean_b", "difference", "low", "high", "p_value", "p_adjusted", "more_seeds"), nan),
        level=level,
        seeds=(),
        unpaired_seeds=_unpaired_seeds(cells, part),
        caution="",
        answer=CANNOT_TELL,
        why=pairing.why_none_common(cells, (part.a, part.b), part.ratios + part.less_at, part.metric),
    )


def _measure(cells: EvidenceGrid, part: Part, level: float, margin: float) -> _Measurement | None:
    """Measure the difference over the common seeds; None if there are none."""
    seeds = pairing.common_seeds(cells, (part.a, part.b), part.ratios + part.less_at, part.metric)
    if not seeds:
        return None
    row_a, row_b = (pairing.by_seeds(cells, label, part.ratios, seeds) for label in (part.a, part.b))
    if part.metric == numbers.FLUCTUATION:
        a_S, b_S = (pairing.values(row, numbers.METRICS[part.metric]) for row in (row_a, row_b))
        difference = pairing.paired_over_seeds(a_S - b_S, level)
        return _Measurement(tuple(seeds), float(a_S.mean()), float(b_S.mean()), difference)
    a, b = (pairing.measured(row, part.metric) for row in (row_a, row_b))
    if part.less_at:
        less_a, less_b = (pairing.by_seeds(cells, label, part.less_at, seeds) for label in (part.a, part.b))
        c, d = (pairing.measured(row, part.metric) for row in (less_a, less_b))
        a, b = pairing.less(a, b), pairing.less(c, d)
    equality = part.expects == EQUAL
    difference = _equality(a, b, 1 - 2 * (1 - level), margin) if equality else intervals.paired(a, b, level)
    return _Measurement(tuple(seeds), float(a.estimates_S.mean()), float(b.estimates_S.mean()), difference)


def _equality(a: Measured, b: Measured, level: float, margin: float) -> Difference:
    """Return the interval of two one-sided tests of being at least a margin apart, and the larger of their p-values."""
    one_sided = []
    for sign in (1, -1):  # not below -margin, not above +margin
        moved = Measured(b.influences_SN, np.asarray(b.estimates_S) - sign * margin)
        found = intervals.paired(a, moved, level)
        one_sided.append(found.p_value / 2 if sign * found.mean > 0 else 1 - found.p_value / 2)
    return replace(intervals.paired(a, b, level), p_value=max(one_sided))


def _finding(
    cells: EvidenceGrid, part: Part, measured: _Measurement, p_adjusted: float, family: int, margin: float
) -> Finding:
    difference = measured.difference
    answer, more, why = _answer(part, difference, p_adjusted, family, margin)
    return Finding(
        part=part,
        mean_a=measured.mean_a,
        mean_b=measured.mean_b,
        difference=difference.mean,
        low=difference.low,
        high=difference.high,
        level=difference.level,
        p_value=difference.p_value,
        p_adjusted=p_adjusted,
        seeds=measured.seeds,
        unpaired_seeds=_unpaired_seeds(cells, part),
        caution=difference.caution,
        answer=answer,
        more_seeds=more,
        why=why,
    )


def _answer(
    part: Part, difference: Difference, p_adjusted: float, family: int, margin: float
) -> tuple[str, float, str]:
    """Return the answer, how many more seeds would give one (where there is none), and that in words."""
    if difference.seeds == 1:
        return CANNOT_TELL, 2, "needs at least 2 more seeds"
    alpha = 1 - difference.level
    if part.expects == EQUAL:
        # The interval decides, as two one-sided tests do.
        if -margin < difference.low and difference.high < margin:
            return HOLDS, math.nan, ""
        if difference.low > margin or difference.high < -margin:
            return DOES_NOT_HOLD, math.nan, ""
        distance = abs(margin - abs(difference.mean))
    else:
        if p_adjusted <= alpha and difference.mean:
            expected = (difference.mean > 0) == (part.expects == MORE)
            small = part.metric != numbers.FLUCTUATION and max(-difference.low, difference.high) < margin
            return (HOLDS if expected else DOES_NOT_HOLD), math.nan, f"by under {_points(margin)}" if small else ""
        distance, alpha = abs(difference.mean), alpha / family
    spread = difference.seeds_error * math.sqrt(difference.seeds)
    more = more_seeds(distance, difference.images_error, spread, difference.seeds, alpha)
    return CANNOT_TELL, more, _what_it_takes(more, distance, difference.images_error, alpha)


def _points(margin: float) -> str:
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def _what_it_takes(more: float, distance: float, images_error: float, alpha: float) -> str:
    from scipy.stats import norm

    if math.isfinite(more):
        return f"needs about {more} more seed{'s' if more > 1 else ''}"
    if images_alone_cannot_tell(distance, images_error, alpha):
        return f"more seeds will not tell: the test images' error alone is ±{norm.isf(alpha / 2) * images_error:.2f}"
    return f"more than {MOST} more seeds"
