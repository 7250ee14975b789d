"""A backbone is cut before its last stage; the two parts together compute what the whole model computes."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.loader import normalise
from mlrpl_bench.data.images.transforms import ImageTransform, PixelFormat
from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.models import backbones
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.utils.errors import UserError

CUT = ("test_resnet", "test_convnext", "test_nfnet", "test_mambaout", "regnetx_002", "densenet121")
SINCE_CUT = ("test_vit", "test_efficientnet", "mobilenetv3_small_050", "deit_tiny_distilled_patch16_224")
"""timm gives their features with classes of its own."""
WHOLE = "hrnet_w18_small"
SIDES = {"test_vit": 160, "deit_tiny_distilled_patch16_224": 224, "swin_tiny_patch4_window7_224": 224}


@pytest.fixture(scope="module")
def resnet101():
    return backbones.build("resnet101", "random")


@pytest.fixture
def weights(tmp_path):
    """Writes a state dict and gives its path."""

    def write(state, name="weights.pth"):
        path = tmp_path / name
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        return str(path)

    return write


def whole_model(name):
    torch.manual_seed(0)
    return timm.create_model(name).eval()


def images(name="", num=2):
    side = SIDES.get(name, 64)
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def maps(backbone, images_B3HW):
    backbone.trained.eval()
    return backbone.trained(backbone.frozen(images_B3HW))


@torch.no_grad()
def last_map(model, images_B3HW):
    """The model's own last map, channels first, by another road through timm."""
    how = {"indices": 1, "intermediates_only": True, "norm": False, "output_fmt": "NCHW"}
    (last_BDHW,) = model.forward_intermediates(images_B3HW, **how)
    return last_BDHW


def test_the_small_one_makes_maps_that_grow_with_the_image():
    backbone = backbones.build("small", "random")
    (num, channels, height, width), larger = maps(backbone, images()).shape, maps(backbone, torch.zeros(1, 3, 128, 192))
    assert (num, channels) == (2, backbone.channels)
    assert larger.shape == (1, backbone.channels, 2 * height, 3 * width)


def test_the_small_one_takes_back_the_weights_that_it_gives(weights):
    backbone = backbones.build("small", "random")
    with torch.no_grad():
        next(backbone.trained.parameters()).mul_(2)
    path = weights(nn.ModuleList([backbone.frozen, backbone.trained]).state_dict(), "weights.safetensors")
    again = backbones.build("small", path)
    assert torch.equal(maps(again, images()), maps(backbone, images()))
    assert not torch.equal(maps(backbones.build("small", "random"), images()), maps(backbone, images()))


def test_the_papers_resnet_freezes_91_layers(resnet101):
    convolutions = [name for name, module in resnet101.frozen.named_modules() if isinstance(module, nn.Conv2d)]
    assert len([name for name in convolutions if "downsample" not in name]) == 1 + 9 + 12 + 69


def test_the_papers_resnet_freezes_conv1_to_layer3_and_trains_layer4(resnet101):
    assert [name for name, _ in resnet101.frozen.named_children()] == [
        "conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3",
    ]  # fmt: skip
    assert [name for name, _ in resnet101.trained.named_children()] == ["layer4"]


def test_the_papers_resnet_has_the_papers_widths(resnet101):
    assert (resnet101.channels, resnet101.feature_width, resnet101.attention_width) == (2048, 1024, 512)
    assert resnet101.pool


def test_the_papers_resnet_computes_what_timms_whole_model_computes(resnet101):
    whole = timm.create_model("resnet101.tv_in1k").eval()
    state = {**resnet101.frozen.state_dict(), **resnet101.trained.state_dict()}
    assert set(whole.load_state_dict(state, strict=False).missing_keys) == {"fc.weight", "fc.bias"}
    with torch.no_grad():
        expected_BDHW = whole.forward_features(images())
    assert expected_BDHW.shape == (2, 2048, 2, 2)
    assert torch.equal(maps(resnet101, images()), expected_BDHW)


@pytest.mark.parametrize("name", (*CUT, *SINCE_CUT))
def test_a_local_weight_file_of_a_whole_classifier_gives_that_models_last_map(name, weights):
    model = whole_model(name)
    backbone = backbones.build(name, weights(model.state_dict()))
    maps_BDHW = maps(backbone, images(name))
    assert torch.allclose(maps_BDHW, last_map(model, images(name)), atol=1e-5)
    assert maps_BDHW.shape[1] == backbone.channels


@pytest.mark.parametrize("name", CUT)
def test_what_stands_before_the_last_halving_of_the_map_is_frozen(name):
    backbone = backbones.build(name, "random")
    assert list(backbone.frozen.parameters()) and list(backbone.trained.parameters())
    assert 64 // 16 in backbone.frozen(images(name)).shape[1:3]  # rows are the second axis or the third
    assert maps(backbone, images(name)).shape[2:] == (64 // 32, 64 // 32)


def test_a_model_that_keeps_channels_last_gives_maps_with_channels_first():
    name = "swin_tiny_patch4_window7_224"
    backbone = backbones.build(name, "random")
    assert backbone.frozen(images(name, 1)).shape == (1, 14, 14, 384)
    assert maps(backbone, images(name, 1)).shape == (1, 768, 7, 7)


@pytest.mark.parametrize("name", SINCE_CUT)
def test_nets_that_timm_does_not_give_as_a_sequence_are_cut_too(name):
    backbone = backbones.build(name, "random")
    frozen, trained = (sum(p.numel() for p in part.parameters()) for part in (backbone.frozen, backbone.trained))
    assert frozen and trained and backbone.num_stages > 1
    assert maps(backbone, images(name)).shape[:2] == (2, backbone.channels)


def test_a_model_that_cannot_be_cut_is_trained_as_a_whole_or_not_at_all():
    backbone = backbones.build(WHOLE, "random")
    assert backbone.num_stages == 1 and not list(backbone.frozen.parameters())
    assert torch.equal(backbone.frozen(images()), images())
    frozen = backbones.build(WHOLE, "random", trained_stages=0)
    assert not list(frozen.trained.parameters())
    assert torch.equal(maps(frozen, images()), maps(backbone, images()))
    with pytest.raises(UserError, match=rf"--trained-stages 2: the backbone {WHOLE} can only be trained as a whole"):
        backbones.build(WHOLE, "random", trained_stages=2)


@pytest.mark.parametrize("name", ["small", "test_resnet", "test_efficientnet", "test_vit"])
def test_any_number_of_stages_can_be_trained_and_the_maps_stay_the_same(name):
    usual = backbones.build(name, "random")
    shares = []
    for trained_stages in range(usual.num_stages + 1):
        backbone = backbones.build(name, "random", trained_stages=trained_stages)
        assert torch.equal(maps(backbone, images(name)), maps(usual, images(name)))
        shares.append(sum(parameter.numel() for parameter in backbone.trained.parameters()))
    assert shares[0] == 0 and shares == sorted(set(shares))
    assert not list(backbone.frozen.parameters())


def test_more_stages_than_there_are_cannot_be_trained():
    with pytest.raises(UserError, match=r"\A--trained-stages 6: the backbone test_resnet has 5 stages\Z"):
        backbones.build("test_resnet", "random", trained_stages=6)


def test_an_outline_tells_what_is_frozen_and_trained():
    outline = backbones.outline("resnet101")
    assert (outline.frozen_parameters, outline.trained_parameters) == (27_494_016, 14_964_736)
    assert str(outline) == "1 of 5 stages, 14.96 of 42.46 million parameters"
    assert str(backbones.outline("resnet101", 0)) == "0 of 5 stages, 0.00 of 42.45 million parameters"
    assert str(backbones.outline(WHOLE)).startswith("the whole backbone, in which no place to cut was found, ")
    assert str(backbones.outline(WHOLE, 0)).startswith("none of it, 0.00 of ")
    assert str(backbones.outline("densenet121")).endswith("; 44 batch norms of the frozen part are not folded")


@pytest.mark.parametrize(
    ("name", "size", "needed"),
    [
        ("small", 64, None),
        ("test_resnet", 448, None),
        ("vit_tiny_patch16_224", 224, None),
        ("vit_tiny_patch16_224", 448, 224),
        ("swin_tiny_patch4_window7_224", 64, 224),
    ],
)
def test_a_transformer_that_takes_images_of_one_size_says_which(name, size, needed):
    assert backbones.size_it_needs(name, size) == needed


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_a_folded_backbone_computes_the_same_maps(name):
    plain, folded = (backbones.build(name, "random", folded=folded) for folded in (False, True))
    expected_BDHW = maps(plain, images())
    assert torch.allclose(maps(folded, images()), expected_BDHW, rtol=0, atol=1e-5 * expected_BDHW.abs().max().item())
    assert [*folded.trained.state_dict()] == [*plain.trained.state_dict()]


def test_all_backbones_but_the_small_one_are_folded():
    assert [backbones.is_folded(name) for name in ("small", "resnet101", "resnet18")] == [False, True, True]


def test_widths_that_are_asked_for_take_the_place_of_the_backbones_own():
    small, resnet = backbones.build("small", "random"), backbones.build("test_resnet", "random")
    assert (small.feature_width, small.attention_width, small.pool) == (64, 32, False)
    assert (resnet.feature_width, resnet.attention_width, resnet.pool) == (1024, 512, True)
    other = backbones.build("test_resnet", "random", feature_width=20, attention_width=10, pool=False)
    assert (other.feature_width, other.attention_width, other.pool) == (20, 10, False)


@pytest.mark.parametrize("name", ["small", "resnet101", "test_convnext", "test_vit"])
def test_the_frozen_part_is_frozen_and_the_trained_part_is_not(name):
    backbone = backbones.build(name, "random")
    assert not any(module.training for module in backbone.frozen.modules())
    assert not any(parameter.requires_grad for parameter in backbone.frozen.parameters())
    assert all(parameter.requires_grad for parameter in backbone.trained.parameters())


@pytest.mark.parametrize("name", ["small", *CUT, *SINCE_CUT])
def test_the_trained_part_leaves_its_input_as_it_was(name):
    for trained_stages in range(backbones.build(name, "random").num_stages + 1):
        backbone = backbones.build(name, "random", trained_stages=trained_stages, folded=True)
        frozen = backbone.frozen(images(name))
        before = frozen.clone()
        backbone.trained(frozen)
        assert torch.equal(frozen, before)


def test_each_method_gets_its_own_trained_part_and_the_shared_frozen_part():
    backbone = backbones.build("small", "random")
    one, other = backbone.for_one_method(), backbone.for_one_method()
    assert one.frozen is other.frozen is backbone.frozen
    before = maps(other, images())
    assert torch.equal(maps(one, images()), before)
    with torch.no_grad():
        for value in one.trained.state_dict().values():
            value.add_(1)
    assert not torch.equal(maps(one, images()), before)
    assert torch.equal(maps(other, images()), before) and torch.equal(maps(backbone, images()), before)


def test_a_methods_backbone_has_the_widths_of_the_one_it_comes_from():
    backbone = backbones.Backbone(nn.Identity(), nn.Identity(), 3, feature_width=5, attention_width=7, pool=False)
    copy = backbone.for_one_method()
    assert (copy.channels, copy.feature_width, copy.attention_width, copy.pool) == (3, 5, 7, False)


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_weights_are_read_from_both_kinds_of_file(file, weights):
    model = whole_model("test_resnet")
    backbone = backbones.build("test_resnet", weights(model.state_dict(), file))
    assert torch.equal(backbone.frozen.state_dict()["conv1.0.weight"], model.state_dict()["conv1.0.weight"])


def test_weights_may_lie_in_a_checkpoint_beside_other_things(weights):
    state = whole_model("test_resnet").state_dict()
    backbone = backbones.build("test_resnet", weights({"epoch": 3, "state_dict": state}))
    assert torch.equal(backbone.frozen.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_a_missing_tensor_is_named(weights):
    state = whole_model("test_resnet").state_dict()
    del state["layer3.0.conv1.weight"]
    with pytest.raises(UserError, match=r"does not fit test_resnet: 1 tensors? .*missing.* layer3\.0\.conv1\.weight"):
        backbones.build("test_resnet", weights(state))


def test_a_tensor_of_another_shape_is_named(weights):
    state = whole_model("test_resnet").state_dict()
    state["layer4.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    with pytest.raises(UserError, match=r"\A[^\n]*does not fit test_resnet: [^\n]*layer4\.0\.conv1\.weight[^\n]*\Z"):
        backbones.build("test_resnet", weights(state))


def test_another_models_weights_are_refused(weights):
    with pytest.raises(UserError, match="does not fit test_convnext"):
        backbones.build("test_convnext", weights(whole_model("test_resnet").state_dict()))


@pytest.mark.parametrize("name", ["small", "test_resnet"])
def test_a_weight_file_that_is_not_there_is_named(name):
    with pytest.raises(UserError, match=r"--weights gone\.pth: there is no such file"):
        backbones.build(name, "gone.pth")


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_a_weight_file_that_cannot_be_read_is_named(tmp_path, file):
    (tmp_path / file).write_text("once upon a time")
    with pytest.raises(UserError, match=rf"--weights .*{file} cannot be read"):
        backbones.build("test_resnet", str(tmp_path / file))


def test_a_weight_file_without_a_state_dict_is_refused(weights):
    with pytest.raises(UserError, match="must hold a state dict"):
        backbones.build("test_resnet", weights([torch.zeros(1)]))


@pytest.mark.parametrize("name", ["resnet101", "test_resnet"])
def test_imagenet_weights_that_cannot_be_had_are_explained(name, monkeypatch):
    def no_network(*_, **__):
        raise OSError("name resolution failed")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(
        UserError, match=rf"{name}.* not be fetched \(OSError: name resolution failed\).* --weights FILE"
    ):
        backbones.build(name)


def test_the_imagenet_weights_of_the_papers_resnet_are_torchvisions(monkeypatch):
    asked = {}

    def record(name, **options):
        asked.update(name=name, **options)
        raise OSError

    monkeypatch.setattr(timm, "create_model", record)
    with pytest.raises(UserError):
        backbones.build("resnet101")
    assert (asked["name"], asked["pretrained"]) == ("resnet101.tv_in1k", True)


def test_without_weights_nothing_is_fetched(monkeypatch):
    asked, create_model = [], timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *names, **options: asked.append(options) or create_model(*names, **options)
    )
    backbones.build("test_resnet", "random")
    assert [options["pretrained"] for options in asked] == [False]


def test_an_unknown_name_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"no backbone 'resnet_101'; there are: small, resnet101, and timm's models"):
        backbones.build("resnet_101", "random")


def test_random_weights_are_the_same_every_time_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    one, other = (backbones.build("small", "random") for _ in range(2))
    assert torch.equal(maps(one, images()), maps(other, images()))
    assert torch.equal(torch.random.get_rng_state(), before)


HALF_3 = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("small", PixelFormat()),
        ("resnet101", PixelFormat()),  # the papers resize bicubic, timm says bilinear of these weights
        ("resnet18", PixelFormat()),
        ("resnet101.tv_in1k", PixelFormat(interpolation="bilinear")),
        ("tf_efficientnet_lite0", PixelFormat(HALF_3, HALF_3)),
        ("vit_tiny_patch16_224", PixelFormat(HALF_3, HALF_3)),
    ],
)
def test_a_backbone_is_fed_what_it_was_trained_with(name, pixels):
    assert backbones.pixel_format(name) == pixels


def test_a_backbone_that_does_not_exist_has_no_pixels():
    with pytest.raises(UserError, match="no backbone 'resnet1001'"):
        backbones.pixel_format("resnet1001")


CLASSES_OF = {  # ImageNet's 1,000 classes, by VOC's categories
    "cat": (281, 282, 283, 284, 285),
    "bus": (654, 779, 874),
    "train": (466, 547, 705, 820, 829),
    "car": (407, 436, 468, 479, 511, 581, 609, 627, 656, 661, 717, 751, 817),
}


@pytest.mark.skipif("MLRPL_TEST_DATA" not in os.environ, reason="MLRPL_TEST_DATA names no folder of test data")
@pytest.mark.parametrize("category", CLASSES_OF)
def test_real_weights_know_real_photographs_that_are_read_as_in_a_run(category):
    root = Path(os.environ["MLRPL_TEST_DATA"])
    weights, photographs = root / "weights/tf_efficientnet_lite0.pth", root / "voc2007-part"
    if not weights.is_file() or not photographs.is_dir():
        pytest.skip(f"{root} has no weights or no photographs")
    split = load_datasets()["voc2007"].cls().load(photographs, "test")
    column_N = split.labels_NC[:, split.categories.index(category)]
    rows = [row for row in np.flatnonzero(column_N == PRESENT) if (split.labels_NC[row] == PRESENT).sum() == 1][:40]
    view = ImageTransform(224, pixels=backbones.pixel_format("tf_efficientnet_lite0"))
    pixels = np.stack([np.asarray(view.test(decode(split.image_paths[row]))) for row in rows])
    images_B3HW = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), view.pixels)
    head = timm.create_model("tf_efficientnet_lite0", checkpoint_path=str(weights)).eval()
    backbone = backbones.build("tf_efficientnet_lite0", str(weights), folded=True)
    with torch.no_grad():
        logits_BK = head.forward_head(head.bn2(head.conv_head(maps(backbone, images_B3HW))))
    found = [bool(set(top) & set(CLASSES_OF[category])) for top in logits_BK.topk(5).indices.tolist()]
    assert len(rows) >= 20 and np.mean(found) > 0.7, (len(rows), np.mean(found))


@pytest.mark.skipif("MLRPL_TEST_DATA" not in os.environ, reason="MLRPL_TEST_DATA names no folder of test data")
def test_real_weights_are_surest_of_photographs_that_are_fed_as_in_their_training():
    """The classifier's top score, averaged over photographs, is higher with its own mean than with ImageNet's."""
    root = Path(os.environ["MLRPL_TEST_DATA"])
    weights, photographs = root / "weights/tf_efficientnet_lite0.pth", sorted(root.glob("coco18/**/*.jpg"))[:64]
    if not weights.is_file() or not photographs:
        pytest.skip(f"{root} has no weights or no photographs")
    model = timm.create_model("tf_efficientnet_lite0", checkpoint_path=str(weights)).eval()
    own = backbones.pixel_format("tf_efficientnet_lite0")
    view = ImageTransform(224, pixels=own)
    pixels = np.stack([np.asarray(view.test(decode(path))) for path in photographs])
    pixels_B3HW = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.no_grad():
        surest = [model(normalise(pixels_B3HW, each)).softmax(1).amax(1).mean().item() for each in (own, PixelFormat())]
    assert surest[0] > surest[1], surest


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_an_empty_weight_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"--weights .*{name} is empty; get it again"):
        backbones.read_weights(tmp_path / name)


def test_a_weight_file_without_tensors_is_refused(weights):
    with pytest.raises(UserError, match=r"--weights .*weights\.pth holds no tensors"):
        backbones.read_weights(Path(weights({"state_dict": {}})))


def test_weights_are_read_by_name(weights):
    assert backbones.read_weights(Path(weights({"a": torch.ones(2)})))["a"].tolist() == [1, 1]
