"""This module finds a trained cell's record, rebuilds its method as it was trained, and scores other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit
from torch import Tensor

from mlrpl_bench.data import protocol
from mlrpl_bench.data.images import cache
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.loader import normalise
from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.records import weights
from mlrpl_bench.records.cell import Cell, Job
from mlrpl_bench.records.elsewhere.remote import where_left
from mlrpl_bench.records.matching import obstacle
from mlrpl_bench.records.record import Record
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.workbench import SharedBatch
from mlrpl_bench.utils.errors import UserError, one_line
from mlrpl_bench.utils.files import sha256_of_file

WEIGHTS = "weights.safetensors"


THUMBNAIL = 640
"""Pictures are scaled down for the drawing to sides of at most this many pixels."""


LISTED = 8
"""An error message lists at most this many records."""


@dataclass(frozen=True)
class Wanted:
    """This says which record is wanted: by the beginning of its key, or by ratio and seed.

    Attributes:
        cell: the beginning of the record's key, or None.
        ratio: its known ratio, or None for any.
        seed: its training seed, or None for any.
    """

    cell: str | None = None
    ratio: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.cell is not None and (self.ratio is not None or self.seed is not None):
            raise UserError("--cell names one record; leave --ratio and --seed out")

    def fits(self, cell: Cell) -> bool:
        """Tell whether ratio and seed are those that were asked for."""
        return self.ratio in (None, cell.ratio) and self.seed in (None, cell.seed)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A prediction holds a method's scores for an image.

    Attributes:
        picture: the image, perhaps smaller.
        seen: the image as the network saw it.
        logits_C: its scores.
        attention_CHW: where each category looks, or None if the method has no attention maps.
    """

    path: Path
    picture: Image.Image
    seen: Image.Image
    logits_C: NDArray[np.float32]
    attention_CHW: NDArray[np.float32] | None

    @property
    def probabilities_C(self) -> NDArray[np.float64]:
        """Return the scores as probabilities; 0.5 is logit 0."""
        return expit(self.logits_C.astype(np.float64))

    def best(self, top: int, only_predicted: bool = False) -> list[int]:
        """Return the categories with the highest scores, the highest first."""
        order = np.argsort(-self.logits_C, kind="stable")[:top].tolist()
        return [column for column in order if self.logits_C[column] >= 0 or not only_predicted]

    def to_json(self, categories: Sequence[str]) -> dict[str, Any]:
        """Return plain data: every category, the highest score first."""
        rows = [
            {
                "category": categories[column],
                "logit": float(self.logits_C[column]),
                "probability": float(self.probabilities_C[column]),
                "predicted": bool(self.logits_C[column] >= 0),
            }
            for column in self.best(len(categories))
        ]
        return {"image": str(self.path), "scores": rows}


def find_record(records: Sequence[Record], entry: MethodEntry, study: Study, wanted: Wanted) -> tuple[Record, int]:
    """Find the record that is asked for, and how many fit; of several, take the highest ratio and the lowest seed.

    Args:
        records: all of the dataset.

    Raises:
        UserError: there is none, or it was trained otherwise than the method and the options are now.
    """
    if wanted.cell is not None:
        return _by_key(records, entry, study, wanted.cell), 1
    own = [record for record in records if record.cell.method == entry.name]
    fitting = [
        record
        for record in own
        if wanted.fits(record.cell) and record.cell.full_label == entry.name and not obstacle(record.cell, entry, study)
    ]
    if not fitting:
        ratio = "" if wanted.ratio is None else f" with known ratio {wanted.ratio:g}"
        seed = "" if wanted.seed is None else f" with seed {wanted.seed}"
        raise UserError(f"no record of {entry.name}{ratio}{seed} at this setting; {_listed(own, entry, study)}")
    best = min(fitting, key=lambda record: (-record.cell.ratio, record.cell.seed, record.cell.mask_seed))
    return best, len(fitting)


def _by_key(records: Sequence[Record], entry: MethodEntry, study: Study, prefix: str) -> Record:
    found = [record for record in records if prefix and record.cell.key.startswith(prefix)]
    if len(found) > 1:
        keys = ", ".join(record.cell.key[: len(prefix) + 4] for record in found[:LISTED])
        raise UserError(f"--cell {prefix} is the beginning of {len(found)} keys: {keys}; give more of one")
    if not found:
        own = [record for record in records if record.cell.method == entry.name]
        raise UserError(f"--cell {prefix}: no record has such a key; {_listed(own, entry, study)}")
    (record,) = found
    if record.cell.method != entry.name:
        raise UserError(f"--cell {prefix} is of {record.cell.method} ({record.cell.title}), not of {entry.name}")
    if reason := obstacle(record.cell, entry, study):
        advice = "give the same" if record.cell.setting != study.setting else f"run {entry.name} to train it anew"
        raise UserError(f"--cell {prefix} ({record.cell.title}) was {reason}; {advice}")
    return record


def _listed(records: Sequence[Record], entry: MethodEntry, study: Study) -> str:
    """List the records of a method, each with its key and what keeps it from being used."""
    if not records:
        command = f"run {entry.name} --dataset {study.entry.name}"
        return f"there is none of {entry.name} at all, train it with: {command}, and the same options"
    reasons = (obstacle(record.cell, entry, study) for record in records[:LISTED])
    described = [
        f"{record.cell.title} ({', '.join(filter(None, (record.cell.key[:8], reason)))})"
        for record, reason in zip(records, reasons, strict=False)
    ]
    more = f" and {len(records) - LISTED} more (list cells)" if len(records) > LISTED else ""
    usable = next((record for record in records if not obstacle(record.cell, entry, study)), None)
    advice = "" if usable is None else f"; name one by its key, such as --cell {usable.cell.key[:8]}"
    return f"there are: {', '.join(described)}{more}{advice}"


class Predictor:
    """A predictor holds a record's method as it was at the end of its training.

    Raises:
        UserError: no weights were kept, they are damaged, or they do not fit; or the mask was another one.
    """

    def __init__(self, record: Record, entry: MethodEntry, study: Study) -> None:
        cell = record.cell
        kept = record.files.get(WEIGHTS)
        if kept is None:
            raise UserError(
                f"{cell.title} ({cell.key[:8]}) was trained with --keep-weights none: there are no weights to ask; "
                f"move {record.folder} away and run it again"
            )
        if (place := where_left(record.folder / WEIGHTS)) is not None:
            raise UserError(
                f"the weights of {cell.title} ({cell.key[:8]}) are at {place}, which is read for tables alone; copy "
                "its folder to a folder of results here"
            )
        if protocol.mask_hash(study.masks(cell.ratio, cell.mask_seed)) != cell.mask_hash:
            raise UserError(f"{cell.title} ({cell.key[:8]}) was trained under another mask; name it with --mask-file")
        self.view = cell.setting.view()
        self.workbench = study.workbench
        # Built by the very code that trained it: the same labels after hiding, the same backbone.
        self.run = CellRun(Job(cell, entry.cls, entry.hyperparameters(cell.hyperparameters)), self.workbench)
        _load(self.run.method, record.folder / WEIGHTS, str(kept.get("sha256")))
        self.run.method.eval()

    def __call__(self, path: Path) -> Prediction:
        """Predict one image, transformed as test images are.

        Raises:
            UserError: the image is missing or damaged.
        """
        image, seen = _read(path, self.view)
        fabric = self.workbench.fabric
        pixels_13HW = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].to(fabric.device)
        images_13HW = normalise(pixels_13HW, self.view.pixels)
        with torch.no_grad(), fabric.autocast():
            frozen_1DHW = self.workbench.backbone.frozen(images_13HW)
            attention_1CHW = self.run.method.attention(frozen_1DHW)
        shared = SharedBatch(images_13HW, frozen_1DHW, torch.zeros(1, dtype=torch.long, device=fabric.device))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        return Prediction(
            path,
            image,
            seen,
            _first(self.run.logits_BC(shared)),
            None if attention_1CHW is None else _first(attention_1CHW),
        )


def _first(tensor: Tensor) -> NDArray[np.float32]:
    return tensor[0].detach().float().cpu().numpy()


def _read(path: Path, view: ImageTransform) -> tuple[Image.Image, Image.Image]:
    """Read an image, and make the test view of it; for prepared views it is first prepared like the dataset's."""
    image = decode(path, view.decode_at_least)
    return image, view.test(cache.as_prepared(image, view))


def _load(method: torch.nn.Module, path: Path, sha256: str) -> None:
    if sha256_of_file(path) != sha256:
        raise UserError(f"{path} is damaged: it is not what its record says; move {path.parent} away, then run again")
    try:
        method.load_state_dict(weights.read(path), strict=True)
    except RuntimeError as error:
        reasons = one_line(str(error).split("\n", 1)[-1])
        raise UserError(
            f"the weights {path} do not fit the method any more, code that it shares has changed ({reasons}); "
            f"move {path.parent} away, then run again"
        ) from error
