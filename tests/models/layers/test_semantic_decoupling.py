import pytest
import torch

from mlrpl_bench.models.layers.attention import SemanticDecoupling

B, C, D, E, H, W, M = 2, 3, 8, 5, 3, 4, 6


@pytest.fixture
def decoupling():
    torch.manual_seed(0)
    return SemanticDecoupling(D, E, M)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, D, H, W, generator=generator), torch.randn(C, E, generator=generator)


def slow_features(decoupling, maps_BDHW, words_CE, b3_M, b4):
    """The paper's equations, one image, category and position after the other, with both biases."""
    weights = decoupling.state_dict(keep_vars=True)
    w1, w2, w3, w4 = (weights[f"{name}.weight"] for name in ("from_position", "from_word", "mix", "score"))
    rows = []
    for maps_DHW in maps_BDHW:
        positions_PD = maps_DHW.flatten(1).T
        for word_E in words_CE:
            met = [torch.tanh((w1 @ position_D) * (w2 @ word_E)) for position_D in positions_PD]
            scores_P = torch.stack([(w4 @ (w3 @ met_M + b3_M))[0] + b4 for met_M in met])
            weights_P = scores_P.exp() / scores_P.exp().sum()
            rows.append(sum(weight * position_D for weight, position_D in zip(weights_P, positions_PD, strict=True)))
    return torch.stack(rows).view(len(maps_BDHW), len(words_CE), -1)


def test_equals_the_equations_in_value_and_gradient(decoupling, inputs):
    maps_BDHW, words_CE = inputs
    fast_maps, slow_maps = maps_BDHW.clone().requires_grad_(), maps_BDHW.clone().requires_grad_()
    fast = decoupling(fast_maps, words_CE)
    slow = slow_features(decoupling, slow_maps, words_CE, torch.randn(M), 3.0)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)

    direction = torch.randn(fast.shape)
    fast_gradients = torch.autograd.grad((fast * direction).sum(), [fast_maps, *decoupling.parameters()])
    slow_gradients = torch.autograd.grad((slow * direction).sum(), [slow_maps, *decoupling.parameters()])
    for ours, theirs in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_every_parameter_receives_a_gradient(decoupling, inputs):
    decoupling(*inputs).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in decoupling.parameters())


def test_attention_sums_to_one_and_gives_the_features(decoupling, inputs):
    maps_BDHW, words_CE = inputs
    weights_BCHW = decoupling.attention(maps_BDHW, words_CE)
    assert weights_BCHW.shape == (B, C, H, W) and (weights_BCHW >= 0).all()
    torch.testing.assert_close(weights_BCHW.sum((2, 3)), torch.ones(B, C))
    features_BCD = torch.einsum("bchw,bdhw->bcd", weights_BCHW, maps_BDHW)
    torch.testing.assert_close(decoupling(maps_BDHW, words_CE), features_BCD)


def test_softmax_and_pooling_stay_in_float32_under_autocast(decoupling, inputs):
    # Values that bfloat16 would round: only a pool in float32 gives back a constant map exactly.
    maps_BDHW = torch.full((B, D, H, W), 1.001)
    with torch.autocast("cpu", torch.bfloat16):
        features_BCD = decoupling(maps_BDHW, inputs[1])
        assert decoupling.attention(*inputs).dtype == features_BCD.dtype == torch.float32
    torch.testing.assert_close(features_BCD, torch.full_like(features_BCD, 1.001), rtol=1e-6, atol=0)
    assert features_BCD.isfinite().all()
