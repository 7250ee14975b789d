"""This module builds the backbone that every method is given: a frozen part, shared, and a trained one, its own.

The paper's "first 91 layers are frozen" is a ResNet-101's conv1 .. layer3; layer4 is trained. In any other network the
last stage is trained too, or as many as are asked for, and what stands before them is frozen (`cutting` says
what a stage is). The 2 x 2 pool and the 1 x 1 reduction that follow in SSGRL's line belong to `semantic_graph.Trunk`.
"""

from __future__ import annotations

import copy
import functools
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlrpl_bench.data.images.transforms import INTERPOLATIONS, PixelFormat
from mlrpl_bench.models.parts import folding
from mlrpl_bench.models.parts.cutting import Stages, stages_of
from mlrpl_bench.utils import arrays, shortages
from mlrpl_bench.utils.errors import UserError, one_line
from mlrpl_bench.utils.randomness import seed_of

RESNET101 = "resnet101"
SMALL = "small"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A backbone has a frozen part, shared by all methods, and a trained part, a copy for each method.

    Attributes:
        frozen: images (B, 3, H, W) to maps; eval mode, no gradient, shared by all methods, in no method's state.
        trained: those maps to maps with `channels` channels; the method's own copy.
        channels: number of channels of the trained part's output.
        feature_width: D, the width of category features built on it (the paper: 1024).
        attention_width: M, the width in which words and positions meet (the paper: 512).
        pool: whether heads of SSGRL's line average 2 x 2 positions first (the paper: yes, 14 x 14 to 7 x 7).
        num_stages: how many stages the network has, see `cutting`; 1 where no place was found to cut it.
    """

    frozen: nn.Module
    trained: nn.Module
    channels: int
    feature_width: int = 1024
    attention_width: int = 512
    pool: bool = True
    num_stages: int = 1

    def for_one_method(self) -> Backbone:
        """Return the same frozen part with a fresh copy of the trained part."""
        return replace(self, trained=copy.deepcopy(self.trained))


def build(
    name: str,
    weights: str | None = None,
    *,
    trained_stages: int = 1,
    folded: bool = False,
    feature_width: int | None = None,
    attention_width: int | None = None,
    pool: bool | None = None,
) -> Backbone:
    """Build a backbone by name, with its weights.

    Args:
        name: ``small`` (three residual stages, for small images), ``resnet101`` (the papers'), or any timm model
            that gives feature maps.
        weights: a local file (``.pth`` or ``.safetensors``), ``random``, or None for the ImageNet weights that timm
            downloads (``small`` has none of these: it is pre-trained here, see `pretraining`).
        trained_stages: how many of the network's stages are trained, the last ones; 0 for a frozen network.
        folded: whether the frozen part's batch norms are computed by the convolutions before them.
        feature_width, attention_width, pool: in place of the backbone's own, see `Backbone`.

    Raises:
        UserError: an unknown name, weights that cannot be had or do not fit, or more stages than there are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("backbone"))  # for what is not loaded from a file
        stages, channels = _small(weights) if name == SMALL else _from_timm(name, weights)
    frozen, trained = stages.cut(trained_stages, name)
    if name == SMALL and trained_stages == 1:
        (trained,) = trained  # type: ignore[misc]  # its tensors are called so in the weights of records
    frozen.eval().requires_grad_(False)
    trained.requires_grad_(True)
    if folded:
        folding.fold(frozen)
    chosen = {"feature_width": feature_width, "attention_width": attention_width, "pool": pool}
    of_this = widths(name) | {what: value for what, value in chosen.items() if value is not None}
    return Backbone(frozen, trained, channels, **of_this, num_stages=len(stages))


def widths(name: str) -> dict[str, Any]:
    """Return a backbone's own `feature_width`, `attention_width` and `pool`: the papers', but for the small one."""
    if name == SMALL:
        return {"feature_width": 64, "attention_width": 32, "pool": False}
    return {"feature_width": 1024, "attention_width": 512, "pool": True}


def is_folded(name: str) -> bool:
    """Tell whether a backbone's frozen part is folded in a run.

    ``small`` is not: it gains little, and its scores stay what they were to the last bit.
    """
    return name != SMALL


@dataclass(frozen=True)
class Outline:
    """An outline tells what of a backbone is frozen and what is trained.

    Attributes:
        num_stages: how many stages the network has; 1 where no place was found to cut it.
        trained_stages: how many of them are trained, the last ones.
        frozen_parameters, trained_parameters: the numbers of the parts' parameters.
        unfolded: the frozen part's batch norms that no convolution could take over, if it is folded.
    """

    num_stages: int
    trained_stages: int
    frozen_parameters: int
    trained_parameters: int
    unfolded: int = 0

    def __str__(self) -> str:
        """Return one line: ``1 of 5 stages, 15.0 of 42.5 million parameters``."""
        total = self.frozen_parameters + self.trained_parameters
        if self.num_stages == 1:
            share = "the whole backbone, in which no place to cut was found" if self.trained_stages else "none of it"
        else:
            share = f"{self.trained_stages} of {self.num_stages} stages"
        text = f"{share}, {self.trained_parameters / 1e6:.2f} of {total / 1e6:.2f} million parameters"
        return text + (f"; {self.unfolded} batch norms of the frozen part are not folded" if self.unfolded else "")


@functools.cache  # takes a second or two, and what it tells depends on nothing else
def outline(name: str, trained_stages: int = 1) -> Outline:
    """Return which parts of a backbone are frozen and which are trained; nothing is fetched.

    Raises:
        UserError: an unknown name, or more stages than there are.
    """
    folded = is_folded(name)
    backbone = build(name, "random", trained_stages=trained_stages, folded=folded)
    frozen, trained = (sum(p.numel() for p in part.parameters()) for part in (backbone.frozen, backbone.trained))
    unfolded = folding.batch_norms(backbone.frozen) if folded else 0
    return Outline(backbone.num_stages, trained_stages, frozen, trained, unfolded)


def size_it_needs(name: str, image_size: int) -> int | None:
    """Return the side of the images that a backbone takes where it takes no others and `image_size` is another; else
    None.

    Transformers with learned positions are often made for one size. timm says which may be, and whether such a one
    refuses another size is tried, since some do not.

    Raises:
        UserError: there is no such backbone.
    """
    if name == SMALL:
        return None
    import timm

    _refuse_unknown(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size or config.input_size[1] == image_size:
        return None
    return None if _takes(name, image_size) else int(config.input_size[1])


def refusal_of_size(name: str, image_size: int, needed: int) -> str:
    """Return the line about images of a size that a backbone does not take."""
    return (
        f"the backbone {name} takes images of {needed} x {needed} pixels and no others, not {image_size}; "
        f"add --image-size {needed}"
    )


@functools.cache  # as for `outline`
def _takes(name: str, image_size: int) -> bool:
    backbone = build(name, "random")
    image_13HW = torch.zeros(1, 3, image_size, image_size)
    try:
        with torch.no_grad():
            backbone.trained.eval()(backbone.frozen(image_13HW))
    except Exception as error:  # a network may refuse a size in any way
        if (shortage := shortages.shortage(error)) is not None:
            raise shortage from error
        return False
    return True


def pixel_format(name: str) -> PixelFormat:
    """Return the mean, deviation and interpolation that a backbone was trained with; nothing is built or fetched.

    The papers' ResNet-101 and ``small`` have the reference's, which resizes bicubic whatever timm says.

    Raises:
        UserError: there is no such backbone, or it is fed what no view makes.
    """
    if name in (SMALL, RESNET101):
        return PixelFormat()
    import timm
    from timm.data import resolve_data_config

    _refuse_unknown(name)
    config = timm.get_pretrained_cfg(name)
    found = resolve_data_config(pretrained_cfg=config.to_dict() if config is not None else {})
    pixels = PixelFormat(tuple(found["mean"]), tuple(found["std"]), found["interpolation"])
    if len(pixels.mean_3) != 3 or len(pixels.deviation_3) != 3 or pixels.interpolation not in INTERPOLATIONS:
        raise UserError(
            f"the backbone {name} is fed with mean {pixels.mean_3}, deviation {pixels.deviation_3} and "
            f"{pixels.interpolation} resizing; choose one for three channels and {' or '.join(INTERPOLATIONS)} resizing"
        )
    return pixels


def _refuse_unknown(name: str) -> None:
    import timm

    if not timm.is_model(_timm_name(name)):
        raise UserError(
            f"no backbone {name!r}; there are: {SMALL}, {RESNET101}, and timm's models (timm.list_models())"
        )


def pretrained_tag(name: str) -> str:
    """Return which of timm's weights a backbone gets without a file, such as ``resnet101.tv_in1k``."""
    import timm

    model_name = _timm_name(name)
    config = timm.get_pretrained_cfg(model_name) if timm.is_model(model_name) else None
    return f"{model_name.split('.')[0]}.{config.tag}" if config is not None and config.tag else model_name


def _timm_name(name: str) -> str:
    return "resnet101.tv_in1k" if name == RESNET101 else name


class ResidualStage(nn.Module):
    """These are two 3 x 3 convolutions with a shortcut; the first one halves the map if asked to."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
        )

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        return torch.relu(self.body(maps_BDHW) + self.shortcut(maps_BDHW))


def _small(weights: str | None) -> tuple[Stages, int]:
    """Build a ResNet in miniature: 56 x 56 images become 7 x 7 maps; the last stage is trained, as in the papers."""
    first = [
        nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        ResidualStage(24, 32, stride=1),
        ResidualStage(32, 48, stride=1),
    ]
    last = ResidualStage(48, 64, stride=2)
    if weights not in (None, "random"):
        _load_into(nn.ModuleList([nn.Sequential(*first), last]), Path(str(weights)), SMALL)
    modules = [(str(place), module) for place, module in enumerate([*first, last])]
    return Stages(modules, starts=(0, 4, 5, 6)), 64


def _from_timm(name: str, weights: str | None) -> tuple[Stages, int]:
    """Return the stages of a timm model with its weights, and the number of channels of its last map."""
    import timm  # imported late: it takes seconds

    model_name = _timm_name(name)
    _refuse_unknown(name)
    try:
        model = timm.create_model(model_name, pretrained=weights is None, features_only=True, out_indices=(-2, -1))
    except Exception as error:  # timm, its hub client and the network fail in many ways
        if weights is not None:
            raise UserError(f"timm's {model_name} gives no feature maps ({error}); choose another model") from error
        raise UserError(
            f"the ImageNet weights of {model_name} could not be fetched ({type(error).__name__}: "
            f"{one_line(error)[:150]}); without a network, "
            "name a local file with --weights FILE, or train from scratch with --weights random"
        ) from error
    if weights not in (None, "random"):
        _load_into(model, Path(str(weights)), model_name)
    channels = int(model.feature_info.channels()[-1])  # type: ignore[union-attr, operator]
    return stages_of(model), channels


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a local weight file (``.pth`` or ``.safetensors``) by name; no code in it is run.

    Raises:
        UserError: there is no such file, it is empty or damaged, or it holds something else.
    """
    if not path.is_file():
        raise UserError(f"--weights {path}: there is no such file")
    if not path.stat().st_size:
        raise UserError(f"--weights {path} is empty; get it again")
    state: Any  # whatever the file holds
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    arrays.refuse_bomb(archive, path.stat().st_size)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except arrays.Damaged as error:
        raise UserError(f"--weights {path} cannot be read ({error}); get it again") from error
    except Exception as error:  # pickle, zipfile, torch and safetensors raise many kinds on what is no state dict
        raise UserError(
            f"--weights {path} cannot be read ({type(error).__name__}); it must hold a state dict"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"--weights {path} holds a {type(state).__name__}; it must hold a state dict")
    inner = state.get("state_dict", state)
    state = inner if isinstance(inner, dict) else state
    if not all(isinstance(name, str) for name in state):
        raise UserError(f"--weights {path} holds a dict whose keys are not all names; it must hold a state dict")
    if not state:
        raise UserError(f"--weights {path} holds no tensors; it must hold a state dict")
    return state


def _load_into(model: nn.Module, path: Path, name: str) -> None:
    """Load a local weight file; a classifier that the model does not have may be left over, nothing may be missing."""
    state = _renamed_for(model, read_weights(path))
    try:
        missing = model.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise UserError(f"--weights {path} does not fit {name}: {str(error).splitlines()[-1].strip()}") from error
    if missing:
        raise UserError(
            f"--weights {path} does not fit {name}: {len(missing)} tensors are missing, the first is {missing[0]}"
        )


def _renamed_for(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a whole timm model's state under the names of its feature extractor.

    There ``stages.0`` is called ``stages_0``, or everything stands under ``model``.
    """
    own = {name.removeprefix("model.").replace(".", "_"): name for name in model.state_dict()}
    return {own.get(name.removeprefix("model.").replace(".", "_"), name): value for name, value in state.items()}
