"""Learning Semantic-Specific Graph Representation for Multi-Label Image Recognition (Chen et al., ICCV 2019).

Each category gets its own image feature, found with the vector of its name; the features then exchange messages
along label co-occurrence.

Differs from the paper: trained by partial binary cross-entropy on the known labels, and the graph is counted on
them too; 2048 channels are reduced to the width of the features, as SARB's code does; the reset gate has its own
weights, as the paper says and its code does not (``tied_reset`` gives the code's).

`ssgrl_x3` is a control for methods that blend (SARB and its successors): from their start on they supervise each
known label in three versions of an image, so that it counts about three times. It counts three times here as well,
and nothing is blended.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlrpl_bench import Backbone, Batch, Progress, Task, parameter, register_alias, register_method
from mlrpl_bench.models.layers import SemanticGraphMethod
from mlrpl_bench.models.losses import partial_bce


@register_method(
    "ssgrl",
    idea="Features found with the vector of each category's name exchange messages along label co-occurrence.",
    paper="https://arxiv.org/abs/1908.07325",
    published="SSGRL",
    differs="partial binary cross-entropy; graph counted on known labels; features reduced to the shared width",
    default=True,
)
@register_method(
    "ssgrl_x3",
    idea="SSGRL with the loss three times as large from epoch 5 of 20 on, as blending makes it for known labels.",
    differs="a control that no paper has, on SSGRL as it is here",
    known_weight=3.0,
)
class SSGRL(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        tied_reset: bool = parameter(False, "compute the reset gate with the update gate's weights")
        known_weight: float = parameter(1.0, "how often known labels count from epoch `start` on", low=1)
        start: int = parameter(5, "first epoch in which they do, of 20", low=0, high=19)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters, tied_reset=hyperparameters.tied_reset)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        terms = {"partial_bce": partial_bce(self.known_logits(batch), batch.labels_BC)}
        if options.known_weight > 1 and progress.started(options.start):
            terms["repeated"] = (options.known_weight - 1) * terms["partial_bce"]
        return terms


register_alias("upper_bound", "ssgrl", ratio=1.0)
