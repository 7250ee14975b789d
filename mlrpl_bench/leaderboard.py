"""Records in, tables out. Pure: the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlrpl_bench.dataset import NINE_RATIOS
from mlrpl_bench.results import Record

AVERAGED = ("mAP", "OF1", "CF1")


EVALUATED = {
    "test": "complete test labels",
    "val": "complete labels of a tenth of the training images, held out: for tuning, not to be set beside test numbers",
}


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """One row a method, one column a known ratio, then averages over the ratios; all in percent.

    Attributes:
        means, deviations: by row label and column; the mean over seeds and their sample standard deviation.
        counts: how many seeds each entry rests on.
        notes: footnotes, in order.
    """

    title: str
    means: pd.DataFrame
    deviations: pd.DataFrame
    counts: pd.DataFrame
    notes: list[str]

    def to_csv(self) -> str:
        """Means and, where there are several seeds, deviations; two decimals."""
        columns: dict[str, pd.Series] = {}
        for column in self.means:
            columns[column] = self.means[column]
            if (self.counts[column] > 1).any():
                columns[f"{column} std"] = self.deviations[column]
        table = pd.DataFrame(columns)
        table.index.name = "method"
        return table.to_csv(float_format="%.2f", lineterminator="\n")

    def rows(self) -> list[list[str]]:
        """The table as printed: one decimal, ``60.9 ± 0.5`` over several seeds, ``-`` where there is no record."""
        return [[label, *(self._entry(label, column) for column in self.means)] for label in self.means.index]

    def to_markdown(self) -> str:
        """A pipe table with title and footnotes."""
        header = ["method", *self.means.columns]
        lines = [header, ["---", *("---:" for _ in self.means.columns)], *self.rows()]
        table = "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"# {self.title}\n\n{table}\n\n{notes}\n"

    def to_json(self) -> dict[str, Any]:
        """Plain data; None where there is no record."""
        rows = {
            label: {
                column: {
                    "mean": _number(self.means.at[label, column]),
                    "std": _number(self.deviations.at[label, column]),
                    "seeds": int(self.counts.at[label, column]),
                }
                for column in self.means
            }
            for label in self.means.index
        }
        return {"title": self.title, "rows": rows, "notes": self.notes}

    def print(self) -> None:
        """To standard output, as wide as the terminal allows."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.title, title_justify="left")
        table.add_column("method", no_wrap=True)
        for column in self.means:
            table.add_column(column, justify="right", no_wrap=True)
        for row in self.rows():
            table.add_row(*map(Text, row))  # plain: to rich's markup, sarb[prototypes=5] has a tag in it
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 240
        console.print(table)
        for note in self.notes:
            console.print(f"- {note}", markup=False)

    def _entry(self, label: str, column: str) -> str:
        mean, deviation = self.means.at[label, column], self.deviations.at[label, column]
        if pd.isna(mean):
            return "-"
        return f"{mean:.1f}" if pd.isna(deviation) else f"{mean:.1f} ± {deviation:.1f}"


def build(
    records: Iterable[Record],
    ratios: Sequence[float],
    differs: Mapping[str, str],
    deviations: Sequence[str],
    lines: Mapping[str, Sequence[Record]] | None = None,
) -> Leaderboard:
    """The leaderboard of records of one setting.

    Args:
        ratios: the columns.
        differs: by method, how it differs from its paper.
        deviations: how the setting differs from the papers'.
        lines: rows that stand on top and have the same number in every column, such as a method on complete labels.
    """
    lines = {name: of_line for name, of_line in (lines or {}).items() if of_line}
    chosen = sorted(
        (record for record in records if record.cell.ratio in ratios),
        key=lambda record: (record.cell.label, record.cell.ratio, record.cell.seed, record.cell.mask_seed),
    )
    rows = [_numbers(record, record.cell.label, record.cell.ratio) for record in chosen]
    rows += [_numbers(record, name, ratio) for name, of_line in lines.items() for record in of_line for ratio in ratios]
    long = pd.DataFrame(rows, columns=["label", "ratio", "seed", *AVERAGED])
    by_ratio = long.pivot_table(index=["label", "seed"], columns="ratio", values=list(AVERAGED), dropna=False)
    columns = {ratio_title(ratio): _column(by_ratio, "mAP", [ratio]) for ratio in sorted(ratios)}
    columns |= {average_title(name, ratios): _column(by_ratio, name, sorted(ratios)) for name in AVERAGED}
    seeds = pd.DataFrame(columns)
    grouped = seeds.groupby(level="label", sort=True)
    order = [*lines, *(label for label in _from_weak_to_strong(grouped.mean()) if label not in lines)]
    return Leaderboard(
        title=f"Leaderboard of {chosen[0].cell.setting.dataset}" if chosen else "Leaderboard",
        means=grouped.mean().loc[order],
        deviations=grouped.std().loc[order],
        counts=grouped.count().loc[order],
        notes=_notes(chosen, order, differs, deviations, lines),
    )


def _numbers(record: Record, label: str, ratio: float) -> dict[str, Any]:
    """A record's numbers, in percent, under the row and the column in which they are shown."""
    seeds = (record.cell.seed, record.cell.mask_seed)
    return {"label": label, "ratio": ratio, "seed": seeds, **{n: 100 * record.metrics[n] for n in AVERAGED}}


def ratio_title(ratio: float) -> str:
    """``10 %`` for 0.1."""
    return f"{100 * ratio:g} %"


def average_title(metric: str, ratios: Sequence[float]) -> str:
    """``mAP (avg)`` over the papers' nine ratios; over any other set it says over how many."""
    return f"{metric} (avg)" if tuple(sorted(ratios)) == NINE_RATIOS else f"{metric} (avg of {len(ratios)})"


def _column(by_ratio: pd.DataFrame, metric: str, ratios: Sequence[float]) -> pd.Series:
    """Mean over ratios for each row label and seed; missing where one of them is."""
    wanted = [(metric, ratio) for ratio in ratios]
    return by_ratio.reindex(columns=pd.MultiIndex.from_tuples(wanted)).mean(axis=1, skipna=False)


def _from_weak_to_strong(means: pd.DataFrame) -> list[str]:
    """Rows by their average mAP, holes last, equal ones by name: an order that does not depend on the file system."""
    average = next(column for column in means.columns if column.startswith("mAP (avg"))
    return list(means.sort_index().sort_values(average, kind="stable", na_position="last").index)


def _notes(
    records: Sequence[Record],
    labels: Sequence[str],
    differs: Mapping[str, str],
    deviations: Sequence[str],
    lines: Mapping[str, Sequence[Record]],
) -> list[str]:
    if not records:
        return ["no records"]
    setting = records[0].cell.setting
    seeds = sorted({(record.cell.seed, record.cell.mask_seed) for record in records})
    of_mask = f"from file {records[0].cell.mask_hash[:8]}" if setting.mask_scheme == "file" else ""
    pairs = ", ".join(f"{seed} (mask {of_mask or mask_seed})" for seed, mask_seed in seeds)
    spread = "mean ± standard deviation over seeds" if len(seeds) > 1 else "seed"
    notes = [
        f"mAP in percent by share of known training labels, last epoch, {EVALUATED[setting.evaluate_on]}; "
        f"{spread} {pairs}",
        f"setting: {setting.backbone} backbone, {setting.image_size} px, {setting.epochs} epochs, "
        f"batch {setting.batch}, {setting.precision}, protocol version {setting.protocol_version}",
    ]
    if len(seeds) == 1:
        notes.append("one seed: differences between rows may be chance")
    notes += [
        f"{name} is {of_line[0].cell.method} with {100 * of_line[0].cell.ratio:g} % of the labels known; "
        "every column shows the same number"
        for name, of_line in lines.items()
    ]
    notes += [f"this setting is not the papers': {'; '.join(deviations)}"] if deviations else []
    methods = dict.fromkeys(record.cell.method for label in labels for record in records if record.cell.label == label)
    notes += [f"{method} differs from its paper: {differs[method]}" for method in methods if differs.get(method)]
    return notes


def _number(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
