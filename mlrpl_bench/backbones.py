"""The network that every method is handed, in two parts: a frozen one, shared, and a trained one, its own.

The paper's "first 91 layers are frozen" is a ResNet-101's conv1 .. layer3; layer4 is trained. The same cut is made
in any timm model whose features come out of a plain sequence of stages: the last stage is trained, what stands
before it is frozen. The 2 x 2 pool and the 1 x 1 reduction that follow in SSGRL's line belong to `layers.trunk`.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mlrpl_bench.errors import UserError

RESNET101 = "resnet101"
SMALL = "small"


@dataclass(frozen=True, eq=False)
class Backbone:
    """What a method is handed.

    Attributes:
        frozen: images (B, 3, H, W) to maps; eval mode, no gradient, shared by all methods, in no method's state.
        trained: those maps to maps with `channels` channels; the method's own copy.
        channels: of the trained part's output.
        feature_width: D, the width of category features built on it (the paper: 1024).
        attention_width: M, the width in which words and positions meet (the paper: 512).
        pool: whether heads of SSGRL's line average 2 x 2 positions first (the paper: yes, 14 x 14 to 7 x 7).
    """

    frozen: nn.Module
    trained: nn.Module
    channels: int
    feature_width: int = 1024
    attention_width: int = 512
    pool: bool = True

    def for_one_method(self) -> Backbone:
        """The same frozen part with a fresh copy of the trained part."""
        return Backbone(
            self.frozen,
            copy.deepcopy(self.trained),
            self.channels,
            self.feature_width,
            self.attention_width,
            self.pool,
        )
