"""This module is the protocol: which label entries a method may see.

Three label states, and the ways to draw the mask of known entries. ``-1`` means *absent* here and in the SARB
code, but *unknown* in CSL's and DualCoOp's: therefore the names, never the bare numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.choices import SCHEMES
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import seed_of

PRESENT, UNKNOWN, ABSENT = 1, 0, -1

VERSION = 2
"""The protocol version is raised by hand whenever shared code changes scores; versions are never mixed in a table."""

PAPERS_SCHEME = "hcp"
"""This is the scheme by which the papers leave labels known."""
COMPLETE_AT_ONE = ("hcp", "by_id")
"""Schemes in which a ratio of 1 means all labels that were given."""


def known_mask(
    shape: tuple[int, int],
    ratio: float,
    seed: int = 0,
    scheme: str = "hcp",
    *,
    ids: Sequence[int | str] | None = None,
    labels_NC: NDArray[np.int8] | None = None,
) -> NDArray[np.bool_]:
    """Return which of the N x C training label entries are known.

    ``hcp`` is the reference's stream, bit for bit: one float64 draw from NumPy's legacy ``RandomState(seed)``,
    row-major, an entry is known where the draw is below `ratio`. Row order therefore decides the mask, the masks
    of one seed are nested over ratios, and NumPy's global state stays as it was. The other schemes are in `SCHEMES`.

    Args:
        shape: (N, C).
        ratio: expected share of known entries, in (0, 1]; of the present ones for ``positives_only``.
        ids: N image ids, for ``by_id``.
        labels_NC: the given labels, for ``positives_only`` and ``single_positive``; with them an entry that is UNKNOWN
            because nobody gave its label is known in no mask, and `ratio` is the share of the given entries. Which of
            the others are known does not depend on it.

    Raises:
        UserError: a ratio outside (0, 1], an unknown scheme, a ratio for ``single_positive``, which has none.

    >>> known_mask((2, 3), 0.6)
    array([[ True, False, False],
           [ True,  True, False]])
    """
    check_ratio(ratio)
    if scheme not in SCHEMES:
        raise UserError(f"no mask scheme {scheme!r}; there are: {', '.join(SCHEMES)}")
    mask_NC = _drawn(shape, ratio, seed, scheme, ids, labels_NC)
    return mask_NC if labels_NC is None else mask_NC & (labels_NC != UNKNOWN)


def _drawn(
    shape: tuple[int, int],
    ratio: float,
    seed: int,
    scheme: str,
    ids: Sequence[int | str] | None,
    labels_NC: NDArray[np.int8] | None,
) -> NDArray[np.bool_]:
    """Return the mask as it is where every label was given; see `known_mask`."""
    if scheme in COMPLETE_AT_ONE and ratio == 1:
        return np.ones(shape, dtype=bool)
    if scheme == "by_id":
        assert ids is not None, "by_id needs the images' ids"
        return np.stack([np.random.default_rng(seed_of("mask", seed, str(i))).random(shape[1]) for i in ids]) < ratio
    draws_NC = np.random.RandomState(seed).random_sample(shape)
    if scheme == "hcp":
        return draws_NC < ratio
    assert labels_NC is not None, f"{scheme} needs the labels"
    present_NC = labels_NC == PRESENT
    if scheme == "positives_only":
        return present_NC & (draws_NC < ratio)
    if ratio != 1:
        raise UserError(f"single_positive knows one label of each image; it has no known ratio ({ratio:g}) but 1")
    lowest_N1 = np.where(present_NC, draws_NC, np.inf).min(axis=1, keepdims=True)
    return present_NC & (draws_NC == lowest_N1)


def check_ratio(ratio: float) -> None:
    """Refuse a known-label ratio outside (0, 1] (NaN too)."""
    if not 0 < ratio <= 1:
        raise UserError(f"known ratio {ratio:g} is outside (0, 1]; 0.1 means that 10 % of the labels are known")


def check_ratios(ratios: Sequence[float]) -> None:
    """Refuse known ratios outside (0, 1], and two that a table's headings would not tell apart.

    Raises:
        UserError: one that is none, or two that are written alike to six digits.
    """
    headings: dict[str, float] = {}
    for ratio in ratios:
        check_ratio(ratio)
        heading = f"{100 * ratio:g} %"
        if (other := headings.setdefault(heading, ratio)) != ratio:
            raise UserError(f"the known ratios {other!r} and {ratio!r} are both {heading} in a table; leave one out")


def hide(labels_NC: NDArray[np.int8], mask_NC: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return the labels with every entry outside the mask set to UNKNOWN; a new array."""
    return np.where(mask_NC, labels_NC, UNKNOWN).astype(np.int8)


def mask_hash(mask_NC: NDArray[np.bool_]) -> str:
    """Identifies a mask: SHA-256 over its shape and its bits."""
    return hashlib.sha256(repr(mask_NC.shape).encode() + np.packbits(mask_NC).tobytes()).hexdigest()


def known_share(labels_NC: NDArray[np.int8], mask_NC: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of the PRESENT and of the ABSENT entries that the mask really left known, in [0, 1].

    NaN where the labels have no entry of that state.
    """
    return {
        name: float(mask_NC[labels_NC == state].mean()) if (labels_NC == state).any() else float("nan")
        for name, state in (("present", PRESENT), ("absent", ABSENT))
    }
