import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.heads import PairHead, both_present, pairs, support

B, C, D = 3, 6, 8


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def head(**options):
    torch.manual_seed(0)
    return PairHead(D, C, **options)


def random_features():
    return torch.randn(B, C, D, generator=generator()).requires_grad_()


def slow_logits(layer, features_BCD):
    """As the equations read, with W2 and W3 applied to every pair of every image."""
    weights = dict(layer.named_parameters())
    w2_DF = torch.cat([weights["from_first.weight"], weights["from_second.weight"]], dim=1)
    rows = []
    for feature_CD in features_BCD:
        reduced = [weights["reduce.weight"] @ feature_D + weights["reduce.bias"] for feature_D in feature_CD]
        logits, number = [], 0
        for i in range(C):
            for j in range(i + 1, C):
                hidden_D = torch.relu(w2_DF @ torch.cat([reduced[i], reduced[j]]) + weights["from_first.bias"])
                mixed_D = weights["mix.weight"] @ hidden_D + weights["mix.bias"]
                logits.append(weights["classifiers_PD"][number] @ mixed_D + weights["bias_P"][number])
                number += 1
        rows.append(torch.stack(logits))
    return torch.stack(rows)


# One block; blocks of one row; blocks of two rows, the last of them shorter.
@pytest.mark.parametrize("block_elements", [2**25, 1, 2 * B * C * D])
def test_equals_the_equations_in_value_and_gradient(block_elements):
    layer, features_BCD = head(block_elements=block_elements), random_features()
    inputs = [features_BCD, *layer.parameters()]
    ours, theirs = layer(features_BCD), slow_logits(layer, features_BCD)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    direction = torch.randn(ours.shape, generator=generator())
    gradients = [torch.autograd.grad((logits * direction).sum(), inputs) for logits in (ours, theirs)]
    for our, their in zip(*gradients, strict=True):
        assert our.abs().max() > 0
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_categories", [2, 3])
def test_few_categories_have_their_pairs(num_categories):
    logits_BP = PairHead(D, num_categories)(torch.randn(1, num_categories, D))
    assert logits_BP.shape == (1, num_categories * (num_categories - 1) // 2)


def test_blocks_cover_every_first_category_once():
    layer = head(block_elements=2 * B * C * D)
    assert layer._blocks(B, C, D) == [(0, 2), (2, 4), (4, 5)]
    assert head()._blocks(B, C, D) == [(0, 5)]


def test_what_needs_blocks_is_not_remembered():
    """Between the passes, one block remembers the hidden layer of its pairs; several are computed again."""

    def remembers_a_hidden_layer(block_elements):
        kept = []
        layer, features_BCD = head(block_elements=block_elements), random_features()
        with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
            layer(features_BCD)
        return any(value.ndim == 4 for value in kept)  # images, first and second category, width

    assert remembers_a_hidden_layer(2**25) and not remembers_a_hidden_layer(1)


def test_initial_ranges_are_those_of_layers_with_all_their_inputs():
    layer = PairHead(64, 20)
    for name, value in layer.named_parameters():
        assert 0.8 / 8 < value.abs().max() <= 1 / 8, name  # every layer has 64 inputs


def test_pairs_are_in_the_order_of_rows():
    first_P, second_P = pairs(4)
    assert list(zip(first_P.tolist(), second_P.tolist(), strict=True)) == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
        (2, 3),
    ]


def test_only_two_known_positives_are_together():
    labels_BC = torch.tensor([[PRESENT, PRESENT, UNKNOWN, ABSENT]])
    assert both_present(labels_BC).tolist() == [[True, False, False, False, False, False]]
    labels_BC = torch.tensor([[ABSENT, PRESENT, UNKNOWN, PRESENT]])
    assert both_present(labels_BC).nonzero().tolist() == [[0, 4]]


def slow_support(pair_logits_BP, labels_BC):
    def probability(n, c, k):
        if c == k:
            return torch.ones(())
        number = [(i, j) for i in range(C) for j in range(i + 1, C)].index((min(c, k), max(c, k)))
        return torch.sigmoid(pair_logits_BP[n, number])

    rows = []
    for n in range(len(labels_BC)):
        known = [k for k in range(C) if labels_BC[n, k] == PRESENT]
        for c in range(C):
            rows.append(sum((probability(n, c, k) for k in known), torch.zeros(())) / max(1, len(known)))
    return torch.stack(rows).view(len(labels_BC), C)


@given(seed=st.integers(0, 2**31 - 1))
def test_support_equals_the_loops_in_value_and_gradient(seed):
    pair_logits_BP = (2 * torch.randn(B, C * (C - 1) // 2, generator=generator(seed))).requires_grad_()
    labels_BC = torch.randint(-1, 2, (B, C), generator=generator(seed), dtype=torch.int8)
    labels_BC[0] = UNKNOWN
    labels_BC[1, 0] = PRESENT
    ours, theirs = support(pair_logits_BP, labels_BC), slow_support(pair_logits_BP, labels_BC)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert (ours[0] == 0).all()
    direction = torch.randn(ours.shape, generator=generator(seed))
    gradients = [torch.autograd.grad((values * direction).sum(), pair_logits_BP)[0] for values in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_the_only_known_positive_supports_itself_entirely():
    labels_BC = torch.full((1, C), UNKNOWN)
    labels_BC[0, 2] = PRESENT
    assert support(torch.randn(1, C * (C - 1) // 2), labels_BC)[0, 2] == 1


def test_is_finite_in_bfloat16():
    layer, features_BCD = head(), 100 * random_features()
    with torch.autocast("cpu", torch.bfloat16):
        logits_BP = layer(features_BCD)
        supported_BC = support(logits_BP, torch.ones(B, C))
    assert logits_BP.isfinite().all() and supported_BC.dtype == torch.float32
    supported_BC.sum().backward()
    assert all(value.grad.isfinite().all() for value in layer.parameters())
