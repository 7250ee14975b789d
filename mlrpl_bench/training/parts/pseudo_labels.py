"""This module counts the unknown labels that a method filled in, and how many of them rightly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN


def counts(
    pseudo_NC: NDArray[np.int8] | None, seen_NC: NDArray[np.int8], truth_NC: NDArray[np.int8]
) -> dict[str, float]:
    """Count what was filled in, by state, as columns of the history.

    Only the trainer can tell, as it has the hidden labels. Labels whose truth nobody knows (VOC's difficult objects,
    own data) are neither right nor wrong, and are counted apart.

    Args:
        pseudo_NC: the labels that the method trains on at present; None if it fills in none, and nothing is counted.
        seen_NC: the labels that the method was given.
        truth_NC: the labels before hiding.
    """
    if pseudo_NC is None:
        return {}
    found, unknown = {}, 0
    for name, state in (("present", PRESENT), ("absent", ABSENT)):
        filled_NC = (seen_NC == UNKNOWN) & (pseudo_NC == state)
        found[f"pseudo.{name}_right"] = float((filled_NC & (truth_NC == state)).sum())
        found[f"pseudo.{name}_wrong"] = float((filled_NC & (truth_NC == -state)).sum())
        unknown += int((filled_NC & (truth_NC == UNKNOWN)).sum())
    return {**found, "pseudo.truth_unknown": float(unknown)} if (truth_NC == UNKNOWN).any() else found
