"""Learning a Deep ConvNet for Multi-Label Classification with Partial Labels (Durand et al., CVPR 2019): losses.

Global average pooling and one linear layer, trained by binary cross-entropy on the known labels alone:
`partial_bce` averages over all known labels of the batch; `partial_bce_norm` averages over images and weighs each
by g(p) = a p^b + c, where p is the share of its labels that is known.

Differs from the paper: no graph network, no curriculum (the curriculum is a method of its own); `partial_bce` has no
normalisation either. The constants of g are the two that other implementations of the paper agree on, g(1) = 1 and
g(0.1) = 5. Labels hidden evenly leave p nearly the same in all images, and Adam does not see a common factor: the two
can differ visibly only where categories are few.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlrpl_bench import Backbone, Batch, Method, Progress, Recipe, Task, parameter, register_method
from mlrpl_bench.models.layers import PooledClassifier
from mlrpl_bench.models.losses import normalised_bce, partial_bce


@register_method(
    "partial_bce",
    idea="A linear classifier on the mean position, trained by cross-entropy on the known labels alone.",
    paper="https://arxiv.org/abs/1902.09720",
    published="BN-BCE (BCE normalised by #known labels in batch)",
    differs="no normalisation by the share of known labels, no graph network, no curriculum",
    default=True,
)
@register_method(
    "partial_bce_norm",
    idea="As partial_bce, with images averaged, each weighted by a function of the share of its labels that is known.",
    differs="no graph network, no curriculum; the constants of the weight come from other implementations",
    normalised=True,
)
class PartialBCE(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        normalised: bool = parameter(False, "average per image, weighted by slope * known_share ** exponent + offset")
        slope: float = parameter(-4.45, "a in an image's weight a p^b + c")
        exponent: float = parameter(
            1.0, "b in it; -1, with slope 1 and offset 0, divides by the number of known labels"
        )
        offset: float = parameter(5.45, "c in it")

    recipe = Recipe()

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        self.classifier = PooledClassifier(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.classifier(self.trained(frozen_BDHW))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options, logits_BC = self.hyperparameters, self(batch.frozen_BDHW)
        if options.normalised:
            loss = normalised_bce(logits_BC, batch.labels_BC, options.slope, options.exponent, options.offset)
            return {"normalised_bce": loss}
        return {"partial_bce": partial_bce(logits_BC, batch.labels_BC)}
