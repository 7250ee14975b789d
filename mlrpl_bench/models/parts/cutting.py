"""This module cuts timm's networks into stages, so that the first ones can be frozen and the last ones trained.

What a stage is depends on the family:

- convolutional nets and transformers whose map shrinks (ResNet, ConvNeXt, RegNet, EfficientNet, MobileNet, Swin): what
  computes one of the maps that timm calls features. All but the last map's are frozen in the papers.
- transformers whose map keeps its size (ViT, DeiT, BEiT): a quarter of the blocks; the first has the embedding too.
- nets in which no such place was found (parallel branches, attention with other inputs): the whole net is one stage.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError

QUARTERS = 4
"""Into so many stages a transformer is cut whose map keeps its size; a ResNet has four beside its stem."""


@dataclass(frozen=True, eq=False)
class Stages:
    """A network is a sequence of modules, of which some begin a stage.

    Attributes:
        modules: (name, module) in the order in which they are applied; the names are unique.
        starts: where in `modules` each stage begins; the first is 0.
    """

    modules: list[tuple[str, nn.Module]]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.starts)

    def cut(self, trained: int, name: str) -> tuple[nn.Module, nn.Module]:
        """Return the frozen part and the trained part.

        Args:
            trained: how many stages are trained, the last ones; 0 for none of them.
            name: the network's, for the error.

        Raises:
            UserError: there are not so many stages.
        """
        if not 0 <= trained <= len(self):
            known = "can only be trained as a whole (1) or not at all (0)" if len(self) == 1 else f"has {len(self)}"
            raise UserError(
                f"--trained-stages {trained}: the backbone {name} {known}{'' if len(self) == 1 else ' stages'}"
            )
        place = (*self.starts, len(self.modules))[len(self) - trained]
        return _sequence(self.modules[:place]), _sequence(self.modules[place:])


def _sequence(modules: list[tuple[str, nn.Module]]) -> nn.Module:
    return nn.Sequential(OrderedDict(modules)) if modules else nn.Identity()


def stages_of(model: nn.Module) -> Stages:
    """Return the stages of a network that timm made with ``features_only``.

    The network is taken apart and of no use after.
    """
    from timm.models._features import FeatureGetterNet, FeatureListNet

    if isinstance(model, FeatureListNet):
        return _of_sequence(model)
    if all(isinstance(getattr(model, name, None), nn.Module) for name in ("conv_stem", "bn1", "blocks")):
        return _of_efficient_net(model)
    if isinstance(model, FeatureGetterNet) and (found := _of_tokens(model)) is not None:
        return found
    return Stages([("whole", LastMap(model))], (0,))


def _of_sequence(model: Any) -> Stages:
    """Return the stages of a model that timm itself has made a flat sequence."""
    modules = list(model.named_children())
    starts = _starts(modules, model)
    if _is_channels_last(model):
        modules.append(("channels_first", ChannelsFirst()))
    return Stages(modules, starts)


def _of_efficient_net(model: Any) -> Stages:
    """EfficientNets and MobileNets: a stem, then blocks, of which some are the last before the map is halved."""
    stem = [(name, module) for name, module in model.named_children() if name != "blocks"]
    modules = [*stem, *((f"blocks_{name}", block) for name, block in model.blocks.named_children())]
    return Stages(modules, _starts(modules, model))


def _starts(modules: list[tuple[str, nn.Module]], model: Any) -> tuple[int, ...]:
    """Return where stages begin: after each module that gives one of timm's features, with the first that has something
    to learn.

    So no stage is a mere pool, and none begins with an activation, which might change the frozen part's map in place.
    """
    ends = {info["module"].replace(".", "_") for info in model.feature_info.info}
    learning = [place for place, (_, module) in enumerate(modules) if any(True for _ in module.parameters())]
    after = (place for place, (name, _) in enumerate(modules) if name in ends)
    return tuple(sorted({0, *(learning[later] for end in after if (later := bisect(learning, end)) < len(learning))}))


def _of_tokens(model: Any) -> Stages | None:
    """Return the stages of a transformer whose blocks follow each other on one sequence of tokens; None where the parts
    do not add up.

    What the parts compute is compared with what the whole computes, since timm's transformers differ in what stands
    between the embedding and the blocks, and in what else the blocks are given.
    """
    net = model["model"]
    blocks = getattr(net, "blocks", None)
    if not (isinstance(blocks, (nn.Sequential, nn.ModuleList)) and hasattr(net, "forward_features") and len(blocks)):
        return None
    to_map = TokensToMap(int(getattr(net, "num_prefix_tokens", 0)))
    was_training, norm = model.training, getattr(net, "norm", None)
    model.eval()
    with torch.no_grad():
        image_13HW = torch.randn(1, 3, *_input_size(net), generator=torch.Generator().manual_seed(0))
        try:
            expected_1DHW = LastMap(model)(image_13HW)
            net.blocks, net.norm = nn.Sequential(), nn.Identity()
            found_1DHW = nn.Sequential(Embedding(net), *blocks, to_map)(image_13HW)
            fits = torch.allclose(found_1DHW, expected_1DHW, 1e-4, 1e-5)
        except Exception as error:  # parts that do not fit each other fail in many ways; then it is not cut
            if (shortage := shortages.shortage(error)) is not None:
                raise shortage from error
            fits = False
    model.train(was_training)
    if not fits:
        net.blocks, net.norm = blocks, norm
        return None
    names = [f"blocks_{place}" for place in range(len(blocks))]
    quarters = {round(len(blocks) * quarter / QUARTERS) for quarter in range(1, QUARTERS)} - {0}
    modules = [("embedding", Embedding(net)), *zip(names, blocks, strict=True), ("to_map", to_map)]
    return Stages(modules, (0, *(1 + place for place in sorted(quarters))))


def _input_size(net: nn.Module) -> tuple[int, int]:
    """Return rows and columns of the pictures that a transformer was made for."""
    size = getattr(getattr(net, "patch_embed", None), "img_size", None) or (224, 224)
    return int(size[0]), int(size[1])


def _is_channels_last(model: Any) -> bool:
    from timm.layers import Format

    return getattr(model, "output_fmt", None) == Format.NHWC


class ChannelsFirst(nn.Module):
    """This turns (B, H, W, D) to (B, D, H, W), for models that keep channels last (Swin)."""

    def forward(self, maps_BHWD: Tensor) -> Tensor:
        return maps_BHWD.permute(0, 3, 1, 2)


class Embedding(nn.Module):
    """This turns images (B, 3, H, W) to tokens (B, L, D): all that a transformer without its blocks does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.net.forward_features(images_B3HW)  # type: ignore[operator]


class TokensToMap(nn.Module):
    """This turns tokens (B, L, D) of a square image to its map (B, D, H, W), without those that stand for no place.

    Args:
        prefix: how many tokens before the others stand for no place, such as that of the class.
    """

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        places_BDL = tokens_BLD[:, self.prefix :].transpose(1, 2)
        side = math.isqrt(places_BDL.shape[2])
        return places_BDL.unflatten(2, (side, side))


class LastMap(nn.Module):
    """The last of the feature maps that a timm model gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_B3HW: Tensor) -> Tensor:
        maps = self.model(images_B3HW)[-1]
        return maps.permute(0, 3, 1, 2) if _is_channels_last(self.model) else maps
