"""A network is taken apart into a sequence of stages that computes what the whole computed."""

import pytest
import timm
import torch
from torch import nn

from mlrpl_bench.models.parts.cutting import LastMap, Stages, TokensToMap, stages_of
from mlrpl_bench.utils.errors import UserError

NAMES = {  # how many stages
    "test_resnet": 5,
    "test_efficientnet": 5,
    "mobilenetv3_small_050": 5,
    "mobilenetv4_conv_small": 5,
    "regnetx_002": 5,
    "test_convnext": 4,
    "test_vit": 4,
    "beit_base_patch16_224": 4,
    "eva02_tiny_patch14_224": 1,  # its blocks are given more than tokens
    "hrnet_w18_small": 1,  # parallel branches
}
SMALLER = {"beit_base_patch16_224": {"depth": 4, "embed_dim": 48, "num_heads": 3}}
"""Networks of the same kind, of which timm has no small one."""

SIDES = {"test_vit": 160, "beit_base_patch16_224": 224, "eva02_tiny_patch14_224": 224}


def features(name):
    torch.manual_seed(0)
    return timm.create_model(name, features_only=True, out_indices=(-2, -1), **SMALLER.get(name, {})).eval()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_parts_compute_what_the_whole_computes_wherever_it_is_cut(name):
    side = SIDES.get(name, 64)
    images_B3HW = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected_BDHW = LastMap(features(name))(images_B3HW)
    stages = stages_of(features(name))
    assert len(stages) == NAMES[name]
    for trained in range(len(stages) + 1):
        frozen, rest = stages.cut(trained, name)
        assert torch.allclose(rest.eval()(frozen.eval()(images_B3HW)), expected_BDHW, atol=1e-5)


def parts(*parameters):
    modules = [nn.Linear(1, 1) if learns else nn.ReLU() for learns in parameters]
    return [(f"part_{place}", module) for place, module in enumerate(modules)]


def test_the_last_stages_are_trained_and_keep_their_names():
    stages = Stages(parts(True, False, True, True), (0, 2, 3))
    frozen, trained = stages.cut(1, "it")
    assert [name for name, _ in frozen.named_children()] == ["part_0", "part_1", "part_2"]
    assert [name for name, _ in trained.named_children()] == ["part_3"]
    assert isinstance(stages.cut(0, "it")[1], nn.Identity) and isinstance(stages.cut(3, "it")[0], nn.Identity)


@pytest.mark.parametrize("name", ["vgg11_bn", "mobilenetv3_small_050", "test_resnet"])
def test_every_stage_begins_with_something_to_learn(name):
    stages = stages_of(features(name))
    assert len(stages) == 5
    assert all(list(stages.modules[start][1].parameters()) for start in stages.starts)


@pytest.mark.parametrize("trained", [-1, 3])
def test_a_number_of_stages_that_cannot_be_is_refused(trained):
    with pytest.raises(UserError, match=f"--trained-stages {trained}: the backbone it has 2 stages"):
        Stages(parts(True, True), (0, 1)).cut(trained, "it")


def test_tokens_become_a_map_row_by_row_without_those_of_no_place():
    tokens_BLD = torch.arange(10.0).view(1, 5, 2)
    assert TokensToMap(1)(tokens_BLD).tolist() == [[[[2, 4], [6, 8]], [[3, 5], [7, 9]]]]
