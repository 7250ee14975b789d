import sys

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.layers.graphs import cooccurrence
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods

N, C, D, F, E = 30, 4, 6, 5, 7
ENTRY = load_methods()["gcn_ml"]
CODE = sys.modules[ENTRY.cls.__module__]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_labels(seed=0, unknown=0.5, rows=N):
    draws = torch.rand(rows, C, generator=generator(seed))
    return torch.where(draws < unknown, UNKNOWN, torch.where(draws < (1 + unknown) / 2, PRESENT, ABSENT)).to(torch.int8)


def method(labels_NC=None, **overrides):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, D, 1), channels=D, feature_width=F, attention_width=4, pool=True)
    labels_NC = random_labels() if labels_NC is None else labels_NC
    task = Task(tuple("abcd"), labels_NC, 0.5, torch.randn(C, E, generator=generator()))
    return ENTRY.cls(backbone, task, ENTRY.hyperparameters(overrides))


def batch_of(labels_BC, seed=0):
    maps_BDHW = torch.randn(len(labels_BC), 3, 4, 4, generator=generator(seed))
    return Batch(maps_BDHW, maps_BDHW, labels_BC, torch.arange(len(labels_BC)), generator(seed))


def slow_propagation(graph_CC, threshold, weight, divided_by):
    size = len(graph_CC)
    edge = [[float(i != j and graph_CC[i, j] >= threshold) for j in range(size)] for i in range(size)]
    a = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            total = sum(edge[k][j] if divided_by == "columns" else edge[i][k] for k in range(size))
            a[i, j] = weight / (1 - weight) * edge[i][j] / (total + 1e-6) + (i == j)
    degree = [sum(a[i, k] for k in range(size)) for i in range(size)]
    result = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            result[i, j] = a[j, i] / (degree[i] * degree[j]) ** 0.5
    return result.float()


@given(
    seed=st.integers(0, 2**31 - 1),
    threshold=st.sampled_from([0.0, 0.4, 0.9]),
    weight=st.sampled_from([0.0, 0.2, 0.5]),
    divided_by=st.sampled_from(["columns", "rows"]),
)
def test_propagation_equals_the_loops(seed, threshold, weight, divided_by):
    graph_CC = torch.rand(5, 5, generator=generator(seed)).fill_diagonal_(1)
    ours = CODE.propagation(graph_CC, threshold, weight, divided_by)
    torch.testing.assert_close(ours, slow_propagation(graph_CC, threshold, weight, divided_by), rtol=1e-5, atol=1e-6)


def test_propagation_by_hand():
    """One edge from 0 to 1 and none else: column 1 gives it all of the quarter."""
    graph_CC = torch.tensor([[1.0, 0.4], [0.39, 1.0]])
    # A = [[1, 0.25], [0, 1]], row sums 1.25 and 1
    expected = torch.tensor([[1 / 1.25, 0.0], [0.25 / 1.25**0.5, 1.0]])
    torch.testing.assert_close(CODE.propagation(graph_CC, 0.4, 0.2), expected, rtol=1e-5, atol=1e-6)


def test_the_graph_is_counted_on_known_labels_without_their_bias():
    labels_NC = random_labels()
    expected = slow_propagation(cooccurrence(labels_NC, "unbiased"), 0.4, 0.2, "columns")
    torch.testing.assert_close(method(labels_NC).propagation_CC, expected)


def test_at_few_known_labels_only_the_unbiased_graph_has_edges():
    draws = torch.rand(4000, C, generator=generator())
    truth_NC = torch.where(draws[:, :1] < 0.8 - draws / 2, PRESENT, ABSENT)  # the categories come together
    known_NC = torch.rand(4000, C, generator=generator(1)) < 0.2
    labels_NC = torch.where(known_NC, truth_NC, UNKNOWN).to(torch.int8)
    assert torch.equal(method(labels_NC, graph_estimator="reference").propagation_CC, torch.eye(C))
    assert (method(labels_NC).propagation_CC > 0).sum() > C


def test_logits_equal_the_loops_in_value_and_gradient():
    gcn, maps_BDHW = method(), torch.randn(3, 3, 4, 4)

    def graph_product(values):
        return [sum(gcn.propagation_CC[i, j] * values[j] for j in range(C)) for i in range(C)]

    hidden = [torch.where(v > 0, v, 0.2 * v) for v in graph_product([w @ gcn.first_EF for w in gcn.words_CE])]
    classifiers = graph_product([v @ gcn.second_FD for v in hidden])
    features_BDHW = gcn.trained(maps_BDHW)
    rows = []
    for n in range(3):
        feature_D = torch.stack([max(features_BDHW[n, d].flatten()) for d in range(D)])
        rows.append(torch.stack([classifier @ feature_D for classifier in classifiers]))
    ours, theirs = gcn(maps_BDHW), torch.stack(rows)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    direction_BC = torch.randn(3, C)
    gradients = [
        torch.autograd.grad((logits * direction_BC).sum(), list(gcn.parameters())) for logits in (ours, theirs)
    ]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_its_loss_is_partial_bce_of_its_logits_and_trains_everything():
    gcn, batch = method(), batch_of(random_labels()[:6])
    losses = gcn.losses(batch, Progress(0, 20))
    assert set(losses) == {"partial_bce"}
    torch.testing.assert_close(losses["partial_bce"], partial_bce(gcn(batch.frozen_BDHW), batch.labels_BC))
    losses["partial_bce"].backward()
    assert {name for name, _ in gcn.named_parameters()} >= {"first_EF", "second_FD"}
    assert all(parameter.grad.abs().max() > 0 for parameter in gcn.parameters())


def test_words_and_graph_are_saved_but_not_trained():
    gcn = method()
    assert {"words_CE", "propagation_CC"} <= set(gcn.state_dict()) - {name for name, _ in gcn.named_parameters()}


def test_initial_ranges_depend_on_the_width_of_the_output():
    weights = CODE.initial_weights(40, 100)
    assert weights.shape == (40, 100) and 0.095 < weights.abs().max() <= 0.1
