"""Records that were changed after they were written. Test modules import this; it has no tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mlrpl_bench.records.record import Record, read_record
from mlrpl_bench.utils.files import sha256_of_file


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(record: Record, name: str, arrays: dict[str, np.ndarray]) -> Record:
    """Put other arrays into a record, with size and hash that fit."""
    path = record.folder / name
    np.savez(path, **arrays)
    content = json.loads((record.folder / "record.json").read_text())
    content["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    (record.folder / "record.json").write_text(json.dumps(content))
    return read_record(record.folder / "record.json")
