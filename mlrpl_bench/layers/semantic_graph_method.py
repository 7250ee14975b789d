"""The base of methods that train SSGRL's network as it is and differ in their losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.hyperparameters import parameter
from mlrpl_bench.layers.label_graph import ESTIMATORS, cooccurrence
from mlrpl_bench.layers.semantic_graph import SemanticGraphNetwork
from mlrpl_bench.method import Batch, Method, Task
from mlrpl_bench.protocol import UNKNOWN


class SemanticGraphMethod(Method):
    """SSGRL's network on the method's own copy of the trained part, with the graph of the known labels.

    A subclass adds `losses`; its hyper-parameters extend those here. Options of the network are passed on to it.
    """

    @dataclass(frozen=True)
    class Hyperparameters:
        graph_estimator: str = parameter("reference", "how the label graph is counted", choices=ESTIMATORS)

    def __init__(self, backbone: Backbone, task: Task, hyperparameters, **network: Any) -> None:
        super().__init__(backbone, task, hyperparameters)
        graph_CC = cooccurrence(task.labels_NC, hyperparameters.graph_estimator)
        self.network = SemanticGraphNetwork(backbone, task.word_vectors_CE, graph_CC, **network)

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.network(self.trained(frozen_BDHW))

    def known_logits(self, batch: Batch) -> Tensor:
        """Logits (B, C) for a loss that reads the known labels alone: right there, 0 elsewhere, and cheaper."""
        return self.network(self.trained(batch.frozen_BDHW), batch.labels_BC != UNKNOWN)

    def parts_to_compile(self) -> Iterable[nn.Module]:
        # Methods call the network's parts one by one.
        own = [part for part in self.children() if part is not self.network]
        return [*own, *self.network.children()]

    def attention(self, frozen_BDHW: Tensor) -> Tensor:
        return self.network.attention(self.trained(frozen_BDHW))
