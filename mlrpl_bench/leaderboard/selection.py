"""Which records a table may be made from; what is left out is said, never averaged in and never silently dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlrpl_bench.leaderboard.evidence import Collector, Evidence, EvidenceGrid, Seeds
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.cell import Cell
from mlrpl_bench.records.matching import reason_against
from mlrpl_bench.records.record import Record, read_arrays
from mlrpl_bench.records.store import ResultStore, left_out_line
from mlrpl_bench.training import checkpoint, steps
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError

Holes = Mapping[tuple[str, float], str]
"""By row label and known ratio: why one of its cells has no number."""

NOT_RUN, INTERRUPTED = "not run", "interrupted"
"""How the store's reasons begin that a checkpoint says more about."""


@dataclass(frozen=True)
class Selection:
    """The records of one table, and what stands in none of it.

    Attributes:
        cells: their evidence.
        holes: why cells that were asked for are not among them.
        left_out: a line for each kind of records of the data set that are not in the table.
        problems: a line for each record that cannot be used though it should be.
        stalled: a line for each kind of training that led nowhere.
    """

    cells: EvidenceGrid
    holes: Holes
    left_out: list[str]
    problems: list[str]
    stalled: Sequence[str] = ()


def select(
    study: Study,
    methods: Mapping[str, MethodEntry],
    store: ResultStore,
    wanted: Callable[[Cell], bool],
    asked: Iterable[Cell] = (),
    lines: Mapping[str, Sequence[Cell]] | None = None,
    ratios: Sequence[float] = (),
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Selection:
    """Look through the store for the records of a setting.

    Args:
        wanted: whether a cell of this setting belongs into the table.
        asked: cells that should be there; what is missing of them becomes a hole.
        lines: rows that show the same cells at each of `ratios`, by name.
        report: told about the making of evidence as (what, done, total).
    """
    survey = store.survey(study.setting.dataset)
    problems, left_out = list(survey.problems), defaultdict(list, survey.left_out)
    of_table, of_setting = [], []
    for record in survey.records:
        reason = reason_against(record.cell, study, methods)
        if reason is not None:
            left_out[reason].append(record.folder)
            continue
        of_setting.append(record)
        if wanted(record.cell):
            of_table.append(record)
    found = _evidence(of_table, study, problems, report)
    cells: dict[tuple[str, float], dict[Seeds, Evidence]] = defaultdict(dict)
    for key, evidence in found.items():
        assert key == evidence.record.cell.key
        cells[evidence.record.cell.label, evidence.record.cell.ratio][evidence.seeds] = evidence
    by_key = {record.cell.key: record for record in of_setting}
    for name, of_line in (lines or {}).items():
        drawn = _evidence([by_key[cell.key] for cell in of_line if cell.key in by_key], study, problems, report)
        for ratio in ratios if drawn else ():
            cells[name, ratio] = {evidence.seeds: evidence for evidence in drawn.values()}
    reasons = {record.cell.key: "record damaged" for record in of_table if record.cell.key not in found}
    reasons |= dict.fromkeys(survey.disagreeing, "records disagree")
    holes = _holes([cell for cell in asked if cell.key not in found], store, reasons)
    lines_of_left_out = [left_out_line(reason, folders) for reason, folders in left_out.items()]
    return Selection(dict(cells), holes, lines_of_left_out, problems, _stalled(list(found.values()), study))


def _evidence(
    records: Sequence[Record], study: Study, problems: list[str], report: Callable[[str, int, int], None]
) -> dict[str, Evidence]:
    """By key; a record whose scores cannot be used becomes a problem."""
    collector = Collector(study.train, study.test, study.masks)
    found = {}
    for number, record in enumerate(records):
        try:
            found[record.cell.key] = collector.of(record)
        except UserError as error:
            problems.append(str(error))
        report("reading scores", number + 1, len(records))
    return found


def _stalled(found: Sequence[Evidence], study: Study) -> list[str]:
    """A line for each learning rate and number of steps with which trainings led nowhere, with the rows and ratios."""
    labels_NC = study.test.labels_NC
    by_length: dict[steps.Length, dict[str, set[float]]] = defaultdict(lambda: defaultdict(set))
    for record in (evidence.record for evidence in found):
        length = steps.Length.of(record.cell.recipe, len(study.train))
        precision = record.metrics["average_precision"]
        if steps.is_at_chance(precision, labels_NC) and steps.went_nowhere(
            read_arrays(record.folder / "steps.npz"), length.epochs, precision, labels_NC
        ):
            by_length[length][record.cell.label].add(record.cell.ratio)
    share = f"{100 * steps.share_of_positives(labels_NC):.1f} % of the test labels are present"
    return [
        f"training went nowhere, {_named(rows)}: the mean loss hardly fell and mAP is at chance level ({share}); "
        f"{length.to_text()}; {steps.ADVICE}"
        for length, rows in by_length.items()
    ]


def _named(rows: Mapping[str, Collection[float]]) -> str:
    """Row labels with ratios: ``sarb at 10 and 50 %, ssgrl at 10 %``."""
    return ", ".join(
        f"{label} at {' and '.join(f'{100 * ratio:g}' for ratio in sorted(ratios))} %"
        for label, ratios in sorted(rows.items())
    )


def _holes(missing: Sequence[Cell], store: ResultStore, known: Mapping[str, str]) -> Holes:
    """Why cells are missing; of some keys it is known already."""
    reasons: dict[tuple[str, float], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for cell in missing:
        reason = known.get(cell.key) or _why_missing(cell, store)
        reasons[cell.label, cell.ratio][reason].append(cell.seed)
    return {
        place: "; ".join(
            f"{reason} (seed {', '.join(map(str, sorted(set(seeds))))})" for reason, seeds in of_place.items()
        )
        for place, of_place in reasons.items()
    }


def _why_missing(cell: Cell, store: ResultStore) -> str:
    """What the store says; of a cell that was stopped and goes on from its checkpoint, where it stands."""
    reason, position = store.why_missing(cell), checkpoint.position(store.folder(cell))
    epochs = cell.recipe.epochs or 0
    if position is None or position[0] >= epochs:
        return reason
    place = f"at epoch {position[0] + 1} of {epochs}"
    if reason == NOT_RUN:
        return f"stopped {place}"
    return reason.replace(INTERRUPTED, f"{INTERRUPTED} {place}", 1) if reason.startswith(INTERRUPTED) else reason
