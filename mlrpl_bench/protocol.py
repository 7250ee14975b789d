"""The protocol: which label entries a method may see.

Three label states, and one way to draw the mask of known entries. ``-1`` means *absent* here and in the SARB
code, but *unknown* in CSL's and DualCoOp's: therefore the names, never the bare numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.errors import UserError

PRESENT, UNKNOWN, ABSENT = 1, 0, -1

VERSION = 1
"""Raised by hand whenever shared code changes what scores come out; records of other versions are not mixed."""

SCHEMES = ("hcp",)


def known_mask(
    shape: tuple[int, int],
    ratio: float,
    seed: int = 0,
    scheme: str = "hcp",
    *,
    ids: Sequence[int | str] | None = None,
    labels_NC: NDArray[np.int8] | None = None,
) -> NDArray[np.bool_]:
    """Which of the N x C training label entries are known.

    ``hcp`` is the reference's stream, bit for bit: one float64 draw from NumPy's legacy ``RandomState(seed)``,
    row-major, an entry is known where the draw is below `ratio`. Row order therefore decides the mask, the masks
    of one seed are nested over ratios, and NumPy's global state stays as it was. ``ids`` and ``labels_NC`` are for
    schemes that need them.

    Args:
        shape: (N, C).
        ratio: expected share of known entries, in (0, 1]; at 1 everything is known and nothing is drawn.

    Raises:
        UserError: a ratio outside (0, 1] or an unknown scheme.

    >>> known_mask((2, 3), 0.6)
    array([[ True, False, False],
           [ True,  True, False]])
    """
    check_ratio(ratio)
    if scheme not in SCHEMES:
        raise UserError(f"no mask scheme {scheme!r}; there are: {', '.join(SCHEMES)}")
    if ratio == 1:
        return np.ones(shape, dtype=bool)
    return np.random.RandomState(seed).random_sample(shape) < ratio


def check_ratio(ratio: float) -> None:
    """Refuse a known-label ratio outside (0, 1] (NaN too)."""
    if not 0 < ratio <= 1:
        raise UserError(f"known ratio {ratio:g} is outside (0, 1]; 0.1 means that 10 % of the labels are known")


def hide(labels_NC: NDArray[np.int8], mask_NC: NDArray[np.bool_]) -> NDArray[np.int8]:
    """The labels with every entry outside the mask set to UNKNOWN; a new array."""
    return np.where(mask_NC, labels_NC, UNKNOWN).astype(np.int8)


def mask_hash(mask_NC: NDArray[np.bool_]) -> str:
    """Identifies a mask: SHA-256 over its shape and its bits."""
    return hashlib.sha256(repr(mask_NC.shape).encode() + np.packbits(mask_NC).tobytes()).hexdigest()


def known_share(labels_NC: NDArray[np.int8], mask_NC: NDArray[np.bool_]) -> dict[str, float]:
    """The share of the PRESENT and of the ABSENT entries that the mask really left known, in [0, 1].

    NaN where the labels have no entry of that state.
    """
    return {
        name: float(mask_NC[labels_NC == state].mean()) if (labels_NC == state).any() else float("nan")
        for name, state in (("present", PRESENT), ("absent", ABSENT))
    }
