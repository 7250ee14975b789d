"""The file that `tune` writes: the values that were chosen for each method, and every trial behind them.

It belongs to one setting. Values that were chosen under another one are refused, not used. Only the precision may be
another one, which the table then says: it is the machine's arithmetic, and the trials may have had another machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrpl_bench.models.hyperparameters import RATE, recipe_changes
from mlrpl_bench.models.registry import MethodEntry, Registry
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.tables import counted

EDGES = ("lowest", "highest")
PRECISION = "precision"


def file_name(study: Study) -> str:
    """Return ``tuned.json`` for a data set's usual setting; another one is in the name, as it is in names of tables."""
    ending = study.variant(whichever_images=True)
    return f"tuned-{ending}.json" if ending else "tuned.json"


def row_name(method: str) -> str:
    """Return what a table calls the row of a method with its tuned values."""
    return f"{method} (tuned)"


def facts_of(study: Study) -> dict[str, Any]:
    """Return the setting that values are tuned under, whichever images are evaluated, as plain data."""
    setting = study.setting.to_json()
    facts = {name: value for name, value in setting.items() if name not in ("evaluate_on", "fingerprint")}
    whole, _ = study.inputs.sources["train"]
    data_options = "-".join(study.data_options("val")).split("-")  # in the parts that files of before have it in
    facts |= {"training_set": whole.fingerprint()[:16], "data_options": list(filter(None, data_options))}
    return json.loads(json.dumps({**facts, "lr": study.preset.lr_multiplier}))


@dataclass(frozen=True)
class Edge:
    """This says how far a chosen value is from the edge of the list that it was chosen from.

    Attributes:
        values: the list in ascending order.
        edge: the end that is nearer, ``lowest`` or ``highest``.
        steps: how many values of the list are beyond it on that side; 0 at the edge.
    """

    values: Sequence[float]
    edge: str
    steps: int

    @classmethod
    def find(cls, value: float, values: Sequence[float]) -> Edge | None:
        """Return where a value stands in a list; None where the list has one value.

        >>> Edge.find(3.0, [1.0, 3.0, 0.3])
        Edge(values=[0.3, 1.0, 3.0], edge='highest', steps=0)
        """
        ordered = sorted(set(values))
        if len(ordered) < 2:
            return None
        below = ordered.index(value)
        above = len(ordered) - 1 - below
        return cls(ordered, EDGES[above <= below], min(below, above))


@dataclass(frozen=True)
class Choice:
    """This is the choice of values for a method.

    Attributes:
        values: the chosen values: ``lr``, the factor on the learning rate, and any hyper-parameters.
        mAP: of the chosen values on validation images, averaged over the known ratios; a fraction.
        trials: how many sets of values were tried, those that failed among them.
        ratios: the known ratios at which each was trained.
        seed: of all trials.
        edges: of each list of numbers, where the chosen value stands in it.
        source_digest: identifies the method's file.
    """

    values: Mapping[str, Any]
    mAP: float
    trials: int
    ratios: Sequence[float]
    seed: int
    edges: Mapping[str, Edge]
    source_digest: str

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Choice:
        """Return the choice that `tune` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it wrote something else.
        """
        edges = {
            str(name): Edge([float(value) for value in edge["values"]], str(edge["edge"]), int(edge["steps"]))
            for name, edge in content["edges"].items()
        }
        ratios = [float(ratio) for ratio in content["ratios"]]
        found = cls(
            dict(content["values"]),
            float(content["mAP"]),
            len(content["trials"]),
            ratios,
            int(content["seed"]),
            edges,
            str(content["source_digest"]),
        )
        for name in edges:
            float(found.values[name])
        if not ratios or not found.trials or not math.isfinite(found.mAP):
            raise ValueError("a method without trials")
        return found

    @property
    def budget(self) -> str:
        """Return text such as ``3 trials at 10 % and 50 % known, seed 0``."""
        known = " and ".join(f"{100 * ratio:g} %" for ratio in self.ratios)
        return f"{counted(self.trials, 'trial')} at {known} known, seed {self.seed}"

    def rates(self) -> list[Edge]:
        """Return where the factor on the learning rate stands in its list; nothing where only one was tried."""
        return [edge for name, edge in self.edges.items() if name == RATE]

    def places(self) -> list[str]:
        """Return a line for each value inside its list, with how many values are beyond it on the nearer side."""
        return [
            f"{name}={self.values[name]:g} is not at the edge: {counted(edge.steps, 'value')} of "
            f"{', '.join(f'{value:g}' for value in edge.values)} lie{'s' * (edge.steps == 1)} beyond it"
            for name, edge in self.edges.items()
            if edge.steps
        ]

    def warnings(self) -> list[str]:
        """Return a line for each value at the edge of its list."""
        return [
            f"{name}={self.values[name]:g} is at the edge, the {edge.edge} of "
            f"{', '.join(f'{value:g}' for value in edge.values)}; a longer list may hold a better one"
            for name, edge in self.edges.items()
            if edge.steps == 0
        ]


@dataclass(frozen=True)
class Tuned:
    """These are the tuned values of one setting.

    Attributes:
        path: the file.
        choices: by method.
        other_precision: of the trials, where it is not that of the rows, such as ``bf16-mixed``; else empty.
    """

    path: Path
    choices: Mapping[str, Choice]
    other_precision: str = ""

    def notes(self, rows: Mapping[str, str], digests: Mapping[str, str], evaluate_on: str) -> list[str]:
        """Return what a table says of its tuned rows.

        Args:
            rows: of each tuned method in the table, the row with its values spelt out.
            digests: of each, what identifies its file today.
            evaluate_on: the split that the table is about.
        """
        by_budget: dict[str, list[str]] = {}
        for method, label in rows.items():
            by_budget.setdefault(self.choices[method].budget, []).append(f"{row_name(method)} is {label}")
        lines = [
            f"tuned by mAP on validation images, {budget}: {', '.join(each)}" for budget, each in by_budget.items()
        ]
        if self.other_precision:
            lines.append(f"the trials were trained in {self.other_precision}, other than the rows")
        if len(by_budget) > 1:
            lines.append("the tuned rows had different budgets, so they are not compared on equal terms")
        elif len({tuple(edge.values) for method in rows for edge in self.choices[method].rates()}) > 1:
            lines.append("the tuned rows had different lists of rates, so they are not compared on equal terms")
        of_line: dict[str, list[str]] = {}
        for method in rows:
            for line in (*self.choices[method].warnings(), *self.choices[method].places()):
                of_line.setdefault(line, []).append(row_name(method))
        lines += [f"{', '.join(of_rows)}: {line}" for line, of_rows in of_line.items()]
        edited = [method for method in rows if self.choices[method].source_digest != digests[method]]
        lines += [f"{row_name(method)} was tuned before its file was edited; tune it again" for method in edited]
        if evaluate_on == "val":
            lines.append("tuned rows were chosen on the very images that are evaluated here, so they look too good")
        return lines


def read(path: Path, study: Study, methods: Registry[MethodEntry]) -> Tuned:
    """Read the tuned values for a setting.

    Raises:
        UserError: there is no such file, `tune` did not write it, it is of a setting that differs in more than the
            precision, or it has values of an unknown method or values that the method does not take.
    """
    content = _content(path)
    if content is None:
        raise UserError(f"there is no {path}; tune first, or name another file with --tuned-file")
    if differing := differences(content, study, but=PRECISION):
        raise UserError(
            f"{path} was tuned under another setting ({differing}); tune under this one, or give its options"
        )
    try:
        choices = {str(name): Choice.from_json(each) for name, each in content["methods"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_ours(path, repr(error)) from error
    for name, choice in choices.items():
        if name not in methods.entries:
            raise UserError(f"{path} has values of {name}, which is no method here; name its file with --plugin")
        try:
            _, others = recipe_changes(choice.values, name)
            methods[name].hyperparameters(others)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    there = str(content["setting"].get(PRECISION))
    return Tuned(path, choices, "" if there == study.setting.precision else there)


def methods_in(path: Path, study: Study) -> dict[str, Any]:
    """Return the methods that a file has already, to which more are added; nothing where there is no file.

    Raises:
        UserError: `tune` did not write it, or it is of another setting.
    """
    content = _content(path)
    if content is None:
        return {}
    if differing := differences(content, study):
        raise UserError(f"{path} is of another setting ({differing}); move it away, or name another file with --out")
    if not isinstance(content.get("methods"), dict):
        raise _not_ours(path, "it has no methods")
    return content["methods"]


def trials_in(path: Path, of_method: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the values of the trials that a file has of a method.

    Raises:
        UserError: `tune` did not write it.
    """
    try:
        return [dict(trial["values"]) for trial in of_method["trials"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _not_ours(path, repr(error)) from error


def differences(content: Mapping[str, Any], study: Study, but: str = "") -> str:
    """Return how a file's setting differs from a study's, in words; empty where it does not.

    Args:
        but: a fact that may differ, if the file has it.
    """
    there, here = content.get("setting"), facts_of(study)
    if not isinstance(there, dict):
        return "it says nothing of it"
    return ", ".join(
        f"{name.replace('_', ' ')} {there.get(name)} instead of {here.get(name)}"
        for name in dict.fromkeys([*here, *there])
        if there.get(name) != here.get(name) and not (name == but and name in there)
    )


def _content(path: Path) -> dict[str, Any] | None:
    """Return the object in the file; None where there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); allow it, or name another file") from error
    except (ValueError, RecursionError) as error:
        raise _not_ours(path, str(error)) from error
    if not isinstance(content, dict):
        raise _not_ours(path, "no JSON object")
    return content


def _not_ours(path: Path, why: str) -> UserError:
    return UserError(f"{path} is no file that tune wrote ({why}); move it away and tune again")
