"""The record store: a folder for each cell, complete once its ``record.json`` is there.

results/<dataset>/<method>/<ratio>-s<seed>-<key8>/
    cell.json             what was asked for
    history.csv           each epoch: loss terms, learning rate, the method's scalars, test metrics
    steps.npz             every loss term at every step
    scores.npz            test logits
    train_scores.npz      final logits on the training images, test transform
    examples.npz          a few test images: scores, and where each category looks
    weights.safetensors   the method's state
    record.json           written last: metrics, provenance, sizes and hashes of the others
    failed.json           instead of all these, if the cell failed: why
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench import protocol
from mlrpl_bench.cell import Cell
from mlrpl_bench.cell_run import Finished
from mlrpl_bench.errors import UserError
from mlrpl_bench.files import sha256_of_file, write_atomically

RECORD = "record.json"
FAILED = "failed.json"


@dataclass(frozen=True, eq=False)
class Record:
    """What a finished cell left behind.

    Attributes:
        folder: where its files are.
        metrics: of the last epoch; fractions, see `metrics.evaluate`. AP_C has NaN where a category has no positives.
        content: all of record.json.
    """

    cell: Cell
    folder: Path
    metrics: dict[str, Any]
    content: dict[str, Any]


class ResultStore:
    """All the records below one folder, which is made when the first one is written."""

    def __init__(self, root: Path) -> None:
        try:
            os.listdir(root)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UserError(f"--results-dir {root} cannot be read ({error.strerror}); name another folder") from error
        self.root = root

    def folder(self, cell: Cell) -> Path:
        """Where a cell's files are, or will be."""
        name = f"{cell.ratio:g}-s{cell.seed}-{cell.key[:8]}"
        return self.root / cell.setting.dataset / cell.method / name

    def find(self, cell: Cell) -> Record | None:
        """The cell's record, or None while there is none.

        Raises:
            UserError: the record or one of its files is damaged.
        """
        path = self.folder(cell) / RECORD
        with _readable(path):
            there = path.is_file()
        return read_record(path) if there else None

    def records(self, dataset: str) -> list[Record]:
        """Every record of a dataset, in a fixed order.

        Raises:
            UserError: a record is damaged or of another protocol version; nothing is touched.
        """
        with _readable(self.root / dataset):
            cells = [cell for method in _folders_in(self.root / dataset) for cell in _folders_in(method)]
            paths = [cell / RECORD for cell in cells if (cell / RECORD).is_file()]
        return [read_record(path) for path in paths]

    def write(self, finished: Finished, provenance: dict[str, Any], keep_weights: bool = True) -> Record:
        """Store a finished cell; the record appears last, by one rename.

        Raises:
            UserError: a file cannot be written; there is no record then.
        """
        import pandas
        from safetensors.torch import save

        folder = self.folder(finished.cell)
        _write(folder / "cell.json", _to_json(finished.cell.to_json()))
        contents = {
            "history.csv": pandas.DataFrame(finished.history).to_csv(index=False).encode(),
            "steps.npz": _npz(finished.steps),
            "scores.npz": _npz({"scores": finished.scores_NC}),
            "train_scores.npz": _npz({"scores": finished.train_scores_NC}),
            "examples.npz": _npz(finished.examples),
        }
        if keep_weights:
            contents["weights.safetensors"] = save(finished.weights)
        for name, content in contents.items():
            _write(folder / name, content)
        record = {
            "cell": finished.cell.to_json(),
            "key": finished.cell.key,
            "metrics": _plain(finished.metrics),
            "best_epoch": finished.best_epoch,
            "best_metrics": _plain(finished.best_metrics),
            "known_share": _plain(finished.known_share),
            "dropped_images": finished.dropped_images,
            "cost": {
                "seconds": round(finished.seconds, 3),
                "images_per_second": round(finished.images_per_second, 1),
                "peak_memory_bytes": finished.peak_memory_bytes,
                "cells_in_group": finished.cells_in_group,
            },
            **provenance,
            "files": {
                name: {"bytes": len(content), "sha256": sha256_of_file(folder / name)}
                for name, content in contents.items()
            },
        }
        _write(folder / RECORD, _to_json(record))
        (folder / FAILED).unlink(missing_ok=True)
        return read_record(folder / RECORD)

    def write_failure(self, cell: Cell, reason: str, traceback: str) -> Path:
        """Remember why a cell has no record; replaced by the record once it is trained."""
        path = self.folder(cell) / FAILED
        _write(path, _to_json({"cell": cell.to_json(), "reason": reason, "traceback": traceback}))
        return path

    def write_table(self, dataset: str, name: str, content: str) -> Path:
        """Put a table beside the records that it was made from."""
        path = self.root / dataset / name
        _write(path, content)
        return path

    def failure(self, cell: Cell) -> str | None:
        """Why the last try at a cell failed, or None."""
        path = self.folder(cell) / FAILED
        return str(_read_json(path).get("reason")) if path.is_file() else None


def read_record(path: Path) -> Record:
    """Read and check one ``record.json``: whole, of this protocol version, its files there in full size.

    Raises:
        UserError: names the file, what is wrong with it and what to do.
    """
    content = _read_json(path)
    advice = f"move {path.parent} away, then run again to train the cell anew"
    try:
        version = content["cell"]["setting"]["protocol_version"]
    except (KeyError, TypeError) as error:
        raise UserError(f"record {path} is not a whole record ({error!r}); {advice}") from error
    if version != protocol.VERSION:
        raise UserError(
            f"record {path} is of protocol version {version} and this is version {protocol.VERSION}: their numbers "
            "do not mix; move it away or choose another --results-dir"
        )
    try:
        cell = Cell.from_json(content["cell"])
        files = {str(name): int(facts["bytes"]) for name, facts in content["files"].items()}
        metrics = {name: _from_plain(value) for name, value in content["metrics"].items()}
        if content["key"] != cell.key:
            raise ValueError("its key is not that of its cell")
        if not all(isinstance(metrics[name], float) for name in ("mAP", "OF1", "CF1")):
            raise ValueError("its metrics are no numbers")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"record {path} is not a whole record ({error!r}); {advice}") from error
    for name, size in files.items():
        file = path.parent / name
        if not file.is_file():
            raise UserError(f"{file} is missing though its record names it; {advice}")
        if file.stat().st_size != size:
            raise UserError(f"{file} has {file.stat().st_size} bytes where its record says {size}; {advice}")
    return Record(cell, path.parent, metrics, content)


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays of one of a record's ``.npz`` files.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds on damaged files
        advice = f"move {path.parent} away, then run again"
        raise UserError(f"{path} is damaged ({type(error).__name__}); {advice}") from error


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{error.filename or path} cannot be read ({error.strerror}); allow it, or name another --results-dir"
        raise UserError(message) from error


def _folders_in(folder: Path) -> list[Path]:
    """In a fixed order. Unlike a glob, it does not pass over a folder that may not be read."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _write(path: Path, content: bytes | str) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}); make room, or name another --results-dir"
        raise UserError(message) from error


def _npz(arrays: dict[str, NDArray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        advice = f"move {path.parent} away, then run again to train the cell anew"
        raise UserError(f"{path} is cut short or no JSON ({error}); {advice}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; move {path.parent} away, then run again")
    return content


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    """Arrays to lists, NaN to None: JSON has neither."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [plain(item) for item in value.tolist()]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: plain(value) for name, value in metrics.items()}


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return np.array([math.nan if item is None else item for item in value], dtype=np.float64)
    return math.nan if value is None else value
