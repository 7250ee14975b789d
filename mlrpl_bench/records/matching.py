"""This module tells whether a record still belongs to today's methods and setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Protocol

from mlrpl_bench.data.dataset import Preset
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.models.hyperparameters import EMA
from mlrpl_bench.models.method import Recipe
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records.cell import Cell, Setting
from mlrpl_bench.records.record import Record
from mlrpl_bench.utils.errors import UserError


def obstacle(cell: Cell, entry: MethodEntry, today: Today) -> str:
    """Say why a record's weights are of no use with the method and the options as they are now; "" if they are."""
    if cell.setting != today.setting:
        return f"trained with {'; '.join(options_to_give(cell.setting, today))}"
    if cell.source_digest != entry.source_digest():
        return f"trained before {entry.path.name} was edited"
    return ""


def options_to_give(there: Setting, today: Today) -> list[str]:
    """List how a setting differs from today's: the options to give, or else what no option decides alone."""
    values, own, flags = asdict(there), asdict(today.setting), today.flags
    differing = [name for name in values if values[name] != own[name]]
    given = [_as_typed(flags[name], values[name]) for name in differing if name in flags]
    if there.weights == "random" and "weights" in differing:
        given.append("--weights random")
    return given or [f"another {name.replace('_', ' ')} ({values[name]}, here {own[name]})" for name in differing]


def _as_typed(flag: str, value: object) -> str:
    """Write an option as a user types it: in a setting, compiling is part of the precision, a mask file a scheme."""
    if value == FROM_FILE:
        return "--mask-file FILE"
    if value is None:
        return f"no {flag}"
    return f"{flag} {value}".replace("+compile", " --compile")


class Today(Protocol):
    """This protocol describes what a record is compared with; a `Study` fulfils it.

    Attributes:
        setting: the setting that is asked for now.
        preset: the data set's preset, with what the user changed.
        flags: the command-line option that decides a field of a setting alone, by the field's name.
    """

    @property
    def setting(self) -> Setting: ...

    @property
    def preset(self) -> Preset: ...

    @property
    def flags(self) -> Mapping[str, str]: ...


def reason_against(cell: Cell, today: Today, methods: Mapping[str, MethodEntry]) -> str | None:
    """Say why a record does not belong in a study's table, whatever is asked for; None if it may."""
    if cell.setting != today.setting:
        return f"of another setting ({_differences(cell.setting, today.setting)})"
    entry = methods.get(cell.method)
    if entry is None:
        return "of a method that is not registered (a plug-in that is not named with --plugin?)"
    if cell.source_digest != entry.source_digest():
        return "trained before the method's file was edited"
    recipe = _recipe(entry, cell)
    if cell.recipe not in (recipe.resolve(today.preset), recipe.resolve(today.preset, cell.lr_factor)):
        return "trained with another recipe of the method"
    if not _defaults_are_the_same(cell, entry):
        return "trained with other default hyper-parameters"
    return None


def as_seen_here(cell: Cell, today: Today, methods: Mapping[str, MethodEntry], asked: Mapping[str, Cell]) -> Cell:
    """Return a record's cell with the row that it has under today's setting.

    The same rate is one factor on the learning rate under one ``--lr`` and another factor under another one. A cell
    that was asked for belongs to the row that it was asked for as.

    Args:
        asked: the cells that were asked for, by key.
    """
    if (same := asked.get(cell.key)) is not None:
        return same
    entry = methods.get(cell.method)
    if cell.lr_factor != 1 and entry is not None and cell.recipe == _recipe(entry, cell).resolve(today.preset):
        return replace(cell, lr_factor=1.0)
    return cell


def _recipe(entry: MethodEntry, cell: Cell) -> Recipe:
    """Return the method's recipe of today, with what the user changed in the cell's."""
    changed = {name: getattr(cell.recipe, name) for name in cell.changed if name == EMA}
    return replace(entry.cls.recipe, **changed)


def _defaults_are_the_same(cell: Cell, entry: MethodEntry) -> bool:
    """Tell whether the hyper-parameters that the user did not change have the values that they have now."""
    changed = {name: cell.hyperparameters[name] for name in cell.changed if name != EMA}
    try:
        return cell.hyperparameters == asdict(entry.hyperparameters(changed))
    except UserError:  # one that was changed then is not there any more
        return False


def _differences(there: Setting, here: Setting) -> str:
    """List the fields in which two settings differ: ``epochs 5 instead of 10, ...``."""
    a, b = asdict(there), asdict(here)
    names = [field.name for field in fields(Setting) if a[field.name] != b[field.name]]
    return ", ".join(f"{name.replace('_', ' ')} {a[name]} instead of {b[name]}" for name in names)


def edited_since(cell: Cell, records: Sequence[Record]) -> bool:
    """Tell whether there is a record that differs from the cell in nothing but the method's source."""
    content = {**cell.to_json(), "source_digest": ""}
    return any(
        content == {**record.cell.to_json(), "source_digest": ""} and record.cell.source_digest != cell.source_digest
        for record in records
    )
