"""Ranks methods over data sets: the table's own means beside those of other data sets' records.

Of another data set nothing but its records is needed, neither its files nor its labels. Those count that were trained
by the methods as they are now, on the usual masks, and evaluated on the test images; where there are records of several
settings (image sizes, say), those of the one with the most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mlrpl_bench.data.protocol import COMPLETE_AT_ONE
from mlrpl_bench.leaderboard.measurements import LEVEL
from mlrpl_bench.leaderboard.pairing import percents
from mlrpl_bench.leaderboard.tables.extra import rank_table
from mlrpl_bench.leaderboard.tables.main import Leaderboard
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.utils.tables import Table

Means = Mapping[tuple[str, float], float]
"""This maps row label and known ratio to the mAP, averaged over seeds."""


def rank(here: str, table: Leaderboard, store: ResultStore, methods: Mapping[str, MethodEntry]) -> Table | None:
    """Rank the rows that every data set has, over all pairs of data set and known ratio; None for one data set.

    Args:
        here: the name of the table's data set.
        table: its leaderboard, whose own means count; reference rows take no part.
        store: the records of the other data sets.
        methods: by name, to tell which records are of the methods as they are now.
    """
    means = _means_of_table(table)
    by_dataset, unusable = {here: means}, dict[str, int]()
    for dataset in store.datasets():
        if dataset == here:
            continue
        survey = store.survey(dataset)
        unusable[dataset] = len(survey.problems)
        if found := _means(survey.records, methods):
            by_dataset[dataset] = found
    labels = sorted(set.intersection(*({label for label, _ in found} for found in by_dataset.values())))
    blocks = {dataset: _complete(found, labels) for dataset, found in by_dataset.items()}
    used = [(dataset, ratio) for dataset, ratios in blocks.items() for ratio in ratios]
    if len(labels) < 2 or len({dataset for dataset, _ in used}) < 2:
        return None
    table_BM = np.array([[by_dataset[dataset][label, ratio] for label in labels] for dataset, ratio in used])
    over = "; ".join(f"{dataset} at {percents(ratios)}" for dataset, ratios in blocks.items() if ratios)
    notes = [f"rank by mAP, averaged over {len(used)} pairs of data set and known ratio: {over}; 1 is best"]
    if left := sorted({label for label, _ in means} - set(labels)):
        notes.append(f"not trained on every data set, so not ranked: {', '.join(left)}")
    if left := [dataset for dataset, ratios in blocks.items() if not ratios]:
        notes.append(f"without a known ratio that all of these have, so left out: {', '.join(left)}")
    notes += [f"{number} records of {name} cannot be used" for name, number in unusable.items() if number]
    return rank_table("rank-across", "Average rank over data sets", labels, table_BM, LEVEL, notes)


def _means_of_table(table: Leaderboard) -> Means:
    found = {ratio: table.lookup.means("mAP", f"{ratio:g}") for ratio in table.ratios}
    return {
        (label, ratio): means[label]
        for ratio, means in found.items()
        for label in means
        if label not in table.context.reference_rows
    }


def of_one_setting(records: Iterable[Record], methods: Mapping[str, MethodEntry]) -> list[Record]:
    """Take the records of a data set that count, of the setting that has the most of these."""
    counted = [record for record in records if _counts(record, methods)]
    settings = Counter(record.cell.setting for record in counted)
    setting = min(settings, key=lambda each: (-settings[each], repr(each)), default=None)
    return [record for record in counted if record.cell.setting == setting]


def _means(records: Iterable[Record], methods: Mapping[str, MethodEntry]) -> Means:
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for record in of_one_setting(records, methods):
        found[record.cell.label, record.cell.ratio].append(100 * record.metrics["mAP"])
    return {place: float(np.mean(over_seeds)) for place, over_seeds in found.items()}


def _counts(record: Record, methods: Mapping[str, MethodEntry]) -> bool:
    cell = record.cell
    entry = methods.get(cell.method)
    return (
        entry is not None
        and cell.source_digest == entry.source_digest()
        and cell.setting.evaluate_on == "test"
        and cell.setting.mask_scheme in COMPLETE_AT_ONE
        and cell.ratio < 1
    )


def _complete(found: Means, labels: Sequence[str]) -> list[float]:
    """Return the known ratios at which every row has a number."""
    return [ratio for ratio in sorted({r for _, r in found}) if all((label, ratio) in found for label in labels)]
