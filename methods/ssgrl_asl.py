"""SSGRL with the asymmetric loss on its known labels: a control that tells what a head gains from what a loss does.

It stands beside `ml_decoder_asl` as `ssgrl` stands beside `ml_decoder`: one loss, two heads (the loss: Ridnik et al.,
ICCV 2021; the head: Chen et al., ICCV 2019). `asl` cannot stand there, as it takes unknown labels for absent and
divides by all entries.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlrpl_bench import Batch, Progress, parameter, register_method
from mlrpl_bench.models.layers import SemanticGraphMethod
from mlrpl_bench.models.losses import partial_asymmetric


@register_method(
    "ssgrl_asl",
    idea="SSGRL with a loss that forgets easy negatives, on the known labels.",
    differs="a control that no paper has: the asymmetric loss, a mean over known entries, on SSGRL as it is here",
)
class AsymmetricSSGRL(SemanticGraphMethod):
    @dataclass(frozen=True)
    class Hyperparameters(SemanticGraphMethod.Hyperparameters):
        focus_present: float = parameter(0.0, "exponent that weighs easy positives down", low=0)
        focus_absent: float = parameter(4.0, "exponent that weighs easy negatives down", low=0)
        margin: float = parameter(0.05, "taken off the scores of negatives", low=0, high=0.5)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        weights = (options.focus_present, options.focus_absent, options.margin)
        return {"asymmetric": partial_asymmetric(self.known_logits(batch), batch.labels_BC, *weights)}
