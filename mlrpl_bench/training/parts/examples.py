"""This module keeps what a cell shows of a few test images: its scores, and where it looks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_EXAMPLES = 8


class Examples:
    """The examples are a few test images, the same for every cell of a data set.

    Args:
        num_test: the number of test images.

    Attributes:
        rows: the examples' rows in the test split.
    """

    def __init__(self, num_test: int) -> None:
        self.rows: NDArray[np.intp] = np.unique(np.linspace(0, num_test - 1, NUM_EXAMPLES).astype(int))
        self._maps: list[Tensor] | None = []
        """These are the attention maps so far; None where the method does not tell where it looks."""

    def among(self, index_B: Tensor) -> Tensor | None:
        """Return which images of a batch are examples, bool; None where no maps are wanted of any.

        Args:
            index_B: the rows of the images in the test split.
        """
        if self._maps is None:  # looked at first: to fetch the rows from a GPU is to wait for it
            return None
        wanted_B = torch.from_numpy(np.isin(index_B.cpu().numpy(), self.rows))
        return wanted_B.to(index_B.device) if wanted_B.any() else None

    def keep(self, maps_BCHW: Tensor | None) -> None:
        """Keep the attention maps of the next examples; None where the method does not tell where it looks."""
        if maps_BCHW is None:
            self._maps = None
        elif self._maps is not None:
            self._maps.append(maps_BCHW.detach().float().cpu())

    def arrays(self, scores_NC: NDArray) -> dict[str, NDArray]:
        """Return rows, scores and, where the method tells, attention maps.

        Args:
            scores_NC: the final logits on all test images.
        """
        found: dict[str, NDArray] = {"rows": self.rows, "scores": scores_NC[self.rows]}
        return found if self._maps is None else found | {"attention": torch.cat(self._maps).numpy()}
