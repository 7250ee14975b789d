"""Judges whether what the papers claim holds in the records at hand.

The claims and their published differences are in ``facts/claims.csv``, how each is tested in
``facts/claim_tests.csv``: whether row a is expected to be more or less than row b, over which ratios, to which row it
should be about equal besides, and which control stands beside it. ``X+cft`` is a row of method X with a finishing step,
``X+held`` its base with the same images held out for the step's choices. A row that nothing was trained for, or that no
file registers, leaves its claim open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.evaluation.intervals import TWO_SEEDS
from mlrpl_bench.leaderboard import numbers, pairing, verdicts
from mlrpl_bench.leaderboard.claims import heads
from mlrpl_bench.leaderboard.claims.published import AVERAGE, facts
from mlrpl_bench.leaderboard.evidence import EvidenceGrid
from mlrpl_bench.leaderboard.verdicts import CANNOT_TELL, DOES_NOT_HOLD, EQUAL, HOLDS, MORE, Finding, Part
from mlrpl_bench.utils.tables import Table, escape_markdown, from_text, pipe_table

MARGIN = 1.0
"""Percent points within which two rows are about equal."""

EVERY_RATIO, AVERAGE_RATIO, FIRST_LESS_LAST = "every ratio", "average", "first less last ratio"
HEADER = ("claim", "compared", "published", "measured", "seeds", "p", "verdict")


@dataclass(frozen=True)
class Claim:
    """This is a paper's statement about two rows.

    Attributes:
        name: identifies the claim in the two files of facts.
        statement: the claim in a sentence.
        a: the label of the first row.
        b: the label of the second row.
        metric: a key of `numbers.METRICS`.
        published: the difference a less b by known ratio and data set, percent points; only where there is one.
        source: the paper.
        expects: `MORE` or `LESS`, of row a beside row b.
        over: the known ratios that it is tested over: `EVERY_RATIO`, `AVERAGE_RATIO` or `FIRST_LESS_LAST`.
        equal_to: the row that row a should be about equal to besides; empty without one.
        control: the row that stands beside row b without a part in the verdict; empty without one.
        control_is: what the control is, in words.
    """

    name: str
    statement: str
    a: str
    b: str
    metric: str
    published: Mapping[str, Mapping[str, float]]
    source: str
    expects: str
    over: str
    equal_to: str
    control: str
    control_is: str

    def parts(self, ratios: Sequence[float]) -> list[Part]:
        """List the differences that the claim is about, where these ratios are looked at."""
        ratios = tuple(sorted(ratios))
        if self.over == FIRST_LESS_LAST:
            first, last = sorted(float(ratio) for ratio in self.published if ratio != AVERAGE)
            return [Part(self.a, self.b, self.metric, (first,), self.expects, less_at=(last,))]
        average = Part(self.a, self.b, self.metric, ratios, self.expects)
        parts = [average]
        if self.over == EVERY_RATIO and len(ratios) > 1:
            parts += [Part(self.a, self.b, self.metric, (ratio,), self.expects) for ratio in ratios]
        if self.equal_to:
            parts.append(Part(self.a, self.equal_to, self.metric, ratios, EQUAL))
        if self.control:
            parts.append(Part(self.a, self.control, self.metric, ratios, MORE, counts=False))
        return parts

    def published_for(self, part: Part) -> dict[str, float]:
        """Find the published difference of a part by data set; there is none for other rows, as controls are."""
        if (part.a, part.b) != (self.a, self.b):
            return {}
        if part.less_at:
            first, last = (self.published[f"{ratios[0]:g}"] for ratios in (part.ratios, part.less_at))
            return {name: first[name] - last[name] for name in first if name in last}
        single = len(part.ratios) == 1
        return dict(self.published.get(f"{part.ratios[0]:g}" if single else AVERAGE, {}))


@dataclass(frozen=True)
class Verdict:
    """This is the records' answer to a claim.

    Attributes:
        claim: the claim.
        findings: one for each of its parts.
        answer: `HOLDS`, `DOES_NOT_HOLD` or `CANNOT_TELL`.
        verdict: the answer in words, with what it would take.
    """

    claim: Claim
    findings: list[Finding]
    answer: str
    verdict: str


@dataclass(frozen=True)
class Claims:
    """These are all claims judged on one data set.

    Attributes:
        dataset: the name of the data set.
        ratios: the known ratios, in ascending order.
        level: of the intervals and verdicts, in (0, 1).
        margin: percent points within which rows are about equal.
        verdicts: one for each claim.
        heads: every head under every training.
    """

    dataset: str
    ratios: tuple[float, ...]
    level: float
    margin: float
    verdicts: list[Verdict]
    heads: heads.Heads

    def measured(self) -> Claims:
        """Keep only the claims about which something was measured."""
        there = [one for one in self.verdicts if any(not math.isnan(f.difference) for f in one.findings)]
        return replace(self, verdicts=there)

    def rows(self) -> list[list[str]]:
        """Word the claims under `HEADER`: one of several parts has a row for itself, then one for each part."""
        return [row for verdict in self.verdicts for row in self._rows_of(verdict)]

    def _rows_of(self, verdict: Verdict) -> list[list[str]]:
        claim, counting = verdict.claim, [finding for finding in verdict.findings if finding.part.counts]
        rows = [self._row(claim, finding) for finding in verdict.findings]
        if len(counting) > 1:
            return [[claim.statement, "", "", "", "", "", verdict.verdict], *rows]
        return [[claim.statement, *rows[0][1:]], *rows[1:]]

    def _row(self, claim: Claim, finding: Finding) -> list[str]:
        part = finding.part
        decimals = 4 if part.metric == numbers.FLUCTUATION else 2
        measured = pairing.difference_text(finding.difference, finding.low, finding.high, decimals)
        what = f"{'' if part.counts else 'beside: '}{part.what}{', about equal' if part.expects == EQUAL else ''}"
        published = self._published(claim.published_for(part), len(part.ratios) == 1)
        seeds = str(len(finding.seeds)) if finding.seeds else "-"
        return ["", what, published, measured, seeds, pairing.p_text(finding.p_adjusted), finding.verdict]

    def _published(self, by_dataset: Mapping[str, float], one_ratio: bool) -> str:
        """Return the published number alone if it is of the same data set and ratios, else those there are, by name."""
        if self.dataset in by_dataset and (one_ratio or self.ratios == NINE_RATIOS):
            return f"{by_dataset[self.dataset]:+.1f}"
        return ", ".join(f"{name} {difference:+.1f}" for name, difference in by_dataset.items()) or "-"

    def notes(self) -> list[str]:
        """Say what to know when reading the rows."""
        findings = [finding for verdict in self.verdicts for finding in verdict.findings]
        masks = {mask_seed for finding in findings for _, mask_seed in finding.seeds}
        seeds = {len(finding.seeds) for finding in findings if finding.seeds}
        sources = "; ".join(sorted({verdict.claim.source for verdict in self.verdicts}))
        notes = [
            f"claims and published differences: {sources}",
            f"measured: a - b in percent points (loss: in its own unit) with {100 * self.level:g} % interval over "
            "seeds and test images, paired; the loss over seeds alone. p is corrected over all claims (Holm)",
            f"about equal: the {100 * (2 * self.level - 1):g} % interval, which is shown, lies within "
            f"±{self.margin:g} points; p is of two one-sided tests",
            *self._about_controls(),
            "a verdict follows p, which is corrected, and not the interval, which is not; needs about N more seeds: "
            "until p allows one in 80 % of repetitions, if difference and spread stay what they are; from few seeds a "
            "rough guess",
        ]
        if len(self.ratios) > 1 and (self.ratios != NINE_RATIOS or self.dataset not in _datasets(self.verdicts)):
            notes.append("published differences with a data set's name are of other data or ratios: for reference only")
        notes += [TWO_SEEDS] if 2 in seeds else []
        notes += [pairing.ONE_MASK] if len(masks) == 1 and max(seeds, default=0) > 1 else []
        # Where no seed is common the verdict says what is missing.
        measured = [finding for finding in findings if finding.part.counts and finding.seeds]
        notes += [f"left out, {line}" for finding in measured for line in finding.unpaired_seeds]
        return list(dict.fromkeys(notes))

    def _about_controls(self) -> list[str]:
        """Say what the rows are that stand beside, a line for those of one kind."""
        by_words: dict[str, list[str]] = {}
        for claim in (verdict.claim for verdict in self.verdicts):
            if claim.control:
                by_words.setdefault(claim.control_is, []).append(claim.control)
        return [
            f"beside {', '.join(dict.fromkeys(names))}: a control, {words}; no part of the verdict"
            for words, names in by_words.items()
        ]

    @property
    def title(self) -> str:
        """Return ``The papers' claims on scenes``."""
        return f"The papers' claims on {self.dataset}"

    def table(self, title: str = "") -> Table:
        """Return the claims as a table with its notes.

        Args:
            title: above the table; `title` unless another one is given.
        """
        return from_text("claims", title or self.title, HEADER, self.rows(), self.notes(), wraps=True, repeated=1)

    def to_markdown(self) -> str:
        """Write a pipe table with title and notes, and that of heads and trainings below it."""
        rows = [[escape_markdown(cell) for cell in row] for row in self.rows()]
        table = pipe_table(HEADER, rows, [True] * len(HEADER))
        notes = "\n".join(f"- {escape_markdown(note)}" for note in self.notes())
        return f"# {self.title}\n\n{table}\n\n{notes}\n\n{self.heads.table().markdown(2)}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data, see `Finding.to_json`."""
        claims = [
            {
                "claim": verdict.claim.name,
                "statement": verdict.claim.statement,
                "published": verdict.claim.published,
                "answer": verdict.answer,
                "verdict": verdict.verdict,
                "findings": [finding.to_json() for finding in verdict.findings],
            }
            for verdict in self.verdicts
        ]
        setting = {"dataset": self.dataset, "ratios": list(self.ratios), "level": self.level, "margin": self.margin}
        return {**setting, "claims": claims, "notes": self.notes(), "head_and_training": self.heads.to_json()}


def load() -> list[Claim]:
    """Load the claims of the papers, in the file's order."""
    rows = facts("claims.csv")
    tests = {row.pop("claim"): row for row in facts("claim_tests.csv")}
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_name.setdefault(row["claim"], []).append(row)
    return [_claim(claim_rows[0], rows, tests[name]) for name, claim_rows in by_name.items()]


def rows_needed() -> set[str]:
    """List the rows that claims speak of, controls included, and those of the table of heads and trainings."""
    of_claims = {row for claim in load() for row in (claim.a, claim.b, claim.equal_to, claim.control) if row}
    return of_claims | heads.rows_needed()


def judge(
    cells: EvidenceGrid, dataset: str, ratios: Sequence[float], level: float = 0.95, margin: float = MARGIN
) -> Claims:
    """Judge every claim by the cells of one data set.

    Args:
        cells: the evidence of the rows, see `rows_needed`.
        dataset: the name of the data set.
        level: of the intervals and verdicts, in (0, 1).
        ratios: those that "every" and "average" mean.
        margin: percent points within which rows are about equal.
    """
    claims = load()
    found = iter(verdicts.find(cells, [part for claim in claims for part in claim.parts(ratios)], level, margin))
    judged = []
    for claim in claims:
        findings = [next(found) for _ in claim.parts(ratios)]
        judged.append(Verdict(claim, findings, *_together([one for one in findings if one.part.counts])))
    beside = heads.compare(cells, dataset, ratios, level)
    return Claims(dataset, tuple(sorted(ratios)), level, margin, judged, beside)


def _together(findings: Sequence[Finding]) -> tuple[str, str]:
    """Return the verdict of parts that must all hold: one that does not decides, then the hardest to tell."""
    if len(findings) == 1:
        return findings[0].answer, findings[0].verdict
    answers = {finding.answer for finding in findings}
    if DOES_NOT_HOLD in answers:
        return DOES_NOT_HOLD, DOES_NOT_HOLD
    if answers == {HOLDS}:
        return HOLDS, HOLDS
    open_ones = [finding for finding in findings if finding.answer == CANNOT_TELL]
    hardest = max(open_ones, key=lambda one: (math.isnan(one.more_seeds), one.more_seeds))
    return CANNOT_TELL, hardest.verdict


def _claim(first: Mapping[str, str], rows: Sequence[Mapping[str, str]], test: Mapping[str, str]) -> Claim:
    """Make a claim from its first row; what any claim's rows say of the same difference is published for it."""
    names = ("method_a", "method_b", "metric")
    published: dict[str, dict[str, float]] = {}
    for row in rows:
        if all(row[name] == first[name] for name in names) and row["published_difference"]:
            published.setdefault(row["known_ratio"], {})[row["dataset"]] = float(row["published_difference"])
    return Claim(
        name=first["claim"],
        statement=first["statement"],
        a=first["method_a"],
        b=first["method_b"],
        metric=first["metric"],
        published=published,
        source=first["source"],
        expects=test["expects"],
        over=test["over"],
        equal_to=test["equal_to"],
        control=test["control"],
        control_is=test["control_is"],
    )


def _datasets(verdicts: Sequence[Verdict]) -> set[str]:
    return {name for verdict in verdicts for by_dataset in verdict.claim.published.values() for name in by_dataset}
