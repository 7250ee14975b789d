"""This module makes the page of methods, ``docs/methods.md``, from the registry and a measurement of costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import MethodEntry, Registry
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.progress import Report
from mlrpl_bench.utils.tables import escape_markdown, pipe_table

ROUNDS = 7
HEAD = ("name", "idea", "paper", "published as", "cost", "differs from the paper")
HEAD_OF_STEPS = ("name", "what follows", "paper", "differs from the paper")


def page(methods: Registry[MethodEntry], costs: Mapping[str, float], reference: str, where: str) -> str:
    """Write the page in Markdown, with a section for each file of methods and a row for each name.

    Args:
        costs: the time of a training step relative to `reference`, by name; a name without one gets a dash.
        reference: the name of the method whose step costs 1.
        where: the setting in which the costs were measured.
    """
    lines = [
        "# Methods",
        "",
        "Made by `python bench.py list methods --markdown`. Cost is the time of a late training step (all loss terms",
        f"on) relative to `{reference}`, reading and the frozen part aside: median of {ROUNDS} rounds, {where}.",
        "It has the frozen part of images that a method makes itself, such as mixtures, and not that of a strong view,",
        "which all cells of a group share, nor passes over the training set: `profile` measures these.",
    ]
    by_file: dict[str, list[MethodEntry]] = {}
    for name in methods:
        by_file.setdefault(methods[name].path.name, []).append(methods[name])
    for file, entries in sorted(by_file.items()):
        rows = [_row(entry, costs.get(entry.name)) for entry in entries]
        lines += ["", f"## {file}", "", pipe_table(HEAD, rows, [title != "cost" for title in HEAD])]
    aliases = [f"`{a.name}` is `{a.method}` at a known ratio of {a.ratio:g}." for a in methods.aliases.values()]
    if methods.steps:
        lines += ["", *_steps(methods)]
    return "\n".join([*lines, "", *aliases]) + "\n"


def _steps(methods: Registry[MethodEntry]) -> list[str]:
    """Explain the names of methods that a step follows, and list the steps."""
    rows = [
        [f"`METHOD+{name}`", *map(escape_markdown, (step.idea, step.paper, step.differs))]
        for name, step in sorted(methods.steps.items())
    ]
    return [
        "## Steps after training",
        "",
        "A step can follow any method with a last linear layer: the name of such a row is the method's, a plus and the",
        "step's, as in `ssgrl+cft`. The step may hold labels back from training, and goes on from its last epoch; the",
        "row has the hyper-parameters of both. A method without one such layer is refused before it is trained.",
        "",
        pipe_table(HEAD_OF_STEPS, rows, [True] * len(HEAD_OF_STEPS)),
    ]


def step_costs(study: Study, methods: Registry[MethodEntry], reference: str, report: Report) -> dict[str, float]:
    """Measure the time of a training step of each method relative to a reference method's, in turns with it.

    The study's own images are used, at half of the labels known, and weights that were not trained: a step costs the
    same with them.

    Args:
        reference: the name of the method whose step costs 1.
        report: told about the progress as (what, done, total).
    """
    from mlrpl_bench.training.run import CellRun

    def run_of(name: str) -> CellRun:
        run = CellRun(study.job(methods[name], 0.5, 0, 0, {}), study.workbench)
        run.look_at_training_set(Progress(0, 1))
        run.start_epoch(late)
        return run

    batch = study.preset.batch
    late = Progress(study.preset.epochs - 1, study.preset.epochs, 1, 10)
    of_reference = run_of(reference)
    costs = {}
    for done, name in enumerate(methods):
        report("measuring the methods' steps", done, len(methods.entries))
        run = run_of(name)
        shared = next(iter(study.workbench.training_batches(0, 0, batch, strong=[run.strong_view])))
        ratios = []
        for _ in range(ROUNDS + 1):
            ratios.append(_seconds(lambda: run.step(shared, late)) / _seconds(lambda: of_reference.step(shared, late)))  # noqa: B023
        costs[name] = statistics.median(ratios[1:])  # the first step of a method is not like the others
    report("measuring the methods' steps", len(methods.entries), len(methods.entries))
    return costs


def _seconds(action: Callable[[], None]) -> float:
    import torch

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


def _row(entry: MethodEntry, cost: float | None) -> list[str]:
    cost_text = "-" if cost is None else f"{cost:.1f}"
    facts = (entry.idea, entry.paper, entry.published, cost_text, entry.differs)
    return [f"`{entry.name}`", *map(escape_markdown, facts)]
