"""Packs of made-up records, and packs that somebody changed. Test modules import this; it has no tests."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlrpl_bench.records.packs import writing
from mlrpl_bench.records.packs.manifest import MANIFEST, _digest
from mlrpl_bench.records.packs.writing import Contents
from mlrpl_bench.records.record import Record, digest
from mlrpl_bench.records.store import ResultStore
from tests.helpers import tiny_study as tiny

HERE = {"node": "here", "device": "a CPU", "threads": 1, "git": None, "versions": {}}


def of_training(record: Record) -> dict[str, np.ndarray]:
    return {"recovery": np.asarray(0.5), "recovery_AP_C": np.full(4, 0.5), "thresholds": np.full(12, 0.5)}


def stored(folder: Path, *seeds: int, noise: int = 0, **changes: Any) -> ResultStore:
    """Records of one method, with these training seeds."""
    store = ResultStore(folder)
    for seed in seeds or (0, 1):
        store.write(tiny.finished(tiny.cell(seed=seed, **changes), seed=100 * noise + seed), HERE)
    return store


def packed(store: ResultStore, out: Path, **contents: Any) -> Path:
    records = store.survey("tiny").records
    return writing.write(records, out, Contents(**contents), of_training).path


Members = dict[str, bytes]


def members_of(pack: Path) -> Members:
    with zipfile.ZipFile(pack) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(pack: Path, change: Callable[[Members, dict[str, Any]], object]) -> Path:
    """The pack after somebody changed its members and its manifest, whose sizes and hashes fit again.

    Args:
        change: is given the members but for the manifest, and the manifest.
    """
    members = members_of(pack)
    manifest = json.loads(members.pop(MANIFEST))
    change(members, manifest)
    places: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, content in members.items():
        place, _, file = name.rpartition("/")
        places.setdefault(place, {})[file] = facts(content)
    manifest["records"] = places
    del manifest["sha256"]
    members[MANIFEST] = json.dumps({**manifest, "sha256": _digest(manifest)}).encode()
    return rewritten(pack, members)


def rewritten(pack: Path, members: Members) -> Path:
    with zipfile.ZipFile(pack, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return pack


def facts(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def with_record(members: Members, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the first record of a pack, with a digest that fits."""
    name = next(name for name in members if name.endswith("/record.json"))
    content = json.loads(members[name])
    change(content)
    members[name] = json.dumps({**content, "sha256": digest(content)}).encode()


def redigested(path: Path) -> None:
    """Give a ``record.json`` that was changed a digest that fits."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "sha256": digest(content)}))
