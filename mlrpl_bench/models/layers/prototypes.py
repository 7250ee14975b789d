"""This module makes features that stand for categories, from known positives in a pass over the training set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlrpl_bench.data.protocol import PRESENT


class KnownPositives:
    """This collects during a pass over the training set: values of the entries that are known to be present."""

    def __init__(self) -> None:
        self._parts: list[list[Tensor]] = []

    def add(self, labels_BC: Tensor, *values: Tensor) -> None:
        """Keep the known positives' values (each B, C and perhaps more), in the main memory."""
        images_S, categories_S = torch.nonzero(labels_BC == PRESENT, as_tuple=True)
        self._parts.append([categories_S.cpu(), *(value[images_S, categories_S].cpu() for value in values)])

    def take(self) -> list[Tensor]:
        """Return the category of each known positive and its values, in the order they came; nothing is left here."""
        taken = [torch.cat(parts) for parts in zip(*self._parts, strict=True)]
        self._parts.clear()
        return taken


class Prototypes(nn.Module):
    """This keeps up to K prototypes for each category: the K-means centres of its known positives' features.

    A category with fewer known positives than K has that many prototypes; places left over are zero.

    Args:
        num_categories: C.
        num_prototypes: K.
        width: D.
        num_samples: the largest number of features that are clustered per category.
    """

    centres_CKD: Tensor
    num_C: Tensor

    def __init__(self, num_categories: int, num_prototypes: int, width: int, num_samples: int) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.register_buffer("centres_CKD", torch.zeros(num_categories, num_prototypes, width))
        self.register_buffer("num_C", torch.zeros(num_categories, dtype=torch.int64))
        self._observed = KnownPositives()

    def observe(self, features_BCD: Tensor, labels_BC: Tensor) -> None:
        """Take in one batch of the pass."""
        self._observed.add(labels_BC, features_BCD)

    def cluster(self, generator: torch.Generator) -> None:
        """Replace all prototypes, now that the pass is complete.

        Categories are clustered side by side, each by one thread: with several threads for one K-means the order of
        additions, and with it the result, changes from run to run.
        """
        import sklearn.cluster  # noqa: F401 - a limit holds for the libraries that are loaded, and this loads one more
        from threadpoolctl import threadpool_limits

        categories_S, features_SD = self._observed.take()
        # All draws come first and in order, so that it does not matter which category is ready when.
        drawn = [self._draw(categories_S, category, generator) for category in range(len(self.num_C))]
        self.centres_CKD.zero_()
        # OpenMP counts its threads for each thread that calls it, BLAS for the whole process.
        one_thread_each = {"initializer": threadpool_limits, "initargs": (1, "openmp")}
        with threadpool_limits(1), ThreadPoolExecutor(torch.get_num_threads(), **one_thread_each) as pool:
            found = pool.map(lambda of: cluster(features_SD[of[0]], self.centres_CKD.shape[1], of[1]), drawn)
            for category, centres_KD in enumerate(found):
                self.centres_CKD[category, : len(centres_KD)] = centres_KD
                self.num_C[category] = len(centres_KD)

    def _draw(self, categories_S: Tensor, category: int, generator: torch.Generator) -> tuple[Tensor, int]:
        """Draw which features of a category are clustered, at most `num_samples`, and the seed of their K-means."""
        own_S = (categories_S == category).nonzero().squeeze(1)
        order_S = torch.randperm(len(own_S), generator=generator)
        return own_S[order_S[: self.num_samples]], int(torch.randint(2**31 - 1, (), generator=generator))


def cluster(features_SD: Tensor, num_centres: int, seed: int) -> Tensor:
    """Return K-means centres of features: (K, D) with K the smaller of `num_centres` and S.

    One start instead of scikit-learn's usual ten: ten times cheaper for about 1 % more inertia.
    """
    from sklearn.cluster import KMeans

    if len(features_SD) == 0:
        return features_SD
    model = KMeans(min(num_centres, len(features_SD)), n_init=1, random_state=seed)
    return torch.from_numpy(model.fit(features_SD.float().numpy()).cluster_centers_)


def mean_cosine(features_BCD: Tensor, references_CKD: Tensor, num_C: Tensor | int) -> Tensor:
    """Return the cosine similarities of each feature to its category's references, added up and divided by their
    number.

    The cosine to a vector of zeros counts as 0. Cosines to many vectors add up to one product with the sum of their
    directions, so no B x C x K tensor is made.

    Args:
        num_C: what to divide by; where it is 0, so is the result.

    Returns:
        (B, C) in [-1, 1], float32 under autocast too.
    """
    with torch.autocast(features_BCD.device.type, enabled=False):
        directions_CD = F.normalize(references_CKD.float(), dim=-1, eps=1e-9).sum(dim=1)
        sums_BC = (F.normalize(features_BCD.float(), dim=-1, eps=1e-9) * directions_CD).sum(dim=-1)
    return sums_BC / torch.as_tensor(num_C, device=sums_BC.device).clamp(min=1)
