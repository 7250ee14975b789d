"""This module sorts records into leaderboards: one for each data set, setting, learning rate and way to draw masks."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mlrpl_bench.data.dataset import PAPERS
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.data.protocol import PAPERS_SCHEME
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry
from mlrpl_bench.records.cell import Cell, Setting
from mlrpl_bench.records.record import Record
from mlrpl_bench.tools.site.names import file_name
from mlrpl_bench.utils.tables import counted


@dataclass(frozen=True)
class Group:
    """A group holds the records of one leaderboard.

    Attributes:
        dataset: the name of the data set.
        about: the setting in a few words.
        slug: what files are called after it.
        setting: what all of its cells share.
        lr_multiplier: the factor on every method's learning rate; None where it cannot be told.
        records: those that stand in tables.
        others: those that do not, each with the reason.
    """

    dataset: str
    about: str
    slug: str
    setting: Setting
    lr_multiplier: float | None
    records: Sequence[Record]
    others: Sequence[tuple[Record, str]] = field(default_factory=tuple)


@dataclass(frozen=True)
class _Identity:
    """This holds what a leaderboard's records have in common; `mask` and `rate` are words for what is not usual."""

    setting: str
    lr_multiplier: float | None
    mask: str
    rate: str = ""


def group(
    records: Sequence[Record], methods: Mapping[str, MethodEntry], datasets: Mapping[str, DatasetEntry]
) -> list[Group]:
    """Sort records into leaderboards, by data set and then from many records to few.

    Records of one row that were trained with different code, recipe or default values are never averaged: those of the
    method's file as it is here stand in the table, or else the most numerous ones, and the others are named.
    """
    found: dict[_Identity, list[Record]] = defaultdict(list)
    for record in records:
        found[_identity(record.cell, methods, datasets)].append(record)
    for identity in [each for each in found if each.mask.startswith("mask ")]:
        own_masks = found.get(replace(identity, mask=""), [])
        found[identity] += [r for r in own_masks if f"mask {r.cell.mask_seed}" == identity.mask]
    order = sorted(found, key=lambda each: (found[each][0].cell.setting.dataset, -len(found[each]), str(each)))
    alike = Counter((found[each][0].cell.setting.dataset, _about(each, found[each][0].cell)) for each in order)
    return [_group(each, found[each], methods, alike) for each in order]


def _group(
    identity: _Identity, records: Sequence[Record], methods: Mapping[str, MethodEntry], alike: Mapping[Any, int]
) -> Group:
    cell = records[0].cell
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:8]
    about = _about(identity, cell)
    if alike[cell.setting.dataset, about] > 1:
        about += f", setting {digest[:4]}"
    shown, others = _of_one_version(records, methods)
    slug = f"{file_name(cell.setting.dataset)}-{digest}"
    return Group(cell.setting.dataset, about, slug, cell.setting, identity.lr_multiplier, shown, others)


def _identity(cell: Cell, methods: Mapping[str, MethodEntry], datasets: Mapping[str, DatasetEntry]) -> _Identity:
    setting, mask = cell.setting, ""
    if setting.mask_scheme == FROM_FILE:
        mask = f"mask from file {cell.mask_hash[:8]}"
    elif cell.mask_seed != cell.seed:
        mask = f"mask {cell.mask_seed}"
    text = json.dumps(setting.to_json(), sort_keys=True)
    multiplier, dataset = _lr_multiplier(cell, methods, datasets), datasets.get(setting.dataset)
    is_usual = multiplier is None or (dataset is not None and multiplier == dataset.preset.lr_multiplier)
    return _Identity(text, multiplier, mask, "" if is_usual else f"learning rate × {multiplier:g}")


def _lr_multiplier(
    cell: Cell, methods: Mapping[str, MethodEntry], datasets: Mapping[str, DatasetEntry]
) -> float | None:
    """Return the factor on every method's learning rate, which settings do not hold, or None if it cannot be told."""
    entry, dataset = methods.get(cell.method), datasets.get(cell.setting.dataset)
    if entry is None or dataset is None:
        return dataset.preset.lr_multiplier if dataset is not None else None
    factor = cell.recipe.lr / (entry.cls.recipe.lr * cell.lr_factor)
    usual = dataset.preset.lr_multiplier
    return usual if math.isclose(factor, usual, rel_tol=1e-6) else float(f"{factor:.6g}")


def _of_one_version(
    records: Sequence[Record], methods: Mapping[str, MethodEntry]
) -> tuple[list[Record], list[tuple[Record, str]]]:
    """Choose of each row the records of one version of its method, and say why the others are left out."""
    by_row: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        by_row[record.cell.full_label][_version(record.cell)].append(record)
    shown, others = [], []
    for versions in by_row.values():
        todays = {version: _is_todays(versions[version][0], methods) for version in versions}
        ranked = sorted(versions, key=lambda each: (not todays[each], -len(versions[each]), each))
        shown += versions[ranked[0]]
        for version in ranked[1:]:
            reason = _difference(versions[version][0].cell, versions[ranked[0]][0].cell)
            others += [(record, reason) for record in versions[version]]
    return shown, others


def _version(cell: Cell) -> str:
    kept = {name: value for name, value in cell.hyperparameters.items() if name not in cell.changed}
    return json.dumps([cell.source_digest, asdict(cell.recipe), kept], sort_keys=True)


def _is_todays(record: Record, methods: Mapping[str, MethodEntry]) -> bool:
    entry = methods.get(record.cell.method)
    return entry is not None and record.cell.source_digest == entry.source_digest()


def _difference(cell: Cell, shown: Cell) -> str:
    if cell.source_digest != shown.source_digest:
        return "trained with another version of the method's file"
    if cell.recipe != shown.recipe:
        return "trained with another recipe of the method"
    return "trained with other default hyper-parameters"


def _about(identity: _Identity, cell: Cell) -> str:
    """Say in a few words what tells this setting from others of a data set: usual values are left out."""
    s = cell.setting
    words = [f"{s.backbone} backbone", f"{s.image_size} px", f"{s.epochs} epoch{'s' * (s.epochs != 1)}"]
    words += [f"batch {s.batch}"]
    if s.trained_stages != PAPERS.trained_stages:
        words += [f"{counted(s.trained_stages, 'stage')} trained" if s.trained_stages else "the head alone trained"]
    words += [s.precision] if s.precision != "32-true" else []
    words += ["validation images"] if s.evaluate_on == "val" else []
    words += [s.mask_scheme.replace("_", " ")] if s.mask_scheme not in (PAPERS_SCHEME, FROM_FILE) else []
    words += [identity.rate] if identity.rate else []
    words += [identity.mask if identity.mask[:9] == "mask from" else f"one {identity.mask}"] if identity.mask else []
    words += [part for part in s.fingerprint.split("-")[2:] if "=" in part]
    return ", ".join(words)
