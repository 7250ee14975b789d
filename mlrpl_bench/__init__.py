"""Compares methods for multi-label image recognition with partial labels; this is the public interface.

A method's or a data set's file, and a notebook, import from here; `docs/api.md` lists every name. Names are
looked up when they are first used (PEP 562), because torch and pandas take seconds to import.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlrpl_bench.api.actions.analysing import analyse
    from mlrpl_bench.api.actions.execute import Result
    from mlrpl_bench.api.actions.functions import claims, compare, fill, leaderboard, predict, records, run, tune
    from mlrpl_bench.api.actions.packing import export_records, import_records
    from mlrpl_bench.api.actions.showing import site
    from mlrpl_bench.api.request import Request
    from mlrpl_bench.data.dataset import Dataset, Preset, Split
    from mlrpl_bench.data.images.strong_view import StrongView
    from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
    from mlrpl_bench.models.backbones import Backbone
    from mlrpl_bench.models.finishing import FinishingStep, KnownEntries, LinearHead
    from mlrpl_bench.models.hyperparameters import parameter
    from mlrpl_bench.models.method import Batch, Method, ParameterGroup, Progress, Recipe, Task
    from mlrpl_bench.models.registry import (
        register_alias,
        register_dataset,
        register_method,
        register_step,
        register_variant,
    )
    from mlrpl_bench.training.options import Options
    from mlrpl_bench.utils.errors import UserError
    from mlrpl_bench.utils.files import build_folder_once
    from mlrpl_bench.utils.randomness import generator_at, seed_of, torch_draws_from

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "PRESENT",
    "UNKNOWN",
    "Backbone",
    "Batch",
    "Dataset",
    "FinishingStep",
    "KnownEntries",
    "LinearHead",
    "Method",
    "Options",
    "ParameterGroup",
    "Preset",
    "Progress",
    "Recipe",
    "Request",
    "Result",
    "Split",
    "StrongView",
    "Task",
    "UserError",
    "__version__",
    "analyse",
    "build_folder_once",
    "claims",
    "compare",
    "export_records",
    "fill",
    "generator_at",
    "import_records",
    "leaderboard",
    "parameter",
    "predict",
    "records",
    "register_alias",
    "register_dataset",
    "register_method",
    "register_step",
    "register_variant",
    "run",
    "seed_of",
    "site",
    "torch_draws_from",
    "tune",
]


class _Face(ModuleType):
    """Keeps the functions that are called like folders.

    Importing ``mlrpl_bench.records.store`` would set the folder as attribute ``records``, in place of the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlrpl_bench' has no attribute {name!r}; there are: {', '.join(__all__)}")
    for names_of_group in (_small, _of_data, _of_models, _of_api):
        if name in (found := names_of_group()):
            globals().update(found)
            return found[name]
    raise AssertionError(f"{name} is in __all__ and in no group")


def __dir__() -> list[str]:
    return list(__all__)


def _small() -> dict[str, Any]:
    """Return the names whose import does not take long."""
    from mlrpl_bench.api.request import Request
    from mlrpl_bench.models.hyperparameters import parameter
    from mlrpl_bench.training.options import Options
    from mlrpl_bench.utils.errors import UserError
    from mlrpl_bench.utils.files import build_folder_once

    return dict(locals())


def _of_data() -> dict[str, Any]:
    """Return the names for the author of a data set; this imports numpy."""
    from mlrpl_bench.data.dataset import Dataset, Preset, Split
    from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN

    return dict(locals())


def _of_models() -> dict[str, Any]:
    """Return the names for the author of a method; this imports torch."""
    from mlrpl_bench.data.images.strong_view import StrongView
    from mlrpl_bench.models.backbones import Backbone
    from mlrpl_bench.models.finishing import FinishingStep, KnownEntries, LinearHead
    from mlrpl_bench.models.method import Batch, Method, ParameterGroup, Progress, Recipe, Task
    from mlrpl_bench.models.registry import (
        register_alias,
        register_dataset,
        register_method,
        register_step,
        register_variant,
    )
    from mlrpl_bench.utils.randomness import generator_at, seed_of, torch_draws_from

    return dict(locals())


def _of_api() -> dict[str, Any]:
    """Return the names for a notebook; this imports everything."""
    from mlrpl_bench.api.actions.analysing import analyse
    from mlrpl_bench.api.actions.execute import Result
    from mlrpl_bench.api.actions.functions import claims, compare, fill, leaderboard, predict, records, run, tune
    from mlrpl_bench.api.actions.packing import export_records, import_records
    from mlrpl_bench.api.actions.showing import site

    return dict(locals())
