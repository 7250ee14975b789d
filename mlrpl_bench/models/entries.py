"""This module defines what a file can register: methods, finishing steps, data sets, and other names for methods."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrpl_bench.data.dataset import Dataset, Preset
from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.finishing import JOINT, FinishingStep, derived, followed_by
from mlrpl_bench.models.parts.source_digest import source_digest
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.models.method import Method


@dataclass(frozen=True)
class StepEntry:
    """This is a registered finishing step: a class under a name, with the hyper-parameters that make it this one.

    Attributes:
        idea: what it does after the last epoch, in one sentence.
        paper: the paper's address.
        differs: how it differs from its paper.
        settings: hyper-parameters that differ from the class's defaults under this name.
    """

    name: str
    cls: type[FinishingStep]
    path: Path
    idea: str = ""
    paper: str = ""
    differs: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodEntry:
    """This is a registered method: a class under a name, with the hyper-parameters that make it this row.

    Attributes:
        idea: what the method does, in one sentence.
        paper: the paper's address.
        published: its row in published tables, or "".
        differs: how it differs from its paper.
        default: trained by ``leaderboard`` when no methods are asked for.
        settings: hyper-parameters that differ from the class's defaults under this name.
        step: what follows its training, where the name says so.
    """

    name: str
    cls: type[Method]
    path: Path
    idea: str = ""
    paper: str = ""
    published: str = ""
    differs: str = ""
    default: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    step: StepEntry | None = None

    def hyperparameters(self, overrides: dict[str, Any] | None = None) -> Any:
        """Return the hyper-parameters under this name, changed by overrides (strings are converted and checked)."""
        return hyperparameters.make_instance(
            self.cls.Hyperparameters, {**self.settings, **(overrides or {})}, self.name
        )

    def source_digest(self) -> str:
        """Identifies what the method's file and its local modules compute: unchanged by comments and layout."""
        own = source_digest(self.path)
        if self.step is None:
            return own
        return hashlib.sha256(f"{own}\n{source_digest(self.step.path)}".encode()).hexdigest()

    def followed_by(self, step: StepEntry) -> MethodEntry:
        """Return the method with a step after its training, under the name of both.

        Raises:
            UserError: they have a hyper-parameter of one name.
        """
        name = f"{self.name}{JOINT}{step.name}"
        return replace(
            self,
            name=name,
            cls=followed_by(self.cls, step.cls, name),
            idea=" ".join(filter(None, [self.idea, f"Then: {step.idea}" if step.idea else ""])),
            published="",
            differs="; ".join(filter(None, [self.differs, step.differs])),
            default=False,
            settings={**self.settings, **step.settings},
            step=step,
        )


@dataclass(frozen=True)
class Alias:
    """This is another name for a method at one known ratio. Tables show it as a row of its own, such as the upper
    bound.
    """

    name: str
    method: str
    ratio: float
    path: Path = Path()


@dataclass(frozen=True)
class Variant:
    """This is a registered method with another recipe or setting: the same file and class, and so no other digest.

    Attributes:
        method: the name of the method.
        idea: what is different, in one sentence.
        differs: how the row differs from the method's paper.
        published: its row in published tables, or "".
        settings: hyper-parameters that are different.
        recipe: fields of `Recipe` that are different.
    """

    name: str
    method: str
    idea: str
    differs: str
    published: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    path: Path = Path()

    def of(self, entry: MethodEntry) -> MethodEntry:
        """Return the entry under this name, made of the method's."""
        cls = derived(entry.cls, recipe=replace(entry.cls.recipe, **self.recipe))
        facts = {"idea": self.idea, "published": self.published, "differs": self.differs}
        settings = {**entry.settings, **self.settings}
        return replace(entry, name=self.name, cls=cls, default=False, settings=settings, **facts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class DatasetEntry:
    """This is a registered dataset.

    Attributes:
        preset: the setting that all methods share on it when no other is asked for.
        presets: settings that can be asked for by name; the usual one may be among them.
    """

    name: str
    cls: type[Dataset]
    path: Path
    preset: Preset
    presets: Mapping[str, Preset] = field(default_factory=dict)

    def preset_called(self, name: str | None) -> Preset:
        """Return the preset of a name; the usual one for None.

        Raises:
            UserError: the dataset has no such preset.
        """
        if name is None:
            return self.preset
        if name not in self.presets:
            there = f"there are: {', '.join(self.presets)}" if self.presets else "it has its usual one alone"
            raise UserError(f"--preset {name}: {self.name} has no such preset; {there}")
        return self.presets[name]


class Entries(dict[str, Any]):
    """This holds entries by name; a method with a step, ``ssgrl+cft``, is made when it is asked for, and is not listed.

    Args:
        steps: the steps by name, which may still grow.
    """

    def __init__(self, steps: Mapping[str, StepEntry]) -> None:
        super().__init__()
        self._steps = steps
        self._made: dict[str, MethodEntry] = {}

    def __missing__(self, name: str) -> MethodEntry:
        method, _, step = name.rpartition(JOINT)
        if not dict.__contains__(self, method) or step not in self._steps:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self[method].followed_by(self._steps[step])
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        method, _, step = str(name).rpartition(JOINT)
        return super().__contains__(name) or (step in self._steps and super().__contains__(method))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the entry of a name, or the default."""
        try:
            return self[name]
        except KeyError:
            return default
