"""Evidence in, leaderboard out. Pure: the same records give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from mlrpl_bench.leaderboard.evidence import Evidence, EvidenceGrid
from mlrpl_bench.leaderboard.measurements import Lookup, average_name, measure
from mlrpl_bench.leaderboard.selection import Holes
from mlrpl_bench.leaderboard.tables import extra
from mlrpl_bench.leaderboard.tables.given_labels import GivenLabels
from mlrpl_bench.utils.tables import NOT_DISTINGUISHED, Entry, Table

AVERAGED = ("mAP", "OF1", "CF1")

VALIDATION = ": for tuning, not to be set beside test numbers"


class Context(NamedTuple):
    """What a leaderboard says around its numbers.

    Attributes:
        differs: by method, how it differs from its paper.
        deviations: how the setting differs from the papers'.
        lines: rows on top that have the same number in every column, and what they are, in words.
        categories: names of the categories.
        left_out: lines about records that are not in the tables.
        given: how many labels were given.
    """

    differs: Mapping[str, str] = {}
    deviations: Sequence[str] = ()
    lines: Mapping[str, str] = {}
    categories: Sequence[str] = ()
    left_out: Sequence[str] = ()
    given: GivenLabels = GivenLabels()


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """The tables of a dataset under one setting.

    Attributes:
        measurements: everything that the tables show and more, see `measurements.measure`.
        main: one row a method, one column a known ratio, then averages over the ratios; percent.
        others: secondary tables.
        notes: footnotes of the main table, in order.
        cells: the evidence behind, by row label and known ratio.
        labels, ratios: the rows in order, the known ratios in ascending order.
        context: see `Context`.
    """

    measurements: pd.DataFrame
    main: Table
    others: Sequence[Table]
    cells: EvidenceGrid
    labels: Sequence[str]
    ratios: Sequence[float]
    context: Context

    @property
    def title(self) -> str:
        """``Leaderboard of scenes``."""
        return self.main.title

    @property
    def notes(self) -> tuple[str, ...]:
        """Footnotes of the main table."""
        return self.main.notes

    def with_tables(self, tables: Sequence[Table]) -> Leaderboard:
        """The same with more secondary tables."""
        return replace(self, others=[*self.others, *tables])

    def to_csv(self) -> str:
        """The main table: means and, where there are several seeds, deviations; two decimals."""
        wide: dict[str, list[float]] = {}
        found = Lookup(self.measurements)
        for title, known_ratio, metric in main_columns(self.ratios, self.context.given):
            rows = [found.row(label, known_ratio, metric) for label in self.labels]
            wide[title] = [row.mean for row in rows]
            if any(row.n > 1 for row in rows):
                wide[f"{title} std"] = [row.std for row in rows]
            if title.startswith("mAP (avg"):
                wide |= {f"{title} low": [row.low for row in rows], f"{title} high": [row.high for row in rows]}
        table = pd.DataFrame(wide, index=pd.Index(self.labels, name="method"))
        return table.to_csv(float_format="%.2f", lineterminator="\n")

    def tidy_csv(self) -> str:
        """The measurements: one row a method, known ratio and metric; four significant digits or more."""
        return self.measurements.to_csv(index=False, float_format="%.6g", lineterminator="\n")

    def to_markdown(self) -> str:
        """All tables with titles and footnotes."""
        return "\n".join([self.main.markdown(1), *(table.markdown(2) for table in self.others)])

    def to_latex(self) -> str:
        """All tables, for ``\\input`` where booktabs is loaded."""
        return "% needs \\usepackage{booktabs}\n" + "\n".join(t.latex() for t in (self.main, *self.others))

    def to_json(self) -> dict[str, Any]:
        """The main table as plain data; None where there is no number."""
        found = Lookup(self.measurements)
        rows = {
            label: {
                title: _facts(found.row(label, known_ratio, metric))
                for title, known_ratio, metric in main_columns(self.ratios, self.context.given)
            }
            for label in self.labels
        }
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}

    def print(self) -> None:
        """The main table, to standard output."""
        self.main.print()


def build(
    cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], context: Context, holes: Holes
) -> Leaderboard:
    """The leaderboard of evidence of one setting.

    Args:
        labels: rows that were asked for, which are shown even if nothing is known of them; others that have cells
            stand beside.
        ratios: the columns.
        holes: why cells are missing.
    """
    ratios = sorted(ratios)
    labels = [label for label in dict.fromkeys([*sorted(labels), *sorted(label for label, _ in cells)])]
    shown = [label for label in labels if any((label, ratio) in cells or (label, ratio) in holes for ratio in ratios)]
    frame = measure(cells, shown, ratios, context.categories, unmarked=context.lines, holes=holes)
    found = Lookup(frame)
    order = _from_weak_to_strong(shown, found, ratios, context.lines)
    rank = {label: place for place, label in enumerate(order)}
    frame = frame.sort_values("method", key=lambda names: names.map(rank), kind="stable", ignore_index=True)
    main = _main_table(order, ratios, found, cells, context, holes)
    others = extra.tables(order, ratios, found, cells, context.categories, context.lines, context.given)
    return Leaderboard(frame, main, others, cells, order, ratios, context)


def main_columns(ratios: Sequence[float], given: GivenLabels) -> list[tuple[str, str, str]]:
    """Title, known ratio and metric of each column of the main table."""
    average = average_name(ratios)
    columns = [(given.ratio_title(ratio), f"{ratio:g}", "mAP") for ratio in ratios]
    return columns + [(f"{metric} ({average})", average, metric) for metric in AVERAGED]


def _main_table(
    labels: Sequence[str], ratios: Sequence[float], found: Lookup, cells: EvidenceGrid, context: Context, holes: Holes
) -> Table:
    records = [evidence for by_seed in cells.values() for evidence in by_seed.values()]
    most = max((len(by_seed) for by_seed in cells.values()), default=0)
    titles: list[str] = []
    rows: list[tuple[str, list[Entry]]] = [(label, []) for label in labels]
    for title, known_ratio, metric in main_columns(ratios, context.given):
        titles.append(title)
        for label, entries in rows:
            entries.append(found.entry(label, known_ratio, metric, most))
        if metric == "mAP" and known_ratio == average_name(ratios):
            titles.append("95 % interval")
            for label, entries in rows:
                entries.append(found.interval(label, known_ratio, metric))
    dataset = records[0].record.cell.setting.dataset if records else ""
    if records and records[0].record.cell.setting.mask_scheme == "single_positive":
        titles = [title.replace(context.given.ratio_title(1), "1 label an image") for title in titles]
    notes = _notes(records, labels, found, ratios, context, holes)
    title = f"Leaderboard of {dataset}" if dataset else "Leaderboard"
    return Table("leaderboard", title, tuple(titles), rows, tuple(notes))


def _from_weak_to_strong(
    labels: Sequence[str], found: Lookup, ratios: Sequence[float], lines: Mapping[str, str]
) -> list[str]:
    """Rows by their average mAP, holes last, equal ones by name: an order that does not depend on the file system."""

    def strength(label: str) -> tuple[int, float, str]:
        mean = found.row(label, average_name(ratios), "mAP").mean
        place = 0 if label in lines else 2 if math.isnan(mean) else 1
        return place, 0.0 if place != 1 else mean, label

    return sorted(labels, key=strength)


def _notes(
    evidence: Sequence[Evidence],
    labels: Sequence[str],
    found: Lookup,
    ratios: Sequence[float],
    context: Context,
    holes: Holes,
) -> list[str]:
    if not evidence:
        return ["no records"]
    records = [e.record for e in evidence]
    setting = records[0].cell.setting
    seeds = sorted({e.seeds for e in evidence})
    of_mask = f"from file {records[0].cell.mask_hash[:8]}" if setting.mask_scheme == "file" else ""
    pairs = ", ".join(f"{seed} (mask {of_mask or mask_seed})" for seed, mask_seed in seeds)
    spread = "mean ± standard deviation over seeds" if len(seeds) > 1 else "seed"
    notes = [
        f"mAP in percent by share of known training labels, last epoch, "
        f"{context.given.labels_evaluated(setting.evaluate_on)}{VALIDATION * (setting.evaluate_on == 'val')}; "
        f"{spread} {pairs}",
        f"setting: {setting.backbone} backbone, {setting.image_size} px, {setting.epochs} epochs, "
        f"batch {setting.batch}, {setting.precision}, protocol version {setting.protocol_version}",
        *context.given.notes(),
        *_about_sureness(labels, found, ratios, len(seeds)),
    ]
    notes += [f"{name}: {what}; every column shows the same number" for name, what in context.lines.items()]
    notes += [
        f"{label} at {context.given.ratio_title(ratio)}: {reason}" for (label, ratio), reason in sorted(holes.items())
    ]
    notes += context.left_out
    notes += [f"this setting is not the papers': {'; '.join(context.deviations)}"] if context.deviations else []
    methods = dict.fromkeys(e.record.cell.method for label in labels for e in evidence if _label(e) == label)
    return notes + _differences_from_papers([name for name in methods if context.differs.get(name)], context.differs)


def _differences_from_papers(methods: Sequence[str], differs: Mapping[str, str]) -> list[str]:
    """A line for each difference, with the methods (of one family, say) that have it."""
    by_text: dict[str, list[str]] = {}
    for name in methods:
        by_text.setdefault(differs[name], []).append(name)
    return [
        f"{', '.join(names)} {'differs from its paper' if len(names) == 1 else 'differ from their papers'}: {text}"
        for text, names in by_text.items()
    ]


def _about_sureness(labels: Sequence[str], found: Lookup, ratios: Sequence[float], num_seeds: int) -> list[str]:
    """What the marks and the interval mean, and what they cannot mean."""
    by_caution: dict[str, list[str]] = {}
    for label in labels:
        by_caution.setdefault(found.row(label, average_name(ratios), "mAP").caution, []).append(label)
    lines = ["95 % interval: of the average mAP, over test images and seeds, cut at 0 and 100"]
    for caution, of_caution in sorted(by_caution.items()):
        if caution:
            lines.append(caution if len(by_caution) == 1 else f"{', '.join(of_caution)}: {caution}")
    marked = [label for label in labels if found.row(label, average_name(ratios), "mAP").mark]
    if marked:
        basis = "the same images and seeds" if num_seeds > 1 else "the same images"
        lines.append(
            f"the best of a column is bold, in plain text *; {NOT_DISTINGUISHED}: not told from it at 5 %, compared on "
            f"{basis}, with Holm's correction over the table{' (which two seeds often cannot do)' * (num_seeds == 2)}"
        )
        if num_seeds > 1:
            lines.append(
                "for these marks the seeds' spread is moderated by that of the other rows; ?: too few common seeds to "
                "compare"
            )
    if num_seeds == 1:
        lines.append("one seed: differences between rows may be chance")
    return lines


def _label(evidence: Evidence) -> str:
    return evidence.record.cell.label


def _facts(row: Any) -> dict[str, Any]:
    return {
        "mean": _number(row.mean),
        "std": _number(row.std),
        "seeds": int(row.n),
        "low": _number(row.low),
        "high": _number(row.high),
        "mark": row.mark,
        "status": row.status,
    }


def _number(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)
