"""Makes the tables beside the main one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.evaluation import metrics, ranks, thresholds
from mlrpl_bench.leaderboard.evidence import EvidenceGrid
from mlrpl_bench.leaderboard.measurements import LEVEL, Lookup, average_name
from mlrpl_bench.leaderboard.numbers import (
    CATEGORY,
    COSTS,
    FLUCTUATION,
    METRICS,
    RECOVERY,
    at_chosen,
    at_oracle,
    at_validated,
    best_epoch,
    best_on_validation,
    by_weights,
)
from mlrpl_bench.leaderboard.tables.given_labels import GivenLabels
from mlrpl_bench.models.method import AVERAGED, RAW
from mlrpl_bench.utils.tables import Entry, Table


def tables(
    labels: Sequence[str],
    ratios: Sequence[float],
    found: Lookup,
    cells: EvidenceGrid,
    categories: Sequence[str],
    reference_rows: Collection[str],
    given: GivenLabels,
) -> list[Table]:
    """Make all tables beside the main one; one that would be empty is left out."""
    average = average_name(ratios)
    methods = [label for label in labels if label not in reference_rows]
    shown = [evidence.record.cell.setting for by_seeds in cells.values() for evidence in by_seeds.values()]
    is_validation = any(setting.evaluate_on == "val" for setting in shown)
    some_epochs = _of_some_epochs(labels, cells)
    candidates = [
        _rank(methods, ratios, found),
        _thresholded(labels, average, found),
        _own_thresholds(labels, average, found, is_validation),
        _best_epoch(labels, average, found, is_validation, some_epochs),
        _model_selection(labels, average, found, is_validation, some_epochs),
        _weights(labels, average, found),
        _recovery(methods, ratios, found, given),
        _fluctuation(methods, ratios, found, given),
        _by_category(labels, average, found, categories, given),
        _cost(methods, ratios, found),
    ]
    return [table for table in candidates if table is not None]


def _rank(methods: Sequence[str], ratios: Sequence[float], found: Lookup) -> Table | None:
    """Average ranks over the ratios, of the methods that have all of them."""
    means = {label: [found.row(label, f"{ratio:g}", "mAP").mean for ratio in ratios] for label in methods}
    complete = [label for label, over_ratios in means.items() if not np.isnan(over_ratios).any()]
    if len(complete) < 2 or len(ratios) < 2:
        return None
    table_BM = np.array([means[label] for label in complete]).T
    notes = [f"rank by mAP, averaged over {len(ratios)} known ratios; 1 is best"]
    if left := [label for label in methods if label not in complete]:
        notes.append(f"without every ratio, so not ranked: {', '.join(left)}")
    return rank_table("rank", "Average rank", complete, table_BM, LEVEL, notes)


def rank_table(
    name: str, title: str, labels: Sequence[str], table_BM: NDArray[np.float64], level: float, notes: Sequence[str]
) -> Table:
    """Rank methods over the blocks of a table, higher numbers being better, and list them from best to worst."""
    ranking = ranks.average_rank(table_BM, level)
    by_rank = sorted(zip(ranking.ranks_M.tolist(), labels, strict=True))
    rows = [(label, [Entry(f"{rank:.2f}", value=rank)]) for rank, label in by_rank]
    about = [
        f"two methods whose average ranks differ by less than {ranking.critical_difference:.2f} are not told apart at "
        f"{100 * (1 - level):.0f} % (Nemenyi); the ratios of one data set share images and seeds, so even that claims "
        "too much"
    ]
    if not math.isnan(ranking.p_value):
        about.append(f"Friedman's test of all being equal: p = {ranking.p_value:.2g}")
    return Table(name, title, ("average rank",), rows, (*notes[:1], *about, *notes[1:]))


def _thresholded(labels: Sequence[str], average: str, found: Lookup) -> Table:
    columns = [*metrics.THRESHOLDED, *metrics.TOP]
    rows = [(label, [found.entry(label, average, column) for column in columns]) for label in labels]
    titles = tuple(column.replace("_top3", " top-3") for column in columns)
    note = (
        f"percent, {_where(average)}; a label is predicted where its logit is 0 or more, top-3: at most three an image"
    )
    return Table("thresholded", "Precision, recall and F1", titles, rows, (note,))


def _own_thresholds(labels: Sequence[str], average: str, found: Lookup, is_validation: bool) -> Table | None:
    """Return F1 at logit 0 beside F1 at thresholds that were chosen; None where nothing is known of these."""
    kinds: dict[str, Callable[[str], str]] = {
        "at 0.5": str,
        "chosen": at_chosen,
        "on validation": at_validated,
        "oracle": at_oracle,
    }
    if lacks_validation := all(math.isnan(found.row(label, average, at_validated("OF1")).mean) for label in labels):
        del kinds["on validation"]
    columns = {f"{metric} {kind}": of(metric) for metric in thresholds.ORACLE for kind, of in kinds.items()}
    others = [metric for metric in metrics.THRESHOLDED if metric not in thresholds.ORACLE]
    columns |= {f"{metric} chosen": at_chosen(metric) for metric in others}
    rows = [(label, [found.entry(label, average, column) for column in columns.values()]) for label in labels]
    if all(math.isnan(entries[1].value) for _, entries in rows):
        return None
    notes = [
        f"percent, {_where(average)}; at 0.5: a label is predicted where its probability is 0.5 or more",
        "chosen: one threshold a category, with the highest F1 on the training labels that the method was given; a "
        "category without a known present or a known absent label keeps 0.5",
        "oracle: thresholds chosen on the evaluated labels themselves, which nobody can do who does not have these; "
        "for OF1 none reach more, for CF1 no change of one of them does",
        "where chosen is far above 0.5, the scores are ordered well and lie elsewhere than the threshold expects",
    ]
    if not lacks_validation:
        notes.insert(
            2,
            "on validation: thresholds chosen likewise on held-out images that were not trained on, by the same "
            "training without them; only where leaderboard --evaluate-on val has left a record of each ratio and seed",
        )
    elif not is_validation:
        notes.append("thresholds chosen on validation images stand here too after leaderboard --evaluate-on val")
    return Table("chosen-thresholds", "F1 at thresholds of the scores' own", tuple(columns), rows, tuple(notes))


def _where(average: str) -> str:
    """Return in words what the numbers of a column are averaged over."""
    return "average" if average == "avg" else average if average.startswith("at ") else f"{average} ratios"


def _of_some_epochs(labels: Sequence[str], cells: EvidenceGrid) -> tuple[str, ...]:
    """Return a note that names the rows with cells that were not evaluated after every epoch; none without any."""
    seldom = {
        label
        for (label, _), by_seeds in cells.items()
        if any(np.isnan(evidence.course_E).any() for evidence in by_seeds.values())
    }
    names = ", ".join(label for label in labels if label in seldom)
    return (f"the best of those epochs that were evaluated (--evaluate-every): {names}",) if names else ()


def _model_selection(
    labels: Sequence[str], average: str, found: Lookup, is_validation: bool, some_epochs: Sequence[str]
) -> Table:
    """Return a table of the mAP that each habit of choosing an epoch would report."""
    columns = {"last epoch": "mAP"}
    last = f"mAP in percent, {_where(average)}; last epoch: chosen by nobody, the number of the main table"
    if is_validation:
        columns["best on validation"] = best_epoch("mAP")
        notes = [
            last,
            "best on validation: of the epoch that is the best on these validation images, and so too high",
            "best on test: not known here, these cells were evaluated on validation images alone",
        ]
    else:
        columns |= {"best on validation": best_on_validation("mAP"), "best on test": best_epoch("mAP")}
        notes = [
            last,
            "best on validation: of the epoch that was the best on held-out training images when the same was trained "
            "without them; only where leaderboard --evaluate-on val has left a record of each ratio and seed",
            "best on test: of the epoch that is the best on the test images, the literature's habit; it chooses by "
            "what it reports, and is too high",
        ]
    rows = [(label, [found.entry(label, average, column) for column in columns.values()]) for label in labels]
    if not is_validation and (lacking := [label for label, entries in rows if math.isnan(entries[1].value)]):
        notes.append(f"without records on validation images, so without a best epoch there: {', '.join(lacking)}")
    return Table("model-selection", "By which epoch is reported", tuple(columns), rows, (*notes, *some_epochs))


def _weights(labels: Sequence[str], average: str, found: Lookup) -> Table | None:
    """Return mAP of the raw and of the averaged weights of the rows that have both; None where no row has."""
    columns = {"row": "mAP", "raw": by_weights(RAW), "averaged": by_weights(AVERAGED)}
    rows = [(label, [found.entry(label, average, column) for column in columns.values()]) for label in labels]
    rows = [(label, entries) for label, entries in rows if not math.isnan(entries[1].value)]
    notes = (
        f"mAP of the last epoch in percent, {_where(average)}; row: the number of the main table, which is that of the "
        "weights that the recipe named before training",
        "the better of both is nobody's number: whoever takes it chooses on the test labels",
    )
    return Table("weights", "Raw and averaged weights", tuple(columns), rows, notes) if rows else None


def _best_epoch(
    labels: Sequence[str], average: str, found: Lookup, is_validation: bool, some_epochs: Sequence[str]
) -> Table:
    titles, columns = [], []
    for metric in metrics.REPORTED:
        titles += [metric, f"{metric} best epoch"]
        columns += [metric, best_epoch(metric)]
    rows = [(label, [found.entry(label, average, column) for column in columns]) for label in labels]
    note = (
        "best epoch: of the epoch with the highest mAP on the test images, the reference protocol; it looks at the "
        "test labels to choose, and is shown only to compare with published numbers"
    )
    if is_validation:
        note = (
            "best epoch: of the epoch with the highest mAP on the validation images that are evaluated here; it looks "
            "at their labels to choose"
        )
    return Table("best-epoch", "Last epoch beside best epoch", tuple(titles), rows, (note, *some_epochs))


def _by_ratio(
    name: str, title: str, metric: str, labels: Sequence[str], ratios: Sequence[float], found: Lookup,
    given: GivenLabels, notes: tuple[str, ...], decimals: int = 1,
) -> Table | None:  # fmt: skip
    average = [average_name(ratios)] if len(ratios) != 1 else []  # one ratio is its own average
    columns = [*(f"{ratio:g}" for ratio in ratios), *average]
    rows = [(label, [found.entry(label, column, metric, decimals=decimals) for column in columns]) for label in labels]
    rows = [(label, entries) for label, entries in rows if any(not math.isnan(entry.value) for entry in entries)]
    titles = (*map(given.ratio_title, ratios), *average)
    return Table(name, title, titles, rows, notes) if rows else None


def _recovery(methods: Sequence[str], ratios: Sequence[float], found: Lookup, given: GivenLabels) -> Table | None:
    note = (
        f"mAP in percent over the {'given ' * (given.train_unknown > 0)}training labels that were hidden: how well a "
        f"method, once trained, ranks what it was not told; the {'hidden' if given.train_unknown else 'complete'} "
        "labels are seen by no method"
    )
    title = "Recovery of hidden training labels"
    return _by_ratio("recovery", title, RECOVERY, methods, ratios, found, given, (note,))


def _fluctuation(methods: Sequence[str], ratios: Sequence[float], found: Lookup, given: GivenLabels) -> Table | None:
    note = (
        "mean absolute second difference of the supervised loss term (partial_bce) from step to step, from the epoch "
        "on in which labels begin to be filled in; lower is smoother; not comparable between losses of different scale"
    )
    title, metric = "Loss fluctuation", METRICS[FLUCTUATION].name
    return _by_ratio("fluctuation", title, metric, methods, ratios, found, given, (note,), decimals=4)


def _by_category(
    labels: Sequence[str], average: str, found: Lookup, categories: Sequence[str], given: GivenLabels
) -> Table | None:
    rows = [
        (given.category_title(category), [found.entry(label, average, f"{CATEGORY}{category}") for label in labels])
        for category in categories
    ]
    note = f"average precision in percent, {average if average.startswith('at ') else 'averaged over the ratios'}"
    notes = [note, *filter(None, [given.category_note()])]
    return Table("categories", "By category", tuple(labels), rows, tuple(notes), corner="category") if rows else None


def _cost(methods: Sequence[str], ratios: Sequence[float], found: Lookup) -> Table:
    columns = COSTS
    rows = [
        (label, [found.entry(label, average_name(ratios), column, decimals=1) for column in columns])
        for label in methods
    ]
    notes = (
        "seconds: from the first step to the last evaluation; cells trained side by side share reading and the frozen "
        "part, and each states the time of its whole group",
        "peak memory in GB: of the device, on a CPU of the process since it began",
    )
    return Table("cost", "Cost of a cell", tuple(column.replace("_", " ") for column in columns), rows, notes)
