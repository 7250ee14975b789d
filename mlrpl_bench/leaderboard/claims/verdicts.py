"""What the cells at hand say about one difference: holds, does not hold, or cannot tell yet, and what it would take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlrpl_bench.evaluation import intervals
from mlrpl_bench.evaluation.intervals import Difference, Measured
from mlrpl_bench.evaluation.power import MOST, images_alone_cannot_tell, more_seeds
from mlrpl_bench.leaderboard import pairing
from mlrpl_bench.leaderboard.evidence import EvidenceGrid, Seeds
from mlrpl_bench.leaderboard.measurements import average_name

HOLDS, DOES_NOT_HOLD, CANNOT_TELL = "holds", "does not hold", "cannot tell"
MORE, LESS, EQUAL = "more", "less", "equal"


@dataclass(frozen=True)
class Part:
    """What a claim says of row a less row b, averaged over some ratios.

    Attributes:
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
        """``0.1`` for one, else as averages are called."""
        return f"{self.ratios[0]:g}" if len(self.ratios) == 1 else average_name(self.ratios)

    @property
    def what(self) -> str:
        """For people: ``sarb - kggr, mAP, 10 % less 90 %``."""
        at = pairing.percents(self.ratios) if len(self.ratios) == 1 else self.known_ratio
        less_at = f" less {pairing.percents(self.less_at)}" if self.less_at else ""
        return f"{self.a} - {self.b}, {self.metric.replace('_', ' ')}, {at}{less_at}"


@dataclass(frozen=True)
class Finding:
    """A part of a claim, measured.

    Attributes:
        difference, low, high: percent points, or in the unit of the loss; NaN where there is none.
        level: of the interval: 0.9 for equality, which two one-sided tests at 0.05 decide.
        p_value: of no difference; for equality of being outside the margin. p_adjusted: Holm's.
        seeds: how many both rows have. left_out: the others.
        more_seeds: about how many more would tell; infinity where none would, NaN where that is no question.
        why: what it would take, for what cannot be told; else that the difference is small, if it is.
    """

    part: Part
    difference: float
    low: float
    high: float
    level: float
    p_value: float
    p_adjusted: float
    seeds: tuple[Seeds, ...]
    left_out: tuple[str, ...]
    answer: str
    more_seeds: float
    why: str

    @property
    def verdict(self) -> str:
        """The answer, with what it would take."""
        if self.answer != CANNOT_TELL:
            return f"{self.answer} ({self.why})" if self.why else self.answer
        return f"cannot tell yet ({self.why})" if math.isfinite(self.more_seeds) else f"cannot tell: {self.why}"


def find(cells: EvidenceGrid, parts: Sequence[Part], level: float, margin: float) -> list[Finding]:
    """Measure the parts of claims.

    The p-values of those that expect more or less and count are adjusted for each other (Holm); equality and controls
    stand alone.

    Args:
        level: of the intervals and verdicts. margin: what counts as about equal, in points.
    """
    differences = [_difference(cells, part, level, margin) for part in parts]
    family = [
        place
        for place, (part, difference) in enumerate(zip(parts, differences, strict=True))
        if part.counts and part.expects != EQUAL and difference is not None and not math.isnan(difference.p_value)
    ]
    p_values = {place: one.p_value for place, one in enumerate(differences) if one is not None}
    adjusted = intervals.holm([p_values[place] for place in family])
    p_values |= dict(zip(family, map(float, adjusted), strict=True))
    return [
        _missing(cells, part, level)
        if difference is None
        else _finding(cells, part, difference, p_values[place], len(family) if place in family else 1, margin)
        for place, (part, difference) in enumerate(zip(parts, differences, strict=True))
    ]


def _seeds(cells: EvidenceGrid, part: Part) -> list[Seeds]:
    return pairing.common_seeds(cells, (part.a, part.b), part.ratios + part.less_at, part.metric)


def _left_out(cells: EvidenceGrid, part: Part) -> tuple[str, ...]:
    return tuple(pairing.left_out(cells, (part.a, part.b), part.ratios + part.less_at, part.metric))


def _missing(cells: EvidenceGrid, part: Part, level: float) -> Finding:
    nan = math.nan
    why = pairing.why_none_common(cells, (part.a, part.b), part.ratios + part.less_at, part.metric)
    return Finding(part, nan, nan, nan, level, nan, nan, (), _left_out(cells, part), CANNOT_TELL, nan, why)


def _difference(cells: EvidenceGrid, part: Part, level: float, margin: float) -> Difference | None:
    """The difference over the common seeds; None if there are none."""
    seeds = _seeds(cells, part)
    if not seeds:
        return None
    if part.metric == pairing.FLUCTUATION:
        a_S, b_S = (pairing.numbers(cells, label, part.ratios, part.metric, seeds) for label in (part.a, part.b))
        return pairing.paired_over_seeds(a_S - b_S, level)
    a, b = (pairing.measured(cells, label, part.ratios, part.metric, seeds) for label in (part.a, part.b))
    if part.less_at:
        c, d = (pairing.measured(cells, label, part.less_at, part.metric, seeds) for label in (part.a, part.b))
        a, b = pairing.less(a, b), pairing.less(c, d)
    if part.expects == EQUAL:
        return _equality(a, b, 1 - 2 * (1 - level), margin)
    return intervals.paired(a, b, level)


def _equality(a: Measured, b: Measured, level: float, margin: float) -> Difference:
    """The interval of two one-sided tests of being at least a margin apart, and the larger of their p-values."""
    one_sided = []
    for sign in (1, -1):  # not below -margin, not above +margin
        moved = Measured(b.influences_SN, np.asarray(b.estimates_S) - sign * margin)
        found = intervals.paired(a, moved, level)
        one_sided.append(found.p_value / 2 if sign * found.mean > 0 else 1 - found.p_value / 2)
    return replace(intervals.paired(a, b, level), p_value=max(one_sided))


def _finding(
    cells: EvidenceGrid, part: Part, difference: Difference, p_adjusted: float, family: int, margin: float
) -> Finding:
    answer, more, why = _answer(part, difference, p_adjusted, family, margin)
    return Finding(
        part=part,
        difference=difference.mean,
        low=difference.low,
        high=difference.high,
        level=difference.level,
        p_value=difference.p_value,
        p_adjusted=p_adjusted,
        seeds=tuple(_seeds(cells, part)),
        left_out=_left_out(cells, part),
        answer=answer,
        more_seeds=more,
        why=why,
    )


def _answer(
    part: Part, difference: Difference, p_adjusted: float, family: int, margin: float
) -> tuple[str, float, str]:
    """The answer; where there is none, how many more seeds there would be one with, and that in words."""
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
            small = part.metric != pairing.FLUCTUATION and max(-difference.low, difference.high) < margin
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
