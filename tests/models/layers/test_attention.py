import pytest
import torch

from mlrpl_bench.models.layers.attention import NORMALISATIONS, AttentionBlock, SemanticAttention, weighted_sum

B, C, D, WIDE, H, W = 2, 3, 4, 7, 6, 4


def inputs():
    """Reduced maps on the pooled grid, and the unreduced maps at twice the size."""
    generator = torch.Generator().manual_seed(1)
    shapes = (B, D, H // 2, W // 2), (B, WIDE, H, W)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def layer(normalisation="mean"):
    torch.manual_seed(0)
    return SemanticAttention(WIDE, C, pool=True, normalisation=normalisation)


def slow_features(classifiers_CK, maps_BDHW, unreduced_BKHW, normalisation):
    rows = []
    for n in range(B):
        for c in range(C):
            weights, positions = [], []
            for h in range(H // 2):
                for w in range(W // 2):
                    corner = unreduced_BKHW[n, :, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
                    x_K = (corner[:, 0, 0] + corner[:, 0, 1] + corner[:, 1, 0] + corner[:, 1, 1]) / 4
                    weights.append(1 / (1 + torch.exp(-(classifiers_CK[c] @ x_K))))
                    positions.append(maps_BDHW[n, :, h, w])
            divisor = {"mean": len(weights), "none": 1, "mass": sum(weights)}[normalisation]
            rows.append(sum(m * g_D for m, g_D in zip(weights, positions, strict=True)) / divisor)
    return torch.stack(rows).view(B, C, D)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_equals_the_equations_in_value_and_gradient(normalisation):
    attention, values = layer(normalisation), inputs()
    parameters = [*values, attention.classifiers.weight]
    ours = attention(*values)
    theirs = slow_features(attention.classifiers.weight.flatten(1), *values, normalisation)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    direction = torch.randn(ours.shape)
    gradients = [torch.autograd.grad((features * direction).sum(), parameters) for features in (ours, theirs)]
    for our, their in zip(*gradients, strict=True):
        assert our.abs().max() > 0
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)


def test_weights_are_not_negative_and_lie_on_the_pooled_grid():
    for normalisation, largest in (("mean", 1 / 6), ("none", 1), ("mass", 1)):
        maps_BCHW = layer(normalisation).attention(100 * inputs()[1])
        assert maps_BCHW.shape == (B, C, H // 2, W // 2)
        assert maps_BCHW.min() >= 0 and 0.4 * largest < maps_BCHW.max() <= largest
    torch.testing.assert_close(maps_BCHW.sum((2, 3)), torch.ones(B, C))


def test_without_a_pool_every_position_counts():
    attention = SemanticAttention(WIDE, C, pool=False)
    assert attention.attention(inputs()[1]).shape == (B, C, H, W)


def test_has_no_bias_and_nothing_else_to_train():
    assert [(name, tuple(value.shape)) for name, value in layer().named_parameters()] == [
        ("classifiers.weight", (C, WIDE, 1, 1))
    ]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_no_weight_anywhere_gives_finite_features(normalisation):
    unreduced = -1e6 * layer().classifiers.weight[:1].detach().sign().expand(1, WIDE, H, W)
    features_BCD = layer(normalisation)(torch.randn(1, D, H // 2, W // 2), unreduced)
    assert features_BCD.isfinite().all()


def test_the_sum_stays_in_float32_under_autocast():
    maps_BDHW = torch.full((B, D, H // 2, W // 2), 1.001)  # a value that bfloat16 would round
    with torch.autocast("cpu", torch.bfloat16):
        features_BCD = layer("mass")(maps_BDHW, inputs()[1])
    assert features_BCD.dtype == torch.float32
    torch.testing.assert_close(features_BCD, torch.full_like(features_BCD, 1.001), rtol=1e-6, atol=0)


def test_a_weighted_sum_adds_up_positions():
    weights_BCHW, maps_BDHW = torch.rand(B, C, 2, 3), torch.randn(B, D, 2, 3)
    expected = torch.einsum("bchw,bdhw->bcd", weights_BCHW, maps_BDHW)
    torch.testing.assert_close(weighted_sum(weights_BCHW, maps_BDHW), expected)


# The block of a transformer; its arithmetic is checked against recorded numbers in the tests of `ml_decoder` and `q2l`.


def test_a_block_collects_values_with_the_weights_that_it_tells():
    torch.manual_seed(0)
    block = AttentionBlock(4, 6, heads=1, dropout=0.1).eval()
    queries_BQE, keys_BPE, values_BPE = (torch.randn(2, number, 4) for number in (3, 5, 5))
    weights_BQP = block.weights(queries_BQE, keys_BPE)
    torch.testing.assert_close(weights_BQP.sum(dim=2), torch.ones(2, 3))
    value_EE, bias_E = block.attention.in_proj_weight[8:], block.attention.in_proj_bias[8:]
    collected_BQE = block.attention.out_proj(weights_BQP @ (values_BPE @ value_EE.T + bias_E))
    states_BQE = block.after_attention(queries_BQE + collected_BQE)
    expected_BQE = block.after_feedforward(states_BQE + block.narrow(torch.relu(block.widen(states_BQE))))
    torch.testing.assert_close(block(queries_BQE, queries_BQE, keys_BPE, values_BPE), expected_BQE)


def test_a_block_drops_nothing_in_testing_and_something_in_training():
    torch.manual_seed(0)
    block, inputs_BQE = AttentionBlock(4, 6, heads=2, dropout=0.5), torch.randn(2, 3, 4)
    in_training = [block(*[inputs_BQE] * 4) for _ in range(2)]
    assert not torch.equal(*in_training)
    block.eval()
    assert torch.equal(*(block(*[inputs_BQE] * 4) for _ in range(2)))
