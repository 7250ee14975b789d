import pytest
import torch

from mlrpl_bench.models.layers.heads import GraphHead

B, C, D = 3, 4, 64


def head_and_features():
    torch.manual_seed(0)
    return GraphHead(D, torch.rand(C, C)), torch.randn(B, C, D)


def test_equals_one_classifier_after_the_other():
    head, features_BCD = head_and_features()
    nodes_BCD = head.graph(features_BCD, head.adjacency_CC)
    logits_BC = head(features_BCD)
    for n in range(B):
        for c in range(C):
            output_D = torch.tanh(head.merge(torch.cat([nodes_BCD[n, c], features_BCD[n, c]])))
            expected = head.classifiers_CD[c] @ output_D + head.bias_C[c]
            torch.testing.assert_close(logits_BC[n, c], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("own_classifiers", [True, False])
def test_logits_that_a_loss_reads_are_those_of_the_whole_head_in_value_and_gradient(share, own_classifiers):
    head, features_BCD = head_and_features()
    features_BCD.requires_grad_()
    others_CD = None if own_classifiers else torch.randn(C, D, requires_grad=True)
    read_BC = torch.rand(B, C) < share
    whole_BC, read_alone_BC = head(features_BCD, others_CD), head(features_BCD, others_CD, read_BC)
    torch.testing.assert_close(read_alone_BC, whole_BC * read_BC, rtol=1e-5, atol=1e-6)

    classifiers_CD = head.classifiers_CD if own_classifiers else others_CD
    wanted = [features_BCD, classifiers_CD, head.bias_C, *head.graph.parameters(), *head.merge.parameters()]
    ours = torch.autograd.grad(read_alone_BC.square().sum(), wanted)
    theirs = torch.autograd.grad((whole_BC * read_BC).square().sum(), wanted)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)
        assert bool(share) == bool(our.any())


def test_entries_that_no_loss_reads_cost_no_last_step():
    head, features_BCD = head_and_features()
    rows = []
    head.graph.from_messages.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][..., 0].numel()))
    head.merge.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][..., 0].numel()))
    head(features_BCD, read_BC=torch.eye(B, C, dtype=torch.bool))
    assert rows == [B * C, B * C, B, B]


def test_classifiers_can_be_replaced():
    head, features_BCD = head_and_features()
    torch.testing.assert_close(
        head(features_BCD, 2 * head.classifiers_CD) - head.bias_C, 2 * (head(features_BCD) - head.bias_C)
    )


def test_initial_range_of_the_classifiers():
    head, _ = head_and_features()
    assert 0.9 / 8 < head.classifiers_CD.abs().max() <= 1 / 8 and head.bias_C.abs().max() <= 1 / 8


def test_the_graph_is_saved_but_not_trained():
    head, _ = head_and_features()
    assert "adjacency_CC" in head.state_dict() and "adjacency_CC" not in dict(head.named_parameters())


def test_images_do_not_influence_each_other():
    head, features_BCD = head_and_features()
    torch.testing.assert_close(head(torch.cat([features_BCD, -features_BCD]))[:B], head(features_BCD))


def test_is_finite_in_bfloat16():
    head, features_BCD = head_and_features()
    with torch.autocast("cpu", torch.bfloat16):
        logits_BC = head(100 * features_BCD)
    assert logits_BC.isfinite().all() and logits_BC.dtype == torch.float32
