"""This module makes the leaderboard of a group of records, with intervals where the labels of its data set are here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlrpl_bench.leaderboard.claims import claims
from mlrpl_bench.leaderboard.evidence import Collector, Evidence, Seeds, without_labels
from mlrpl_bench.leaderboard.report.page import Picture
from mlrpl_bench.leaderboard.selection import stalled
from mlrpl_bench.leaderboard.tables import main
from mlrpl_bench.leaderboard.tables.given_labels import GivenLabels
from mlrpl_bench.leaderboard.tables.main import Context, Leaderboard
from mlrpl_bench.models.registry import Alias, MethodEntry, Registry
from mlrpl_bench.records.store import left_out_line
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.tools.site.grouping import Group
from mlrpl_bench.training.study import differences_from_papers
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.progress import Report, silent
from mlrpl_bench.utils.tables import Table

if TYPE_CHECKING:
    from mlrpl_bench.training.study import Study

COMMON = 0.5
"""A known ratio is a column where at least this share of the rows of the most common ratio have it."""


@dataclass(frozen=True, eq=False)
class Board:
    """A board holds the leaderboard of a group of records and what its page shows besides.

    Attributes:
        group: the records.
        table: the leaderboard.
        extras: the papers' claims, as far as the rows say something about them.
        pictures: what methods make of a few test images, where the images are here.
        by_key: the evidence of each record that stands in tables.
        problems: a line for each record that cannot be used.
    """

    group: Group
    table: Leaderboard
    extras: Sequence[Table]
    pictures: Sequence[Picture]
    by_key: Mapping[str, Evidence]
    problems: Sequence[str]


def build(group: Group, labels: Labels, methods: Registry[MethodEntry], report: Report = silent) -> Board | None:
    """Make the leaderboard of a group of records; None where none of them can be used.

    Args:
        labels: gives the labels of data sets that are here.
        methods: the registered methods; others are shown with what their records say.
        report: told about the progress as (what, done, total).
    """
    study, why_not = _study(group, labels)
    problems: list[str] = []
    found = _evidence(group, study, problems, report)
    if not found:
        return None
    ratios, rare = _columns(found)
    aliases = _aliases(found, methods, ratios)
    ratios = [ratio for ratio in ratios if not _is_only_of(ratio, found, aliases)] or ratios
    cells: dict[tuple[str, float], dict[Seeds, Evidence]] = defaultdict(dict)
    for evidence in found:
        if evidence.record.cell.ratio in ratios:
            cells[evidence.record.cell.label, evidence.record.cell.ratio][evidence.seeds] = evidence
    given = GivenLabels() if study is None else GivenLabels.from_splits(study.train, study.test, _has_validation(study))
    reference_rows = {}
    for name, alias in aliases.items():
        of_row = [e for e in found if (e.record.cell.label, e.record.cell.ratio) == (alias.method, alias.ratio)]
        if not {alias.ratio} >= set(ratios):
            reference_rows[name] = f"{alias.method} with {given.share_of_labels(alias.ratio)}"
            for ratio in ratios:
                cells[name, ratio] = {evidence.seeds: evidence for evidence in of_row}
    names = sorted({evidence.record.cell.method for evidence in found})
    context = Context(
        differs={name: entry.differs for name in names if (entry := methods.entries.get(name)) is not None},
        deviations=differences_from_papers(group.setting, group.lr_multiplier),
        reference_rows=reference_rows,
        categories=() if study is None else study.test.categories,
        excluded_records=[*_left_out(group), *rare, *([] if study is not None else [why_not])],
        stalled=[] if study is None else stalled(found, study),
        given=given,
    )
    table = main.build(dict(cells), [], ratios, context, {})
    by_key = {evidence.record.cell.key: evidence for evidence in found}
    return Board(group, table, _claims(table, group.dataset), _pictures(table, study), by_key, problems)


def _study(group: Group, labels: Labels) -> tuple[Study | None, str]:
    """Return the data set with its labels, or None and why it is not here."""
    try:
        why = labels.truth(group.records[0]).no_mask
        if not why:
            return labels.study(group.records[0]), ""
    except UserError as error:
        why = str(error)
    return None, f"its labels are not here, so intervals stand where they were computed before: {why}"


def _evidence(group: Group, study: Study | None, problems: list[str], report: Report) -> list[Evidence]:
    collector = None if study is None else Collector(study.train, study.test, study.masks)
    found = []
    for number, record in enumerate(group.records, start=1):
        try:
            found.append(without_labels(record) if collector is None else collector.collect(record))
        except UserError as error:
            problems.append(str(error))
        report(f"reading {group.dataset}", number, len(group.records))
    sizes = {evidence.record.cell.key: len(evidence.record.metrics["AP_C"]) for evidence in found}
    usual = Counter(sizes.values()).most_common(1)[0][0] if sizes else 0
    odd = [evidence.record.folder for evidence in found if sizes[evidence.record.cell.key] != usual]
    problems += [f"{folder}: its record has not {usual} AP_C like the others; move the folder away" for folder in odd]
    return [evidence for evidence in found if sizes[evidence.record.cell.key] == usual]


def _columns(found: Sequence[Evidence]) -> tuple[list[float], list[str]]:
    """Choose the known ratios that are columns; an average over a ratio that few rows have would be no row's."""
    rows: dict[float, set[str]] = defaultdict(set)
    for evidence in found:
        rows[evidence.record.cell.ratio].add(evidence.record.cell.label)
    most = max(map(len, rows.values()))
    shown = sorted(ratio for ratio, labels in rows.items() if len(labels) >= COMMON * most)
    rare = [
        f"no column, because few rows have it: {100 * ratio:g} % ({', '.join(sorted(labels))})"
        for ratio, labels in sorted(rows.items())
        if ratio not in shown and ratio != 1
    ]
    return shown, rare


def _aliases(found: Sequence[Evidence], methods: Registry[MethodEntry], ratios: Sequence[float]) -> dict[str, Alias]:
    """Return the other names of methods at one known ratio that have records."""
    there = {(evidence.record.cell.label, evidence.record.cell.ratio) for evidence in found}
    return {name: alias for name, alias in methods.aliases.items() if (alias.method, alias.ratio) in there}


def _is_only_of(ratio: float, found: Sequence[Evidence], aliases: Mapping[str, Alias]) -> bool:
    """Tell whether nothing but methods that have another name at a known ratio were trained with it."""
    labels = {evidence.record.cell.label for evidence in found if evidence.record.cell.ratio == ratio}
    return labels <= {alias.method for alias in aliases.values() if alias.ratio == ratio}


def _has_validation(study: Study) -> bool:
    return "val" in study.dataset.splits(study.root)


def _left_out(group: Group) -> list[str]:
    reasons: dict[str, list] = {}
    for record, reason in group.others:
        reasons.setdefault(reason, []).append(record.folder)
    return [left_out_line(reason, folders) for reason, folders in reasons.items()]


def _claims(table: Leaderboard, dataset: str) -> list[Table]:
    """Judge those of the papers' claims that the rows say something about; nothing can be judged without intervals."""
    if not all(evidence.influences for by_seeds in table.cells.values() for evidence in by_seeds.values()):
        return []
    judged = claims.judge(table.cells, dataset, table.ratios).measured()
    tables = [judged.table("The papers' claims")] if judged.verdicts else []
    return [*tables, judged.heads.table()] if judged.heads.heads_measured > 1 else tables


def _pictures(table: Leaderboard, study: Study | None) -> list[Picture]:
    from mlrpl_bench.leaderboard.report import examples  # a second, for matplotlib

    return [] if study is None else examples.draw(table, study.test)
