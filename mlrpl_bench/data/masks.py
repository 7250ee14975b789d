"""This module draws the masks of a training set by a scheme, reads them from files and writes them.

A mask file is an ``.npz`` with ``known_NC`` (N x C, packed bits), ``shape``, ``ids``, ``categories``, ``ratio`` and
``seed``. Masks of other code are read too: an ``.npy`` or ``.npz`` with one N x C array, either of booleans or of
labels after hiding (1, 0, -1), as the reference keeps them in memory.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.protocol import COMPLETE_AT_ONE, PRESENT, UNKNOWN, known_mask
from mlrpl_bench.utils import arrays as array_files
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import write_atomically

FROM_FILE = "file"
"""A mask that was read from a file has this scheme; the mask's hash tells which mask it is."""
MAY_DIFFER = 0.05
"""The known share of a mask of other code may differ from the known ratio by this much."""


@dataclass(frozen=True, eq=False)
class Masks:
    """Gives the mask of a training set for a known ratio and a mask seed.

    Attributes:
        split: the whole training set, with all labels that were given: what the mask is drawn for.
        scheme: see `protocol.SCHEMES`.
        file: the one mask to use instead of drawing any.
        kept_rows: the rows that are trained on, in ascending order, where some cannot be; the mask is drawn for all
            and then cut, so that it is the same for an image whether others can be read or not.
    """

    split: Split
    scheme: str = "hcp"
    file: Path | None = None
    kept_rows: NDArray[np.intp] | None = None

    def __call__(self, ratio: float, seed: int) -> NDArray[np.bool_]:
        """Return the mask (N x C) of the rows that are trained on.

        Raises:
            UserError: no label at all would be known; or see `read` and `protocol.known_mask`.
        """
        if self.file is not None:
            mask_NC = read(self.file, self.split, ratio)
        else:
            labels_NC, ids = self.split.labels_NC, self.split.ids
            mask_NC = known_mask(labels_NC.shape, ratio, seed, self.scheme, ids=ids, labels_NC=labels_NC)
        if self.kept_rows is not None:
            mask_NC = mask_NC[self.kept_rows]
        if not mask_NC.any():
            raise UserError(self._nothing_known(ratio, seed))
        return mask_NC

    def _nothing_known(self, ratio: float, seed: int) -> str:
        """Return why a mask is empty, and which ratio is not too low: ten labels are known on average at it."""
        if self.file is not None:
            return f"mask {self.file} knows none of the labels; there is nothing to train on"
        only_present = self.scheme not in COMPLETE_AT_ONE
        labels = int((self.split.labels_NC == PRESENT).sum()) if only_present else self.split.labels_NC.size
        what = "present labels" if only_present else "labels"
        return (
            f"known ratio {ratio:g} leaves none of the {labels:,} {what} known (mask seed {seed}); "
            f"the lowest that makes sense is about {10 / max(labels, 10):.2g}"
        )


def write(path: Path, mask_NC: NDArray[np.bool_], split: Split, ratio: float, seed: int) -> None:
    """Write a mask with what it belongs to, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        known_NC=np.packbits(mask_NC),
        shape=np.array(mask_NC.shape),
        ids=np.array([str(identity) for identity in split.ids]),
        categories=np.array(split.categories),
        ratio=np.float64(ratio),
        seed=np.int64(seed),
    )
    write_atomically(path, buffer.getvalue())


def read(path: Path, split: Split, ratio: float) -> NDArray[np.bool_]:
    """Read a mask from a file, for a training set; entries whose label nobody gave are known in no mask.

    Raises:
        UserError: the file is missing or damaged, or its mask belongs to other images, categories or another ratio.
    """
    arrays = _arrays(path)
    if {"known_NC", "shape"} <= set(arrays):
        if lacking := {"ids", "categories", "ratio"} - set(arrays):
            raise UserError(f"mask {path} lacks {', '.join(sorted(lacking))}; write it again with data mask")
        _refuse_other_kinds(path, arrays)
        images, categories = shape = tuple(arrays["shape"].tolist())
        if min(shape) < 0 or len(arrays["known_NC"]) != -(-images * categories // 8):
            raise UserError(f"mask {path} is cut short; write it again with data mask")
        mask_NC = np.unpackbits(arrays["known_NC"], count=images * categories).reshape(shape).astype(bool)
        for what, own in (("ids", split.ids), ("categories", split.categories)):
            if arrays[what].tolist() != [str(name) for name in own]:
                raise UserError(f"mask {path} was drawn for other {what} than those of this training set")
    else:
        mask_NC = _mask_of_other_code(path, arrays, split)
    if mask_NC.shape != split.labels_NC.shape:
        raise UserError(
            f"mask {path} has the shape {mask_NC.shape}, the training set {split.labels_NC.shape} (images, categories)"
        )
    given_NC = split.labels_NC != UNKNOWN
    mask_NC &= given_NC
    ours = "ratio" in arrays
    share = float(arrays["ratio"]) if ours else float(mask_NC.sum() / max(given_NC.sum(), 1))
    if not abs(share - ratio) <= (1e-9 if ours else MAY_DIFFER):  # NaN neither
        raise UserError(f"mask {path} knows {share:.3g} of the labels; it cannot stand for a known ratio of {ratio:g}")
    return mask_NC


def _refuse_other_kinds(path: Path, arrays: dict[str, NDArray]) -> None:
    """Refuse a mask file of our own if one of its arrays has another kind than the one that is written."""
    kinds = {"known_NC": ("u", 1), "shape": ("i", 1), "ids": ("U", 1), "categories": ("U", 1), "ratio": ("f", 0)}
    for name, kind in kinds.items():
        if (arrays[name].dtype.kind, arrays[name].ndim) != kind or (name == "shape" and arrays[name].size != 2):
            raise UserError(f"mask {path} has {name} of another kind; write it again with data mask")


def _mask_of_other_code(path: Path, arrays: dict[str, NDArray], split: Split) -> NDArray[np.bool_]:
    """Return the only array of a file: a mask, or labels after hiding, which must then agree with ours."""
    if len(arrays) != 1:
        raise UserError(f"mask {path} has the arrays {', '.join(arrays)}; one of shape images x categories is needed")
    (array_NC,) = arrays.values()
    if array_NC.dtype.kind not in "biuf":
        raise UserError(f"mask {path} holds {array_NC.dtype}; a mask or hidden labels (1, 0, -1) are numbers")
    if array_NC.dtype == bool or array_NC.shape != split.labels_NC.shape:
        return array_NC.astype(bool)
    if not np.isin(array_NC, (-1, 0, 1)).all():
        raise UserError(f"mask {path} holds other values than a mask's or hidden labels' (1, 0, -1)")
    if (array_NC >= 0).all():  # zeros and ones: a mask
        return array_NC == 1
    known_NC = array_NC != UNKNOWN
    wrong = int((array_NC[known_NC] != split.labels_NC[known_NC]).sum())
    if wrong:
        raise UserError(
            f"the labels in {path} differ from this training set's in {wrong} known entries; "
            "its images or categories are in another order"
        )
    return known_NC


def _arrays(path: Path) -> dict[str, NDArray]:
    if not path.is_file():
        raise UserError(f"there is no mask file {path}")
    try:
        return array_files.read(path)
    except array_files.Damaged as error:
        raise UserError(f"mask {path} cannot be read ({error}); it must be an .npz or .npy of NumPy") from error
