"""Turns evidence into a leaderboard; the same records give the same bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard import measurements
from mlrpl_bench.leaderboard.evidence import Evidence, EvidenceGrid
from mlrpl_bench.leaderboard.measurements import Lookup, average_name
from mlrpl_bench.leaderboard.selection import Missing
from mlrpl_bench.leaderboard.tables import extra
from mlrpl_bench.leaderboard.tables.given_labels import ALL_GIVEN, GivenLabels
from mlrpl_bench.records.elsewhere.origin import counted_origins
from mlrpl_bench.records.record import Record
from mlrpl_bench.utils.arrays import plain
from mlrpl_bench.utils.tables import NOT_DISTINGUISHED, Entry, Table, counted

VALIDATION = ": for tuning, not to be set beside test numbers"


class Context(NamedTuple):
    """The context of a leaderboard is what it says around its numbers.

    Attributes:
        differs: by method, how it differs from its paper.
        deviations: how the setting differs from the papers'.
        reference_rows: rows on top that have the same number in every column, and what they are, in words.
        categories: names of the categories.
        excluded_records: lines about records that are not in the tables.
        stalled: lines about trainings that led nowhere.
        given: how many labels were given.
        tuned: lines about the rows whose values were tuned.
    """

    differs: Mapping[str, str] = {}
    deviations: Sequence[str] = ()
    reference_rows: Mapping[str, str] = {}
    categories: Sequence[str] = ()
    excluded_records: Sequence[str] = ()
    stalled: Sequence[str] = ()
    given: GivenLabels = GivenLabels()
    tuned: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """A leaderboard holds the tables of a dataset under one setting.

    Attributes:
        measurements: everything that the tables show and more, see `measurements.measure`.
        main: one row a method, one column a known ratio, then averages over the ratios; percent.
        others: secondary tables.
        notes: footnotes of the main table, in order.
        cells: the evidence behind, by row label and known ratio.
        labels: the rows, from weak to strong.
        ratios: the known ratios in ascending order.
        context: see `Context`.
    """

    measurements: pd.DataFrame
    main: Table
    others: Sequence[Table]
    cells: EvidenceGrid
    labels: Sequence[str]
    ratios: Sequence[float]
    context: Context

    @cached_property
    def lookup(self) -> Lookup:
        """Finds measurements by label, known ratio and metric."""
        return Lookup(self.measurements)

    @property
    def title(self) -> str:
        """Return ``Leaderboard of scenes``."""
        return self.main.title

    @property
    def notes(self) -> tuple[str, ...]:
        """Return footnotes of the main table."""
        return self.main.notes

    def with_tables(self, tables: Sequence[Table]) -> Leaderboard:
        """Add secondary tables; the leaderboard itself stays as it is."""
        return replace(self, others=[*self.others, *tables])

    def to_csv(self) -> str:
        """Write the main table: means and, where there are several seeds, deviations; two decimals."""
        wide: dict[str, list[float]] = {}
        for title, known_ratio, metric in main_columns(self.ratios, self.context.given):
            rows = [self.lookup.row(label, known_ratio, metric) for label in self.labels]
            wide[title] = [row.mean for row in rows]
            if any(row.n > 1 for row in rows):
                wide[f"{title} std"] = [row.std for row in rows]
            if _has_interval(known_ratio, metric, self.ratios):
                wide |= {f"{title} low": [row.low for row in rows], f"{title} high": [row.high for row in rows]}
        table = pd.DataFrame(wide, index=pd.Index(self.labels, name="method"))
        return table.to_csv(float_format="%.2f", lineterminator="\n")

    def tidy_csv(self) -> str:
        """Write the measurements: one row a method, known ratio and metric; six significant digits."""
        return self.measurements.to_csv(index=False, float_format="%.6g", lineterminator="\n")

    def to_markdown(self) -> str:
        """Write all tables with titles and footnotes."""
        return "\n".join([self.main.markdown(1), *(table.markdown(2) for table in self.others)])

    def to_latex(self) -> str:
        """Write all tables, for ``\\input`` where booktabs is loaded."""
        return "% needs \\usepackage{booktabs}\n" + "\n".join(t.latex() for t in (self.main, *self.others))

    def to_json(self) -> dict[str, Any]:
        """Return the main table, and by name the others, as plain data; None where there is no number."""
        rows = {
            label: {
                title: _facts(self.lookup.row(label, known_ratio, metric))
                for title, known_ratio, metric in main_columns(self.ratios, self.context.given)
            }
            for label in self.labels
        }
        others = {table.name: table.to_json() for table in self.others}
        return {"title": self.title, "rows": rows, "notes": list(self.notes), "tables": others}

    def print(self) -> None:
        """Print the main table to standard output."""
        self.main.print()


def build(
    cells: EvidenceGrid, labels: Sequence[str], ratios: Sequence[float], context: Context, missing: Missing
) -> Leaderboard:
    """Build the leaderboard of one setting from its evidence.

    Args:
        cells: the evidence.
        labels: rows that were asked for, which are shown even if nothing is known of them; others that have cells
            stand beside.
        ratios: the columns.
        missing: why cells are missing.
    """
    ratios = sorted(ratios)
    labels = [label for label in dict.fromkeys([*sorted(labels), *sorted(label for label, _ in cells)])]
    shown = [label for label in labels if any((label, ratio) in cells or (label, ratio) in missing for ratio in ratios)]
    frame = measurements.measure(
        cells, shown, ratios, context.categories, unmarked=context.reference_rows, missing=missing
    )
    found = Lookup(frame)
    order = _from_weak_to_strong(shown, found, ratios, context.reference_rows)
    rank = {label: place for place, label in enumerate(order)}
    frame = frame.sort_values("method", key=lambda names: names.map(rank), kind="stable", ignore_index=True)
    main = _main_table(order, ratios, found, cells, context, missing)
    others = extra.tables(order, ratios, found, cells, context.categories, context.reference_rows, context.given)
    return Leaderboard(frame, main, others, cells, order, ratios, context)


def main_columns(ratios: Sequence[float], given: GivenLabels) -> list[tuple[str, str, str]]:
    """Return title, known ratio and metric of each column of the main table; one ratio's mAP is its own average."""
    average = average_name(ratios)
    columns = [(given.ratio_title(ratio), f"{ratio:g}", "mAP") for ratio in ratios]
    averaged = [metric for metric in metrics.REPORTED if metric != "mAP" or len(ratios) != 1]
    over = ALL_GIVEN if [given.ratio_title(ratio) for ratio in ratios] == [ALL_GIVEN] else average
    return columns + [(f"{metric} ({over})", average, metric) for metric in averaged]


def _has_interval(known_ratio: str, metric: str, ratios: Sequence[float]) -> bool:
    """Tell whether an interval stands beside a column: beside the average mAP, or the mAP of the only ratio."""
    return metric == "mAP" and (known_ratio == average_name(ratios) or len(ratios) == 1)


def _main_table(
    labels: Sequence[str],
    ratios: Sequence[float],
    found: Lookup,
    cells: EvidenceGrid,
    context: Context,
    missing: Missing,
) -> Table:
    records = [evidence for by_seed in cells.values() for evidence in by_seed.values()]
    most = max((len(by_seed) for by_seed in cells.values()), default=0)
    titles: list[str] = []
    rows: list[tuple[str, list[Entry]]] = [(label, []) for label in labels]
    for title, known_ratio, metric in main_columns(ratios, context.given):
        titles.append(title)
        for label, entries in rows:
            entries.append(found.entry(label, known_ratio, metric, most))
        if _has_interval(known_ratio, metric, ratios):
            titles.append("95 % interval")
            for label, entries in rows:
                entries.append(found.interval(label, known_ratio, metric))
    dataset = records[0].record.cell.setting.dataset if records else ""
    if records and records[0].record.cell.setting.mask_scheme == "single_positive":
        titles = [title.replace(context.given.ratio_title(1), "1 label an image") for title in titles]
    notes = _notes(records, labels, found, ratios, context, missing)
    title = f"Leaderboard of {dataset}" if dataset else "Leaderboard"
    return Table("leaderboard", title, tuple(titles), rows, tuple(notes))


def _from_weak_to_strong(
    labels: Sequence[str], found: Lookup, ratios: Sequence[float], reference_rows: Collection[str]
) -> list[str]:
    """Sort rows by their average mAP, those without one last, equal ones by name whatever the file system's order."""

    def strength(label: str) -> tuple[int, float, str]:
        mean = found.row(label, average_name(ratios), "mAP").mean
        place = 0 if label in reference_rows else 2 if math.isnan(mean) else 1
        return place, 0.0 if place != 1 else mean, label

    return sorted(labels, key=strength)


def _notes(
    evidence: Sequence[Evidence],
    labels: Sequence[str],
    found: Lookup,
    ratios: Sequence[float],
    context: Context,
    missing: Missing,
) -> list[str]:
    if not evidence:
        return ["no records"]
    records = [e.record for e in evidence]
    setting = records[0].cell.setting
    seeds = sorted({e.seeds for e in evidence})
    mask_text = f"from file {records[0].cell.mask_hash[:8]}" if setting.mask_scheme == "file" else ""
    pairs = ", ".join(f"{seed} (mask {mask_text or mask_seed})" for seed, mask_seed in seeds)
    spread = "mean ± standard deviation over seeds" if len(seeds) > 1 else "seed"
    notes = [
        f"mAP in percent by share of known training labels, last epoch, "
        f"{context.given.labels_evaluated(setting.evaluate_on)}{VALIDATION * (setting.evaluate_on == 'val')}; "
        f"{spread} {pairs}",
        f"setting: {setting.backbone} backbone, {setting.image_size} px, {counted(setting.epochs, 'epoch')}, "
        f"batch {setting.batch}, {setting.precision}, protocol version {setting.protocol_version}",
        *context.given.notes(),
        *_about_sureness(labels, found, ratios, len(seeds)),
    ]
    same = "; every column shows the same number" if len(ratios) > 1 else ""
    notes += [f"{name}: {what}{same}" for name, what in context.reference_rows.items() if name in labels]
    notes += [
        f"{label} at {context.given.ratio_title(ratio)}: {reason}" for (label, ratio), reason in sorted(missing.items())
    ]
    notes += [
        *_about_origins(evidence),
        *_about_devices(records),
        *context.tuned,
        *context.stalled,
        *context.excluded_records,
    ]
    notes += [f"this setting is not the papers': {'; '.join(context.deviations)}"] if context.deviations else []
    methods = dict.fromkeys(e.record.cell.method for label in labels for e in evidence if _label(e) == label)
    return notes + _differences_from_papers([name for name in methods if context.differs.get(name)], context.differs)


def _about_origins(evidence: Sequence[Evidence]) -> list[str]:
    """Return a line that says so if rows rest on records that were measured elsewhere and submitted."""
    by_key = {e.record.cell.key: e for e in evidence}.values()  # a reference row has the same cell at every ratio
    counted_line = counted_origins(e.record.origin for e in by_key)
    labels = sorted({_label(e) for e in by_key if e.record.origin.pack})
    return [f"{counted_line}, in rows {', '.join(labels)}"] if counted_line else []


def _about_devices(records: Sequence[Record]) -> list[str]:
    """Return a line that says so if the cells were trained on different kinds of device, whose last digits differ."""
    kinds = Counter(str(record.content.get("device", "an unknown device")) for record in records)
    if len(kinds) < 2:
        return []
    words = ", ".join(f"{counted(number, 'cell')} on {kind}" for kind, number in sorted(kinds.items()))
    return [f"trained on different kinds of device, on which the same training ends in other digits: {words}"]


def _differences_from_papers(methods: Sequence[str], differs: Mapping[str, str]) -> list[str]:
    """Return a line for each difference, with the methods (of one family, say) that have it."""
    by_text: dict[str, list[str]] = {}
    for name in methods:
        by_text.setdefault(differs[name], []).append(name)
    return [
        f"{', '.join(names)} {'differs from its paper' if len(names) == 1 else 'differ from their papers'}: {text}"
        for text, names in by_text.items()
    ]


def _about_sureness(labels: Sequence[str], found: Lookup, ratios: Sequence[float], num_seeds: int) -> list[str]:
    """Return lines on what the marks and the interval mean, and what they cannot mean."""
    by_caution: dict[str, list[str]] = {}
    for label in labels:
        by_caution.setdefault(found.row(label, average_name(ratios), "mAP").caution, []).append(label)
    average = "average " if len(ratios) != 1 else ""
    lines = [f"95 % interval: of the {average}mAP, over test images and seeds, cut at 0 and 100"]
    for caution, cautioned in sorted(by_caution.items()):
        if caution:
            lines.append(caution if len(by_caution) == 1 else f"{', '.join(cautioned)}: {caution}")
    marked = [label for label in labels if found.row(label, average_name(ratios), "mAP").mark]
    if marked:
        basis = "the same images and seeds" if num_seeds > 1 else "the same images"
        lines.append(
            f"the best of a column is bold, in plain text *; {NOT_DISTINGUISHED}: not significantly different from it "
            f"at the 5 % level, compared on {basis}, with Holm's correction over the table"
            f"{' (which two seeds often cannot do)' * (num_seeds == 2)}"
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
        "mean": plain(round(row.mean, 4)),
        "std": plain(round(row.std, 4)),
        "seeds": int(row.n),
        "low": plain(round(row.low, 4)),
        "high": plain(round(row.high, 4)),
        "mark": row.mark,
        "status": row.status,
    }
