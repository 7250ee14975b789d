"""Chooses a learning rate, and perhaps hyper-parameters, for each method on validation images: ``tune``.

Every method gets the same grid: each learning rate with each combination of the given values. Every trial is a cell
like any other, so what was trained is not trained again. The test images are not looked at.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mlrpl_bench.api import tuned
from mlrpl_bench.api.actions import execute
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.tuned import Edge
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.leaderboard.comparison import compare
from mlrpl_bench.leaderboard.evidence import EvidenceGrid
from mlrpl_bench.leaderboard.report.write import write_file
from mlrpl_bench.models.hyperparameters import EMA, RATE, rate_factor, recipe_changes
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.cell import Job
from mlrpl_bench.records.record import to_json
from mlrpl_bench.records.store import Found
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import BEST, Entry, Table, counted

RATES = (0.3, 1.0, 3.0)
"""Factors on a method's learning rate that are tried unless others are given."""
RATIO = 0.5
"""The known ratio of the trials unless others are given."""


@dataclass(frozen=True, eq=False)
class Trial:
    """This is one set of values of a method, trained at each known ratio.

    Attributes:
        values: `RATE` and the hyper-parameters of the grid, in their own types.
        label: the row of its cells.
        mAP: on validation images by known ratio, a fraction; NaN where the cell failed.
        problem: why there is none, or "".
    """

    method: str
    values: Mapping[str, Any]
    label: str
    mAP: Mapping[float, float]
    problem: str

    @property
    def mean(self) -> float:
        """Return the mean over the known ratios; NaN where one failed."""
        return sum(self.mAP.values()) / len(self.mAP)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        by_ratio = {f"{ratio:g}": _number(value) for ratio, value in self.mAP.items()}
        return {"values": dict(self.values), "mAP": _number(self.mean), "by_ratio": by_ratio, "problem": self.problem}


@dataclass(frozen=True)
class RunnerUp:
    """The second-best trial of a method, and how sure it is that it is the second.

    Attributes:
        label: its row.
        difference: mAP of the chosen trial less that of this one, in percent points.
        low, high: its 95 % interval over the validation images; NaN where there is none.
        images: how many validation images there are.
    """

    label: str
    difference: float
    low: float
    high: float
    images: int

    @classmethod
    def of(cls, best: Trial, trials: Sequence[Trial], cells: EvidenceGrid, images: int) -> RunnerUp | None:
        """Compare the best of a method's trials with the next; None where no other has a number."""
        second = _best([trial for trial in trials if trial is not best])
        if second is None:
            return None
        found = compare(cells, best.label, second.label, list(best.mAP), ["mAP"]).lines[-1].finding
        return cls(second.label, found.difference, found.low, found.high, images)

    def doubt(self) -> str:
        """Return what to doubt about the choice; empty where the difference is larger than the noise."""
        on = f"on {counted(self.images, 'validation image')}"
        if self.difference == 0:
            return f"{self.label} is as good {on}; of equal trials the rate nearest to 1 was taken"
        if self.low > 0:
            return ""
        measured = f"{self.difference:.1f} points, 95 % interval {self.low:.1f} to {self.high:.1f}"
        return f"better than {self.label} by {measured} {on}, which is inside the noise: either may be the better one"

    def to_json(self) -> dict[str, Any]:
        """Return plain data; differences are fractions, as mAP is."""
        numbers = {name: _number(getattr(self, name) / 100) for name in ("difference", "low", "high")}
        return {"row": self.label, **numbers, "validation_images": self.images}


@dataclass(frozen=True, eq=False)
class Tuning:
    """This is the result of tuning.

    Attributes:
        trials: by method, in the order of the grid.
        chosen: of each method the best trial; a method all of whose trials failed has none.
        runners_up: of each method how far the chosen trial is from the second; a method with one trial left has none.
        content: what was written.
        path: the file.
        failures, problems: as in `execute.Result`.
    """

    trials: Mapping[str, Sequence[Trial]]
    chosen: Mapping[str, Trial]
    runners_up: Mapping[str, RunnerUp]
    content: Mapping[str, Any]
    path: Path
    failures: Sequence[str]
    problems: Sequence[str]

    @property
    def without_choice(self) -> list[str]:
        """Return the methods all of whose trials failed."""
        return [method for method in self.trials if method not in self.chosen]

    def frame(self) -> pd.DataFrame:
        """Return a row per trial: method, its values, mAP in percent, whether it was chosen, why it has no number."""
        rows = [
            {
                "method": method,
                **trial.values,
                "mAP": 100 * trial.mean,
                "chosen": trial is self.chosen.get(method),
                "problem": trial.problem,
            }
            for method, trials in self.trials.items()
            for trial in trials
        ]
        return pd.DataFrame(rows)

    def table(self, title: str) -> Table:
        """Return all trials; the chosen ones are marked as the best."""
        ratios = list(next(iter(self.trials.values()))[0].mAP)
        titles = [*(f"{100 * ratio:g} %" for ratio in ratios), *(["average"] if len(ratios) > 1 else [])]
        rows = []
        for method, trials in self.trials.items():
            for trial in trials:
                mark = BEST if trial is self.chosen.get(method) else ""
                numbers = [*trial.mAP.values(), *([trial.mean] if len(ratios) > 1 else [])]
                rows.append((trial.label, [_entry(number, mark) for number in numbers]))
        choices = {name: tuned.Choice.from_json(self.content["methods"][name]) for name in self.chosen}
        notes = ["mAP in percent on validation images; the best trial of a method is bold, in plain text *"]
        notes += [
            f"{method}: chosen {values_text(choice.values)} by {choice.budget}" for method, choice in choices.items()
        ]
        notes += [f"{method}: {line}" for method, choice in choices.items() for line in choice.warnings()]
        notes += [f"{method}: {line}" for method, choice in choices.items() for line in choice.places()]
        notes += [f"{method}: {line}" for method, second in self.runners_up.items() if (line := second.doubt())]
        notes += [f"{method}: every trial failed, so nothing was chosen" for method in self.without_choice]
        return Table("tuning", title, tuple(titles), rows, tuple(notes), corner="trial")


def grid(entry: MethodEntry, rates: Sequence[Any], values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return all combinations of learning rates and of values of a method's hyper-parameters, in their own types.

    Raises:
        UserError: an empty list, a value twice, a hyper-parameter that the method has not, or a value out of range.
    """
    lists: dict[str, list[Any]] = {RATE: [rate_factor({RATE: rate}, entry.name)[0] for rate in rates]}
    for name, given in values.items():
        if name == RATE:
            raise UserError(f"factors on the learning rate are given with --rates, not --set-values {RATE}=...")
        lists[name] = [_typed(entry, name, value) for value in given]
    for name, each in lists.items():
        option = "--rates" if name == RATE else f"--set-values {name}="
        if not each:
            raise UserError(f"{option} has no value; write them with commas between, such as 0.3,1,3")
        if len(set(each)) < len(each):
            raise UserError(f"{option} has a value twice; leave one out")
    return [dict(zip(lists, point, strict=True)) for point in itertools.product(*lists.values())]


def _typed(entry: MethodEntry, name: str, given: Any) -> Any:
    of_recipe, others = recipe_changes({name: given}, entry.name)
    return of_recipe.fields[name] if name in of_recipe.fields else getattr(entry.hyperparameters(others), name)


def tune(
    resolved: Resolved,
    watcher: Watcher,
    rates: Sequence[Any] = RATES,
    values: Mapping[str, Sequence[Any]] | None = None,
    out: Path | None = None,
) -> Tuning:
    """Train the grid of every method on the training images less the validation images, and choose the best.

    Args:
        resolved: methods, known ratios and setting; with one seed, evaluated on ``val``.
        rates: factors on a method's learning rate.
        values: hyper-parameters and the values that are tried, which every method must have.
        out: the file that the choices are added to; None for the one that tables look for.

    Raises:
        UserError: bad input, missing data, or a file of another setting; nothing was trained then.
    """
    plan = _planned(resolved, watcher, rates, values or {}, out)
    result = execute.execute(plan.resolved, watcher, study=plan.study)
    trials = {name: [_trial(plan, result, entry, point) for entry, point in plan.points if entry.name == name]
              for name in dict.fromkeys(entry.name for entry, _ in plan.points)}  # fmt: skip
    chosen = {name: best for name, each in trials.items() if (best := _best(each)) is not None}
    content = {"dataset": resolved.dataset.name, "setting": tuned.facts_of(plan.study)}
    cells, images = result.leaderboard.cells if result.leaderboard is not None else {}, len(plan.study.test)
    compared = {name: RunnerUp.of(best, trials[name], cells, images) for name, best in chosen.items()}
    runners_up = {name: second for name, second in compared.items() if second is not None}
    choices = {
        name: _choice(plan, resolved.methods[name], trials[name], best, runners_up.get(name))
        for name, best in chosen.items()
    }
    # Read again, as another process may have added a method meanwhile.
    content["methods"] = dict(sorted({**tuned.methods_in(plan.path, plan.study), **choices}.items()))
    if chosen:
        write_file(plan.path, to_json(content))
    return Tuning(trials, chosen, runners_up, json.loads(to_json(content)), plan.path, result.failures, result.problems)


def plan(
    resolved: Resolved,
    watcher: Watcher,
    rates: Sequence[Any] = RATES,
    values: Mapping[str, Sequence[Any]] | None = None,
    out: Path | None = None,
) -> execute.Plan:
    """Say which trials have no record yet; nothing is trained. Arguments as for `tune`."""
    planned = _planned(resolved, watcher, rates, values or {}, out)
    return execute.plan(planned.resolved, watcher, study=planned.study)


def with_usual_ratio(request: Request) -> Request:
    """Return the same request, with a known ratio.

    Where none is named and the masks do not decide it, it is the one of the trials.
    """
    options = request.options
    if request.ratios is not None or options.mask_scheme == "single_positive" or options.mask_file is not None:
        return request
    return replace(request, ratios=(RATIO,))


@dataclass(frozen=True, eq=False)
class _Planned:
    resolved: Resolved
    study: Study
    points: Sequence[tuple[MethodEntry, Mapping[str, Any]]]
    path: Path

    def jobs(self, entry: MethodEntry, point: Mapping[str, Any]) -> dict[float, Job]:
        (seeds,) = self.resolved.seeds
        return {ratio: self.study.job(entry, ratio, *seeds, point) for ratio in self.resolved.ratios}

    def with_earlier(self, entry: MethodEntry, tuned_before: Any) -> list[dict[str, Any]]:
        """Return a method's trials with those of earlier lists that count as they do.

        So the best of all is chosen, and no budget looks smaller than it was. Earlier ones count if they were made at
        the same known ratios with the same seed and their records are there. Where one list has a value that the other
        has not, the other's trials have the method's usual one.

        Args:
            tuned_before: what the file has of the method.
        """
        found = [dict(point) for other, point in self.points if other is entry]
        here = {"ratios": list(self.resolved.ratios), "seed": self.resolved.seeds[0][0]}
        if not isinstance(tuned_before, dict) or {name: tuned_before.get(name) for name in here} != here:
            return found
        keys = {job.cell.key for point in found for job in self.jobs(entry, point).values()}
        for values in tuned.trials_in(self.path, tuned_before):
            try:
                jobs = self.jobs(entry, values)
            except UserError:  # the method has no such hyper-parameter any more
                continue
            status = (self.resolved.store.status(job.cell) for job in jobs.values())
            if keys.isdisjoint(job.cell.key for job in jobs.values()) and all(isinstance(s, Found) for s in status):
                found.append(values)
        names = dict.fromkeys(name for point in found for name in point)
        return [{name: point.get(name, _usual(entry, name)) for name in names} for point in found]


def _planned(
    resolved: Resolved, watcher: Watcher, rates: Sequence[Any], values: Mapping[str, Sequence[Any]], out: Path | None
) -> _Planned:
    request = resolved.request
    if request.options.evaluate_on != "val":
        raise UserError("tuning looks at validation images alone; leave --evaluate-on out")
    assert len(resolved.seeds) == 1, "one seed is tuned on"
    points = [(entry, point) for entry, _ in resolved.rows for point in grid(entry, rates, values)]
    if not points:
        raise UserError("no method is named; name at least one")
    study = Study(resolved.dataset, request.options, watcher.report)
    path = out or resolved.store.root / resolved.dataset.name / tuned.file_name(study)
    if out is None:
        resolved.store.refuse_address()
    methods = tuned.methods_in(path, study)  # refuses before anything is trained
    planned = _Planned(resolved, study, points, path)
    by_method = {entry.name: planned.with_earlier(entry, methods.get(entry.name)) for entry, _ in resolved.rows}
    if any(len(each) == 1 for each in by_method.values()):
        raise UserError("with one trial a method nothing is chosen; name two --rates or more, or two --set-values")
    earlier = sum(map(len, by_method.values())) - len(points)
    beside = f", beside {counted(earlier, 'trial')} of before" if earlier else ""
    watcher.note(f"{counted(len(points), 'trial')}{beside} at {counted(len(resolved.ratios), 'known ratio')}")
    points = [(entry, point) for entry, _ in resolved.rows for point in by_method[entry.name]]
    return replace(planned, resolved=replace(resolved, rows=points), points=points)


def _usual(entry: MethodEntry, name: str) -> Any:
    """Return what a method has for a value that is not tuned."""
    return 1.0 if name == RATE else getattr(entry.cls.recipe if name == EMA else entry.hyperparameters(), name)


def _trial(plan: _Planned, result: execute.Result, entry: MethodEntry, point: Mapping[str, Any]) -> Trial:
    cells = result.leaderboard.cells if result.leaderboard is not None else {}
    jobs = plan.jobs(entry, point)
    label = next(iter(jobs.values())).cell.label
    found, problems = {}, []
    for ratio, job in jobs.items():
        evidence = cells.get((label, ratio), {}).get((job.cell.seed, job.cell.mask_seed))
        found[ratio] = math.nan if evidence is None else float(evidence.record.metrics["mAP"])
        if evidence is None:
            problems.append(f"{100 * ratio:g} %: {plan.resolved.store.why_missing(job.cell)}")
    return Trial(entry.name, point, label, found, "; ".join(problems))


def _best(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest mAP.

    Of equal ones the rate nearest to the method's own goes first, then the earlier one.
    """
    whole = [trial for trial in trials if not math.isnan(trial.mean)]
    return min(whole, key=lambda trial: (-trial.mean, abs(math.log(trial.values[RATE]))), default=None)


def _choice(
    plan: _Planned, entry: MethodEntry, trials: Sequence[Trial], best: Trial, second: RunnerUp | None
) -> dict[str, Any]:
    lists = {name: [trial.values[name] for trial in trials] for name in best.values}
    numeric = {name: each for name, each in lists.items() if all(type(value) in (int, float) for value in each)}
    edges = {name: Edge.find(best.values[name], each) for name, each in numeric.items()}
    return {
        "values": dict(best.values),
        "mAP": best.mean,
        "ratios": list(plan.resolved.ratios),
        "seed": plan.resolved.seeds[0][0],
        "edges": {name: asdict(edge) for name, edge in edges.items() if edge is not None},
        "second": None if second is None else second.to_json(),
        "source_digest": entry.source_digest(),
        "trials": [trial.to_json() for trial in trials],
    }


def values_text(values: Mapping[str, Any]) -> str:
    """Return text such as ``lr=3, alpha=0.5``."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )


def _entry(number: float, mark: str) -> Entry:
    return Entry("failed") if math.isnan(number) else Entry(f"{100 * number:.1f}", mark, value=100 * number)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
