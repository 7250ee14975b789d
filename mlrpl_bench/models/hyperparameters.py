"""This module declares typed hyper-parameters with ranges and reads ``--set name=value``."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlrpl_bench.utils.errors import UserError

RATE = "lr"
"""Among a row's overrides this is the factor on its learning rate; no method has a hyper-parameter of this name."""
PATHS_TO = ("labels", "training images", "test images")
"""A dataset's option may be a path to these: labels of images that are named by their ids, or what gives images."""
SMALLEST_FACTOR = 1e-6
"""This is the smallest factor on a learning rate; the largest is as far from 1 on the other side."""

EMA = "ema"
"""Among a row's overrides this is the recipe's `Recipe.ema`; no method has a hyper-parameter of this name."""
SMALLEST_EMA, LARGEST_EMA = 0.01, 4.3
"""These bound the time constant of averaged weights, in epochs of 20.

At the largest, 1 % of an average is still the untrained weights: e^(-20 / 4.3).
"""

OF_THE_RECIPE = {
    RATE: "the factor on any method's learning rate",
    EMA: "the time constant of any method's averaged weights",
}
"""These overrides are valid for every method, and so no method has a hyper-parameter of such a name."""

OF_A_METHOD = "hyper-parameter"
"""What the fields of a method are called in messages."""


def parameter(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    path_to: str = "",
) -> Any:
    """Make a dataclass field that knows its meaning and its valid values (bounds are inclusive).

    Args:
        path_to: of a dataset's option whose value is a path, one of `PATHS_TO`: what lies there. A cell's key has that
            in place of the path.
    """
    assert not path_to or path_to in PATHS_TO, f"path_to is one of {PATHS_TO}"
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices, "path_to": path_to}
    return dataclasses.field(default=default, metadata=metadata)


def paths_of(cls: type) -> dict[str, str]:
    """Return the options of a dataset whose value is a path, with what lies there, one of `PATHS_TO`."""
    found = {field.name: field.metadata.get("path_to", "") for field in dataclasses.fields(cls)}
    return {name: path_to for name, path_to in found.items() if path_to}


def parse_assignments(pairs: Sequence[str], option: str = "--set") -> dict[str, str]:
    """Convert ``["alpha=0.3"]`` to ``{"alpha": "0.3"}``.

    Raises:
        UserError: a pair that is none; the line names the command-line option that it came by.
    """
    changed = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"{option} {pair!r} is not valid; write it as name=value")
        changed[name.strip()] = value.strip()
    return changed


def rate_factor(changed: Mapping[str, Any], owner: str) -> tuple[float, dict[str, Any]]:
    """Split a row's overrides into the factor on its learning rate (1 where there is none) and the others.

    Raises:
        UserError: the factor is no number, or out of range.

    >>> rate_factor({"lr": "3", "alpha": "0.5"}, "sarb")
    (3.0, {'alpha': '0.5'})
    """
    others = {name: value for name, value in changed.items() if name != RATE}
    given = changed.get(RATE, 1.0)
    try:
        factor = float(given)
    except (TypeError, ValueError):
        factor = math.nan
    if isinstance(given, bool) or not SMALLEST_FACTOR <= factor <= 1 / SMALLEST_FACTOR:
        raise UserError(
            f"{owner}: {RATE}={given} is not valid, it is a factor on the learning rate, "
            f"from {SMALLEST_FACTOR:g} to {1 / SMALLEST_FACTOR:g}"
        )
    return factor, others


class RecipeChanges(NamedTuple):
    """Recipe changes are what a row's overrides change in its method's recipe.

    Attributes:
        lr_factor: the row's factor on the learning rate.
        fields: fields of `Recipe` that are given, by name.
    """

    lr_factor: float
    fields: dict[str, Any]


def recipe_changes(changed: Mapping[str, Any], owner: str) -> tuple[RecipeChanges, dict[str, Any]]:
    """Split a row's overrides into those of its recipe and those of its method's hyper-parameters.

    Raises:
        UserError: a value for the recipe is no number, or out of range.

    >>> recipe_changes({"lr": "3", "ema": "2", "alpha": "0.5"}, "sarb")
    (RecipeChanges(lr_factor=3.0, fields={'ema': 2.0}), {'alpha': '0.5'})
    """
    factor, others = rate_factor(changed, owner)
    fields = {EMA: _ema(others.pop(EMA), owner)} if EMA in others else {}
    return RecipeChanges(factor, fields), others


def _ema(given: Any, owner: str) -> float | None:
    if given is None or str(given).lower() == "none":
        return None
    try:
        epochs = float(given)
    except (TypeError, ValueError):
        epochs = math.nan
    if isinstance(given, bool) or not SMALLEST_EMA <= epochs <= LARGEST_EMA:
        raise UserError(
            f"{owner}: {EMA}={given} is not valid, it is the time constant of averaged weights in epochs of 20, "
            f"from {SMALLEST_EMA:g} to {LARGEST_EMA:g}, or none"
        )
    return epochs


def make_instance(cls: type, values: Mapping[str, Any], owner: str, kind: str = OF_A_METHOD) -> Any:
    """Make an instance of a hyper-parameter dataclass; strings are converted to the field's type and everything
    checked.

    Raises:
        UserError: an unknown name, or a value of the wrong type or out of range; the line lists the valid ones.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            everywhere = OF_THE_RECIPE if kind == OF_A_METHOD else {}
            close = difflib.get_close_matches(name.lower(), [*fields, *everywhere], n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            also = "; for every method: " + ", ".join(f"{key} ({text})" for key, text in everywhere.items())
            raise UserError(f"{owner} has no {kind} {name!r}{hint}; {describe(cls)}{also if everywhere else ''}")
    converted = {name: _convert(value, hints[name], fields[name], owner, cls) for name, value in values.items()}
    return cls(**converted)


def describe(cls: type) -> str:
    """Return one line with every hyper-parameter of a dataclass, its default and its valid values."""
    fields = dataclasses.fields(cls)
    if not fields:
        return "it has none"
    return "valid: " + ", ".join(f"{field.name}={field.default} ({valid_values(cls, field)})" for field in fields)


def valid_values(cls: type, field: dataclasses.Field) -> str:
    """Return the type and range of one field in words, such as ``float, 0 to 1``."""
    if choices := field.metadata.get("choices"):
        return " | ".join(choices)
    kind, optional = plain_type(typing.get_type_hints(cls)[field.name])
    low, high = field.metadata.get("low"), field.metadata.get("high")
    text = "true | false" if kind is bool else kind.__name__
    if low is not None and high is not None:
        text += f", {low:g} to {high:g}"
    elif low is not None:
        text += f", at least {low:g}"
    elif high is not None:
        text += f", at most {high:g}"
    return text + (" or none" if optional else "")


def _convert(value: Any, hint: Any, field: dataclasses.Field, owner: str, cls: type) -> Any:
    def refuse() -> UserError:
        return UserError(
            f"{owner}: {field.name}={value} is not valid, it must be {valid_values(cls, field)}; {describe(cls)}"
        )

    kind, optional = plain_type(hint)
    if optional and (value is None or str(value).lower() == "none"):
        return None
    try:
        converted = _to_bool(value) if kind is bool else kind(value)
    except (TypeError, ValueError):
        raise refuse() from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise refuse()
    if isinstance(value, float) and converted != value:  # int(2.5) is no answer
        raise refuse()
    low, high, choices = (field.metadata.get(key) for key in ("low", "high", "choices"))
    if (choices and converted not in choices) or (low is not None and converted < low):
        raise refuse()
    if high is not None and converted > high:
        raise refuse()
    return converted


def plain_type(hint: Any) -> tuple[type, bool]:
    """Return (float, True) for ``float | None``, (float, False) for ``float``."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        assert len(kinds) == 1, f"a hyper-parameter has one type, not {hint}"
        return kinds[0], True
    return hint, False


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words[str(value).lower()] if str(value).lower() in words else _not_a_bool(value)


def _not_a_bool(value: Any) -> bool:
    raise ValueError(value)
