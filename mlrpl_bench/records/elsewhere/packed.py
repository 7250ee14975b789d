"""This module describes what a pack changed of a record's files: scores rounded, training scores or weights left out.

A record that came in a pack keeps its ``record.json`` to the byte, with the sizes and hashes of the files as training
wrote them. Beside it lies ``packed.json``, which says which of these files have other bytes here and which are not
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKED = "packed.json"
FULL, ROUNDED = "float32", "float16"
PRECISIONS = (ROUNDED, FULL)
"""The number formats in which a pack may hold scores."""

SCORES, TRAIN_SCORES, EXAMPLES = "scores.npz", "train_scores.npz", "examples.npz"
WEIGHTS = "weights.safetensors"
TRAIN_EVIDENCE = "train_evidence.npz"
"""This file holds what tables need of the training scores, where these are left out; see `evidence.of_training`."""

MAY_BE_LEFT_OUT = (TRAIN_SCORES, WEIGHTS)
MAY_BE_ROUNDED = (SCORES, TRAIN_SCORES, EXAMPLES)

ROUNDING_TOLERANCE: Mapping[str, float] = {"mAP": 1e-4, "OF1": 1e-4, "CF1": 1e-4}
"""A metric of rounded scores may differ by at most this, as fractions, from the one that the full scores gave."""
OTHER_TOLERANCE = 1e-2
"""This is the same for all other metrics: one category's precision rests on few images, of which rounding may tie
two.
"""


@dataclass(frozen=True)
class Packed:
    """This class says how a record's files differ from those that its ``record.json`` states.

    Attributes:
        scores: the number format of the scores, one of `PRECISIONS`.
        files: by name of each file that has other bytes here or was added, its ``bytes`` and its ``sha256``.
        left_out: the names of the files that are not here.
    """

    scores: str
    files: Mapping[str, Mapping[str, Any]]
    left_out: tuple[str, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Packed:
        """Return what `to_json` wrote.

        Raises:
            ValueError: it is something else; the message says what is wrong.
        """
        if set(content) != {"scores", "files", "left_out"}:
            raise ValueError(f"it has {', '.join(sorted(map(str, content))) or 'nothing'}")
        scores, stated, left_out = content["scores"], content["files"], content["left_out"]
        if scores not in PRECISIONS:
            raise ValueError(f"its scores are {scores!r}")
        if not isinstance(left_out, list) or not all(name in MAY_BE_LEFT_OUT for name in left_out):
            raise ValueError(f"it leaves out {left_out!r}")
        if not isinstance(stated, dict) or not set(stated) <= {*MAY_BE_ROUNDED, TRAIN_EVIDENCE} - set(left_out):
            raise ValueError("it names files that no pack changes")
        if (TRAIN_SCORES in left_out) != (TRAIN_EVIDENCE in stated):
            raise ValueError(f"of {TRAIN_SCORES} and {TRAIN_EVIDENCE} it must have one")
        for name, facts in stated.items():
            check_facts(name, facts)
        return cls(scores, stated, tuple(left_out))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"scores": self.scores, "files": dict(self.files), "left_out": list(self.left_out)}

    def files_here(self, stated: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return size and hash of each file that is here, by name.

        Args:
            stated: the same of the files as training wrote them.
        """
        return {name: facts for name, facts in {**stated, **self.files}.items() if name not in self.left_out}

    def is_rounded(self) -> bool:
        """Tell whether scores have fewer digits here than when they were written."""
        return self.scores == ROUNDED


def check_facts(name: str, facts: Any) -> None:
    """Refuse what is not the size and the hash of a file.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(facts, dict) or set(facts) != {"bytes", "sha256"}:
        raise ValueError(f"of {name} it does not state bytes and sha256")
    size, sha256 = facts["bytes"], facts["sha256"]
    if type(size) is not int or size < 0:
        raise ValueError(f"the bytes of {name} are {size!r}")
    if type(sha256) is not str or len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(f"the sha256 of {name} is {sha256!r}")


def tolerance_of(metric: str) -> float:
    """Return by how much a metric of rounded scores may differ, as a fraction."""
    return ROUNDING_TOLERANCE.get(metric, OTHER_TOLERANCE)


def rounded(scores_NC: NDArray[np.float32]) -> dict[str, NDArray]:
    """Return scores in 16 bits each, as the arrays that `expanded` reads.

    Each number is the half-precision distance from its category's median, as a method that separates little has scores
    that half precision alone does not tell apart. Different scores of a category stay different and in order where
    moves by `MOST_MOVED` steps of the last place are enough, and each keeps its side of 0, where a label begins to be
    predicted.

    Args:
        scores_NC: finite numbers.

    Returns:
        ``high`` and ``low``, the bytes of the distances, uint8 [N, C], which compress better apart; and ``centre``, the
        medians, float32 [C].

    Raises:
        ValueError: a distance is larger than half precision can hold, 65,504.
    """
    centre_C = np.median(scores_NC, axis=0).astype(np.float32)
    with np.errstate(over="ignore"):
        halves_NC = (scores_NC - centre_C).astype(np.float16)
    if not np.isfinite(halves_NC).all():
        raise ValueError(f"its scores lie further apart than {ROUNDED} can hold")
    for category in range(scores_NC.shape[1]):
        halves_NC[:, category] = _in_order(halves_NC[:, category], scores_NC[:, category])
    upwards_NC = scores_NC >= 0
    while (wrong_NC := (_sum(halves_NC, centre_C) >= 0) != upwards_NC).any():
        towards_NC = np.where(upwards_NC, np.inf, -np.inf).astype(np.float16)
        halves_NC[wrong_NC] = np.nextafter(halves_NC[wrong_NC], towards_NC[wrong_NC])
    bytes_NC2 = np.ascontiguousarray(halves_NC.astype("<f2")).view(np.uint8).reshape(*halves_NC.shape, 2)
    return {"high": bytes_NC2[..., 1].copy(), "low": bytes_NC2[..., 0].copy(), "centre": centre_C}


def expanded(arrays: Mapping[str, NDArray]) -> NDArray[np.float32]:
    """Return the scores that `rounded` gave, float32 [N, C].

    Raises:
        ValueError: the arrays are others.
    """
    if set(arrays) != {"high", "low", "centre"}:
        raise ValueError(f"rounded scores are high, low and centre, and there are {', '.join(sorted(arrays))}")
    high_NC, low_NC, centre_C = (arrays[name] for name in ("high", "low", "centre"))
    kinds = [(each.dtype, each.ndim) for each in (high_NC, low_NC, centre_C)]
    if kinds != [(np.uint8, 2), (np.uint8, 2), (np.float32, 1)] or high_NC.shape != low_NC.shape:
        raise ValueError("rounded scores have other shapes or number formats")
    if high_NC.shape[1] != len(centre_C):
        raise ValueError("rounded scores have another number of categories than of centres")
    bytes_NC2 = np.stack([low_NC, high_NC], axis=-1)
    return _sum(bytes_NC2.view("<f2")[..., 0], centre_C)


MOST_MOVED = 4
"""A number may move at most this many steps of the last place to stay apart from its neighbours."""


def _in_order(halves_N: NDArray[np.float16], scores_N: NDArray[np.float32]) -> NDArray[np.float16]:
    """Move half-precision numbers up by a few steps of the last place where that keeps different scores apart."""
    order_N = np.argsort(scores_N, kind="stable")
    bits_N = halves_N[order_N].view(np.int16).astype(np.int32)
    place_N = np.where(bits_N < 0, -(bits_N & 0x7FFF), bits_N)  # half-precision numbers, counted from 0
    different_N = np.concatenate([[0], np.cumsum(np.diff(scores_N[order_N]) > 0)])[: len(order_N)]
    apart_N = np.maximum.accumulate(place_N - different_N) + different_N
    moved_N = np.minimum(np.minimum(apart_N, place_N + MOST_MOVED), LARGEST_HALF)
    result_N = np.empty_like(halves_N)
    result_N[order_N] = np.where(moved_N < 0, -moved_N | 0x8000, moved_N).astype(np.uint16).view(np.float16)
    return result_N


LARGEST_HALF = 0x7BFF
"""This is the largest finite half-precision number, counted in steps from 0."""


def _sum(halves_NC: NDArray[np.float16], centre_C: NDArray[np.float32]) -> NDArray[np.float32]:
    return halves_NC.astype(np.float32) + centre_C
