"""Selects the records that a table may be made from; what is left out is named, and never averaged in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlrpl_bench.evaluation import thresholds
from mlrpl_bench.leaderboard.evidence import Collector, Evidence, EvidenceGrid, Seeds, read_scores
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.cell import Cell
from mlrpl_bench.records.matching import as_seen_here, reason_against
from mlrpl_bench.records.record import Record, read_arrays
from mlrpl_bench.records.store import ResultStore, left_out_line
from mlrpl_bench.training import checkpoint, steps
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.progress import Report, silent

Missing = Mapping[tuple[str, float], str]
"""This says, by row label and known ratio, why one of its cells has no number."""

NOT_RUN, INTERRUPTED = "not run", "interrupted"
"""These are the beginnings of the store's reasons that a checkpoint says more about."""


@dataclass(frozen=True)
class Selection:
    """A selection holds the evidence of one table, and names what is not in it.

    Attributes:
        cells: their evidence.
        missing: why cells that were asked for are not among them.
        excluded_records: a line for each kind of records of the data set that are not in the table.
        problems: a line for each record that cannot be used though it should be.
        stalled: a line for each kind of training that led nowhere.
    """

    cells: EvidenceGrid
    missing: Missing
    excluded_records: list[str]
    problems: list[str]
    stalled: Sequence[str] = ()


def select(
    study: Study,
    methods: Mapping[str, MethodEntry],
    store: ResultStore,
    wanted: Callable[[Cell], bool],
    asked: Iterable[Cell] = (),
    reference_rows: Mapping[str, Sequence[Cell]] | None = None,
    ratios: Sequence[float] = (),
    report: Report = silent,
) -> Selection:
    """Look through the store for the records of a setting.

    Args:
        study: the data set under the setting.
        methods: by name, as they are now.
        store: the folder of records.
        wanted: says whether a cell of this setting belongs into the table.
        asked: cells that should be there; what is missing of them becomes a missing entry.
        reference_rows: rows that show the same cells at each of `ratios`, by name.
        report: told about the making of evidence as (what, done, total).
    """
    survey = store.survey(study.setting.dataset)
    problems, excluded = list(survey.problems), defaultdict(list, survey.excluded_folders)
    in_table, of_this_setting = [], []
    asked = list(asked)
    asked_by_key = {cell.key: cell for cell in asked}
    for record in survey.records:
        record = replace(record, cell=as_seen_here(record.cell, study, methods, asked_by_key))
        reason = reason_against(record.cell, study, methods)
        if reason is not None:
            excluded[reason].append(record.folder)
            continue
        of_this_setting.append(record)
        if wanted(record.cell):
            in_table.append(record)
    validated = _on_validation(survey.records, study)
    found = _evidence(in_table, study, validated, problems, report)
    cells: dict[tuple[str, float], dict[Seeds, Evidence]] = defaultdict(dict)
    for key, evidence in found.items():
        assert key == evidence.record.cell.key
        cells[evidence.record.cell.label, evidence.record.cell.ratio][evidence.seeds] = evidence
    by_key = {record.cell.key: record for record in of_this_setting}
    for name, row_cells in (reference_rows or {}).items():
        of_row = [by_key[cell.key] for cell in row_cells if cell.key in by_key]
        drawn = _evidence(of_row, study, validated, problems, report)
        for ratio in ratios if drawn else ():
            cells[name, ratio] = {evidence.seeds: evidence for evidence in drawn.values()}
    reasons = {record.cell.key: "record damaged" for record in in_table if record.cell.key not in found}
    reasons |= dict.fromkeys(survey.disagreeing, "records disagree")
    missing = _missing([cell for cell in asked if cell.key not in found], store, reasons)
    lines = [left_out_line(*each) for each in excluded.items()]
    return Selection(dict(cells), missing, lines, problems, stalled(list(found.values()), study))


def _evidence(
    records: Sequence[Record], study: Study, validated: Mapping[str, Record], problems: list[str], report: Report
) -> dict[str, Evidence]:
    """Return evidence by key; a record whose scores cannot be used becomes a problem.

    Args:
        validated: see `_on_validation`.
    """
    collector = Collector(study.train, study.test, study.masks)
    found = {}
    for number, record in enumerate(records):
        try:
            found[record.cell.key] = collector.collect(record)
            if twin := validated.get(_training(record.cell)) if validated else None:
                found[record.cell.key] = _with_validation(found[record.cell.key], twin, study)
        except UserError as error:
            problems.append(str(error))
        report("reading scores", number + 1, len(records))
    return found


def _on_validation(records: Sequence[Record], study: Study) -> dict[str, Record]:
    """Return the records of trainings done without the validation images and evaluated on them, by `_training`."""
    if study.setting.evaluate_on != "test":
        return {}
    others = [record for record in records if record.cell.setting.evaluate_on == "val"]
    if not others:
        return {}
    try:
        setting = study.validation_setting()
    except UserError:  # nothing can be measured on these images, so none of the records is of this setting
        return {}
    return {
        _training(record.cell): record
        for record in others
        if record.cell.setting == setting and type(record.content.get("best_epoch")) is int
    }


def _with_validation(evidence: Evidence, twin: Record, study: Study) -> Evidence:
    """Return evidence with what the same training on validation images chose: the epoch, and thresholds of the
    categories.

    Raises:
        UserError: scores are damaged.
    """
    of = study.validation.test
    thresholds_C = thresholds.chosen(read_scores(twin, "scores.npz", of), of.labels_NC)
    scores_NC = read_scores(evidence.record, "scores.npz", study.test)
    validated = thresholds.evaluate(scores_NC, study.test.labels_NC, thresholds_C)
    # CF1 of the oracle is the best that was found, so whatever finds a better one raises it.
    oracle = {name: max(value, validated[name]) for name, value in evidence.oracle.items()}
    return replace(evidence, validated_epoch=twin.content["best_epoch"], validated=validated, oracle=oracle)


def _training(cell: Cell) -> str:
    """Identifies what is trained whatever the setting: method, values, ratio and seeds."""
    parts = [cell.method, cell.hyperparameters, vars(cell.recipe), cell.source_digest]
    return json.dumps([*parts, cell.ratio, cell.seed, cell.mask_seed], sort_keys=True)


def stalled(found: Sequence[Evidence], study: Study) -> list[str]:
    """Return a line for each learning rate and number of steps whose trainings led nowhere, with rows and ratios."""
    labels_NC = study.test.labels_NC
    by_length: dict[steps.Length, dict[str, set[float]]] = defaultdict(lambda: defaultdict(set))
    for record in (evidence.record for evidence in found):
        length = steps.Length.from_recipe(record.cell.recipe, len(study.train))
        precision = record.metrics["average_precision"]
        if steps.is_at_chance(precision, labels_NC) and steps.went_nowhere(
            read_arrays(record.folder / "steps.npz"), length.epochs, precision, labels_NC
        ):
            by_length[length][record.cell.label].add(record.cell.ratio)
    level = f"random scores have {100 * steps.chance(labels_NC):.1f} without interpolation"
    return [
        f"training went nowhere, {_named(rows)}: the mean loss hardly fell and mAP is at chance level ({level}); "
        f"{length.to_text()}; {steps.ADVICE}"
        for length, rows in by_length.items()
    ]


def _named(rows: Mapping[str, Collection[float]]) -> str:
    """Return row labels with ratios: ``sarb at 10 and 50 %, ssgrl at 10 %``."""
    return ", ".join(
        f"{label} at {' and '.join(f'{100 * ratio:g}' for ratio in sorted(ratios))} %"
        for label, ratios in sorted(rows.items())
    )


def _missing(cells: Sequence[Cell], store: ResultStore, known: Mapping[str, str]) -> Missing:
    """Return why cells are missing; of some keys it is known already."""
    reasons: dict[tuple[str, float], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        reason = known.get(cell.key) or _why_missing(cell, store)
        reasons[cell.label, cell.ratio][reason].append(cell.seed)
    return {
        place: "; ".join(
            f"{reason} (seed {', '.join(map(str, sorted(set(seeds))))})" for reason, seeds in seeds_by_reason.items()
        )
        for place, seeds_by_reason in reasons.items()
    }


def _why_missing(cell: Cell, store: ResultStore) -> str:
    """Return what the store says; for a stopped cell that goes on from its checkpoint, return where it stands."""
    position, epochs = checkpoint.position(store.folder(cell)), cell.recipe.epochs or 0
    place = "" if position is None or position[0] >= epochs else f"at epoch {position[0] + 1} of {epochs}"
    return _standing(store.why_missing(cell), place)


def unfinished(store: ResultStore, dataset: str) -> dict[Path, str]:
    """List the folders of a data set's cells that were begun and have no record, each with where it stands."""
    found = {}
    for folder, reason in store.unfinished(dataset).items():
        position = checkpoint.position(folder)
        if position is not None or reason != NOT_RUN:
            found[folder] = _standing(reason, "" if position is None else f"at epoch {position[0] + 1}")
    return found


def _standing(reason: str, place: str) -> str:
    """Put what the store says and the place of a checkpoint, which may be empty, into a few words."""
    if not place:
        return reason
    if reason == NOT_RUN:
        return f"stopped {place}"
    return reason.replace(INTERRUPTED, f"{INTERRUPTED} {place}", 1) if reason.startswith(INTERRUPTED) else reason
