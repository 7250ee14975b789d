"""The numbers of the code published with SARB (HCPLab-SYSU/HCP-MLR-PL), from its weights and on its inputs.

Recorded in float32 on small random inputs; the maps are as wide as the features, so there is no pool and no
reduction. Everything must agree to 1e-5 relative.
"""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.layers.blending import blend, instance_choice
from mlrpl_bench.models.layers.graphs import cooccurrence
from mlrpl_bench.models.losses import contrastive
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods
from tests.helpers.places import GOLDEN

GRADIENTS = "gradient_of_bce_instance_prototype/"

# Our parameter: the reference's, several where ours holds them stacked. Its fc3.bias and fc4.bias have no counterpart:
# they cannot change anything (the softmax over positions removes them).
NAMES = {
    "network.decoupling.from_position.weight": ["SemanticDecoupling.fc1.weight"],
    "network.decoupling.from_word.weight": ["SemanticDecoupling.fc2.weight"],
    "network.decoupling.mix.weight": ["SemanticDecoupling.fc3.weight"],
    "network.decoupling.score.weight": ["SemanticDecoupling.fc4.weight"],
    **{
        f"network.head.graph.{ours}.{kind}": [f"GraphNeuralNetwork.{name}.{kind}" for name in theirs]
        for kind in ("weight", "bias")
        for ours, theirs in {
            "from_messages": ["fc_1_w", "fc_2_w", "fc_3_w"],
            "from_state": ["fc_1_u", "fc_2_u"],
            "from_reset_state": ["fc_3_u"],
        }.items()
    },
    "network.head.merge.weight": ["fc.weight"],
    "network.head.merge.bias": ["fc.bias"],
    "network.head.classifiers_CD": ["classifiers.weight"],
    "network.head.bias_C": ["classifiers.bias"],
}


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_equal(ours, theirs):
    """To 1e-5 of the value, or of the tensor's largest value for what cancels to almost nothing."""
    theirs = theirs.to(ours.dtype)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.fixture(params=["sarb-0", "sarb-1", "sarb-2"])
def golden(request):
    return load(request.param)


def method(golden, name, **overrides):
    """A method of ours with the reference's weights."""
    num_categories, width = golden["words_CE"].shape[0], golden["maps_BDHW"].shape[1]
    entry = load_methods()[name]
    backbone = Backbone(
        nn.Identity(),
        nn.Identity(),
        channels=width,
        feature_width=width,
        attention_width=golden["weight/SemanticDecoupling.fc1.weight"].shape[0],
        pool=False,
    )
    categories = tuple(map(str, range(num_categories)))
    task = Task(categories, golden["known_NC"].to(torch.int8), 0.5, golden["words_CE"].float())
    built = entry.cls(backbone, task, entry.hyperparameters(overrides))
    weights = {ours: torch.cat([golden[f"weight/{name}"] for name in theirs]) for ours, theirs in NAMES.items()}
    if hasattr(built, "blending"):
        weights |= {f"blending.{name}": golden[name] for name in ("alpha", "beta")}
    missing, unexpected = built.load_state_dict(weights, strict=False)
    assert not unexpected and not set(missing) & set(dict(built.named_parameters()))
    return built


def batch_of(golden):
    labels_BC = golden["target_BC"].to(torch.int8)
    maps_BDHW = golden["maps_BDHW"]
    return Batch(maps_BDHW, maps_BDHW, labels_BC, torch.arange(len(labels_BC)), torch.Generator().manual_seed(0))


def test_label_graph(golden):
    assert_equal(cooccurrence(golden["known_NC"]), golden["graph_CC"])


def test_features_and_logits_of_ssgrl(golden):
    ssgrl = method(golden, "ssgrl")
    assert_equal(ssgrl.network.features(golden["maps_BDHW"]), golden["features_BCD"])
    assert_equal(ssgrl(golden["maps_BDHW"]), golden["logits_BC"])
    assert_equal(ssgrl.losses(batch_of(golden), Progress(0, 20))["partial_bce"], golden["loss/bce"])


def test_blended_targets_and_logits_of_sarb(golden):
    sarb = method(golden, "sarb", prototypes=3)
    alpha, beta = sarb.blending.alpha, sarb.blending.beta
    features_BCD, labels_BC = golden["features_BCD"], golden["target_BC"].to(torch.int8)

    mixed_BC = instance_choice(labels_BC)
    blended_BCD, targets_BC, _ = blend(features_BCD, features_BCD.flip(0), labels_BC, mixed_BC, alpha)
    assert_equal(targets_BC, golden["instance_target_BC"])
    assert_equal(sarb.network.head(blended_BCD), golden["instance_logits_BC"])

    mixed_BC, index_B = their_prototype_choice(golden)
    prototypes_BD = golden["prototypes_CKD"][mixed_BC.int().argmax(1), index_B]
    blended_BCD, targets_BC, _ = blend(features_BCD, prototypes_BD[:, None], labels_BC, mixed_BC, beta)
    assert_equal(targets_BC, golden["prototype_target_BC"])
    assert_equal(sarb.network.head(blended_BCD), golden["prototype_logits_BC"])


def test_losses_and_gradients_of_sarb(golden, monkeypatch):
    sarb = method(golden, "sarb", prototypes=3, contrastive=0)
    sarb.prototypes.centres_CKD.copy_(golden["prototypes_CKD"])
    code = sys.modules[type(sarb).__module__]
    monkeypatch.setattr(code, "prototype_choice", lambda *_: their_prototype_choice(golden))

    losses = sarb.losses(batch_of(golden), Progress(5, 20))
    assert set(losses) == {"partial_bce", "instance", "prototype"}
    for ours, theirs in {"partial_bce": "bce", "instance": "instance", "prototype": "prototype"}.items():
        assert_equal(losses[ours], golden[f"loss/{theirs}"])

    sum(losses.values()).backward()
    for name, parameter in sarb.named_parameters():
        theirs = torch.cat([golden[GRADIENTS + their] for their in NAMES[name]]) if name in NAMES else None
        assert_equal(parameter.grad, golden[GRADIENTS + name.removeprefix("blending.")] if theirs is None else theirs)


def their_prototype_choice(golden):
    """The category that each image drew shows in its target; the prototype's index is one for the whole batch.

    In sarb-2 one image has no unknown label: the reference then overwrites the known label of its first category.
    Our `prototype_choice` never does, but what follows from such a choice is the same.
    """
    mixed_BC = golden["prototype_target_BC"] != golden["target_BC"]
    return mixed_BC, golden["prototype_chosen"].repeat(len(mixed_BC))


def test_contrastive_loss_and_gradient():
    golden = load("contrastive")
    features_BCD = golden["features_BCD"].requires_grad_()
    loss = contrastive(features_BCD, golden["target_BC"], torch.Generator().manual_seed(0))
    assert_equal(loss, golden["loss"])
    assert_equal(torch.autograd.grad(loss, features_BCD)[0], golden["gradient_BCD"])
