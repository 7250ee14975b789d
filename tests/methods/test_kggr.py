import sys

import pytest
import torch
from torch import nn

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.layers.graphs import cooccurrence
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods

N, C, D = 8, 4, 5
METHODS = load_methods()
CODE = sys.modules[METHODS["kggr"].cls.__module__]


def random_labels(rows=N, seed=0):
    draws = torch.rand(rows, C, generator=torch.Generator().manual_seed(seed))
    return torch.where(draws < 0.5, UNKNOWN, torch.where(draws < 0.75, PRESENT, ABSENT)).to(torch.int8)


def method(name="kggr", labels_NC=None, **overrides):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), channels=6, feature_width=D, attention_width=4, pool=True)
    entry, generator = METHODS[name], torch.Generator().manual_seed(0)
    labels_NC = random_labels() if labels_NC is None else labels_NC
    task = Task(tuple("abcd"), labels_NC, 0.5, torch.randn(C, 7, generator=generator))
    return entry.cls(backbone, task, entry.hyperparameters(overrides))


def batch_of(labels_BC):
    generator = torch.Generator().manual_seed(0)
    maps_BDHW = torch.randn(len(labels_BC), 3, 6, 6, generator=generator)
    return Batch(maps_BDHW, maps_BDHW, labels_BC, torch.arange(len(labels_BC)), generator)


def slow_classifiers(propagation, classifiers_CD, adjacency_CC, steps):
    """Node by node: the gated graph, then one linear layer on [h ; w]."""
    graph = propagation.graph
    (wz, wr, wh), (bz, br, bh) = graph.from_messages.weight.chunk(3), graph.from_messages.bias.chunk(3)
    (uz, ur), (cz, cr) = graph.from_state.weight.chunk(2), graph.from_state.bias.chunk(2)
    uh, ch = graph.from_reset_state.weight, graph.from_reset_state.bias
    nodes = list(classifiers_CD)
    for _ in range(steps):
        new = []
        for c in range(C):
            out = sum(adjacency_CC[c, k] * nodes[k] for k in range(C))
            into = sum(adjacency_CC[k, c] * nodes[k] for k in range(C))
            m, h = torch.cat([out, into]), nodes[c]
            z, r = torch.sigmoid(wz @ m + bz + uz @ h + cz), torch.sigmoid(wr @ m + br + ur @ h + cr)
            new.append((1 - z) * h + z * torch.tanh(wh @ m + bh + uh @ (r * h) + ch))
        nodes = new
    merge = propagation.merge
    return torch.stack([merge.weight @ torch.cat([nodes[c], classifiers_CD[c]]) + merge.bias for c in range(C)])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_starts_exactly_as_ssgrl_does(precision):
    kggr, ssgrl, batch = method(), method("ssgrl"), batch_of(random_labels())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        assert torch.equal(kggr(batch.frozen_BDHW), ssgrl(batch.frozen_BDHW))
        losses = [one.losses(batch, Progress(0, 20))["partial_bce"] for one in (kggr, ssgrl)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == losses[1].item()
    own = dict(kggr.named_parameters())
    for name, parameter in ssgrl.named_parameters():  # and its first step is the same
        torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 3])
def test_classifiers_equal_the_equations_in_value_and_gradient(steps):
    torch.manual_seed(1)
    propagation = CODE.ClassifierPropagation(D, steps)
    for parameter in propagation.parameters():
        nn.init.normal_(parameter, std=0.5)  # not the start, where half of it does nothing
    adjacency_CC, classifiers_CD = torch.rand(C, C), torch.randn(C, D, requires_grad=True)
    ours = propagation(classifiers_CD, adjacency_CC)
    theirs = slow_classifiers(propagation, classifiers_CD, adjacency_CC, steps)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    direction_CD, inputs = torch.randn(C, D), [classifiers_CD, *propagation.parameters()]
    gradients = [torch.autograd.grad((values * direction_CD).sum(), inputs) for values in (ours, theirs)]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)
        assert our.abs().max() > 0


def test_logits_are_the_features_under_the_computed_classifiers():
    kggr, batch = method(), batch_of(random_labels())
    nn.init.normal_(kggr.propagation.merge.weight)
    head = kggr.network.head
    head.adjacency_CC.copy_(torch.rand(C, C))
    features_BCD = kggr.network.features(kggr.trained(batch.frozen_BDHW))
    classifiers_CD = slow_classifiers(kggr.propagation, head.classifiers_CD, head.adjacency_CC, 3)
    logits_BC = kggr(batch.frozen_BDHW)
    torch.testing.assert_close(logits_BC, head(features_BCD, classifiers_CD), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits_BC, head(features_BCD), atol=0.01)
    loss = kggr.losses(batch, Progress(0, 20))
    assert set(loss) == {"partial_bce"}
    torch.testing.assert_close(loss["partial_bce"], partial_bce(logits_BC, batch.labels_BC))


def test_everything_trains_from_the_second_step_on():
    kggr, batch = method(), batch_of(random_labels())
    optimizer = torch.optim.SGD(kggr.parameters(), lr=0.1)
    reached = []
    for _ in range(2):
        optimizer.zero_grad()
        kggr.losses(batch, Progress(0, 20))["partial_bce"].backward()
        reached.append({name for name, p in kggr.named_parameters() if p.grad.abs().max() > 0})
        optimizer.step()
    names = {name for name, _ in kggr.named_parameters()}
    assert names - reached[0] == {name for name in names if name.startswith("propagation.graph.")}
    assert reached[1] == names


def test_both_graphs_run_on_the_known_labels():
    labels_NC = random_labels(seed=3)
    kggr = method(labels_NC=labels_NC)
    torch.testing.assert_close(kggr.network.head.adjacency_CC, cooccurrence(labels_NC))
    unbiased = method(labels_NC=labels_NC, graph_estimator="unbiased").network.head.adjacency_CC
    torch.testing.assert_close(unbiased, cooccurrence(labels_NC, "unbiased"))


def test_classifiers_exchange_messages_as_often_as_asked():
    assert method().propagation.graph.steps == 3 and method(classifier_steps=5).propagation.graph.steps == 5


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_hard_batches_in_bfloat16_give_finite_losses_and_gradients(rows, known):
    labels_NC = random_labels()
    labels_NC[:, 1] = UNKNOWN  # a category without known positives
    kggr = method(labels_NC=labels_NC)
    nn.init.normal_(kggr.propagation.merge.weight)
    labels_BC = labels_NC[:rows] if known else torch.full((rows, C), UNKNOWN, dtype=torch.int8)
    kggr.eval()  # one image has no batch statistics
    with torch.autocast("cpu", torch.bfloat16):
        loss = kggr.losses(batch_of(labels_BC), Progress(5, 20))["partial_bce"]
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in kggr.parameters())


def test_attention_has_one_map_per_category():
    maps_BCHW = method().attention(batch_of(random_labels(2)).frozen_BDHW)
    torch.testing.assert_close(maps_BCHW.sum((2, 3)), torch.ones(2, C))
