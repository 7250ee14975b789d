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

import io
import json
import math
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
    """All the records below one folder."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise UserError(f"--results-dir {root} is not a folder")
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
        return read_record(path) if path.is_file() else None

    def records(self, dataset: str) -> list[Record]:
        """Every record of a dataset, in a fixed order.

        Raises:
            UserError: a record is damaged or of another protocol version; nothing is touched.
        """
        return [read_record(path) for path in self._record_files(dataset)]

    def write(self, finished: Finished, provenance: dict[str, Any], keep_weights: bool = True) -> Record:
        """Store a finished cell; the record appears last, by one rename."""
        import pandas
        from safetensors.torch import save

        folder = self.folder(finished.cell)
        write_atomically(folder / "cell.json", _to_json(finished.cell.to_json()))
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
            write_atomically(folder / name, content)
        record = {
            "cell": finished.cell.to_json(),
            "key": finished.cell.key,
            "metrics": _plain(finished.metrics),
            "best_epoch": finished.best_epoch,
            "best_metrics": _plain(finished.best_metrics),
            "known_share": finished.known_share,
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
        write_atomically(folder / RECORD, _to_json(record))
        (folder / FAILED).unlink(missing_ok=True)
        return read_record(folder / RECORD)

    def write_failure(self, cell: Cell, reason: str, traceback: str) -> Path:
        """Remember why a cell has no record; replaced by the record once it is trained."""
        path = self.folder(cell) / FAILED
        write_atomically(path, _to_json({"cell": cell.to_json(), "reason": reason, "traceback": traceback}))
        return path

    def failure(self, cell: Cell) -> str | None:
        """Why the last try at a cell failed, or None."""
        path = self.folder(cell) / FAILED
        return str(_read_json(path).get("reason")) if path.is_file() else None

    def _record_files(self, dataset: str) -> Iterator[Path]:
        try:
            yield from sorted((self.root / dataset).glob(f"*/*/{RECORD}"))
        except OSError as error:
            raise UserError(f"results folder {self.root} cannot be read ({error.strerror})") from error


def read_record(path: Path) -> Record:
    """Read and check one ``record.json``: whole, of this protocol version, its files there in full size.

    Raises:
        UserError: names the file, what is wrong with it and what to do.
    """
    content = _read_json(path)
    advice = f"move {path.parent} away, then run again to train the cell anew"
    try:
        version = content["cell"]["setting"]["protocol_version"]
        if version != protocol.VERSION:
            raise UserError(
                f"record {path} is of protocol version {version} and this is version {protocol.VERSION}: their numbers "
                "do not mix; move it away or choose another --results-dir"
            )
        cell = Cell.from_json(content["cell"])
        files = {str(name): int(facts["bytes"]) for name, facts in content["files"].items()}
        metrics = {name: _from_plain(value) for name, value in content["metrics"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError) and "protocol version" in str(error):
            raise
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
