"""The label graph: how often one category comes with another, counted on the known training labels."""

from __future__ import annotations

from torch import Tensor

from mlrpl_bench.protocol import PRESENT, UNKNOWN

ESTIMATORS = ("reference", "unbiased")


def cooccurrence(labels_NC: Tensor, estimator: str = "reference") -> Tensor:
    """Conditional probabilities A_ij ~ P(j present | i present) with A_ii = 1 (SSGRL, ICCV 2019, section 3.3).

    - ``reference`` divides the number of images where both are known present by the number where i is. If labels
      are hidden independently and a share r stays known, this shrinks the entries off the diagonal to r P(j | i).
    - ``unbiased`` divides by the number of images where i is known present and j is known at all; where there is
      no such image the entry is 0.

    A category without a known positive gets the row of the identity. (SARB's code leaves 0 / 0 there, which one
    message later is NaN in every category of every image.)

    Args:
        labels_NC: PRESENT, UNKNOWN or ABSENT.

    Returns:
        (C, C), float32, in [0, 1].

    >>> import torch
    >>> cooccurrence(torch.tensor([[1, 1, 0], [1, 0, -1]]))
    tensor([[1.0000, 0.5000, 0.0000],
            [1.0000, 1.0000, 0.0000],
            [0.0000, 0.0000, 1.0000]])
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"no estimator {estimator!r}; there are: {', '.join(ESTIMATORS)}")
    present_NC = (labels_NC == PRESENT).float()
    known_NC = (labels_NC != UNKNOWN).float()
    together_CC = present_NC.T @ present_NC
    trials_CC = present_NC.T @ known_NC if estimator == "unbiased" else together_CC.diag()[:, None]
    return (together_CC / trials_CC.clamp(min=1)).fill_diagonal_(1)
