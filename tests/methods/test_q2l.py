import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench import Recipe
from mlrpl_bench.data.dataset import LAPTOP, PAPERS
from mlrpl_bench.data.protocol import UNKNOWN
from mlrpl_bench.models.losses import partial_asymmetric, partial_bce
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.utils.errors import UserError
from tests.helpers.golden import assert_recorded, golden
from tests.helpers.loss_samples import (
    batch_of,
    losses_of,
    method,
    random_labels,
    random_logits,
)

CODE = sys.modules[load_methods()["q2l"].cls.__module__]
NAMES = ("q2l", "q2l_asl")


def block_names(ours, theirs, attention, norms):
    """Our names of a layer's parameters: theirs."""
    parts = {
        "attention.in_proj_weight": f"{attention}.in_proj_weight",
        "attention.in_proj_bias": f"{attention}.in_proj_bias",
        "attention.out_proj.weight": f"{attention}.out_proj.weight",
        "attention.out_proj.bias": f"{attention}.out_proj.bias",
    }
    pairs = {"widen": "linear1", "narrow": "linear2", "after_attention": norms[0], "after_feedforward": norms[1]}
    for our, their in pairs.items():
        parts |= {f"{our}.{kind}": f"{their}.{kind}" for kind in ("weight", "bias")}
    return {f"{ours}.{our}": f"transformer.{theirs}.{their}" for our, their in parts.items()}


THEIRS = {
    "project.weight": "input_proj.weight",
    "project.bias": "input_proj.bias",
    "queries_CE": "query_embed.weight",
    "classifiers_CE": "fc.W",
    "bias_C": "fc.b",
    "after_decoder.weight": "transformer.decoder.norm.weight",
    "after_decoder.bias": "transformer.decoder.norm.bias",
    **block_names("encoder.0", "encoder.layers.0", "self_attn", ("norm1", "norm2")),
    **block_names("decoder.0", "decoder.layers.0", "multihead_attn", ("norm2", "norm3")),
    **block_names("decoder.1", "decoder.layers.1", "multihead_attn", ("norm2", "norm3")),
}


# The numbers of the code published by the authors


@pytest.mark.parametrize(("name", "encoder_layers"), [("q2l", 1), ("q2l_projected", 0)])
def test_recorded_logits_and_gradients(name, encoder_layers):
    recorded = golden(name)
    maps_BDHW = recorded["maps_BDHW"].requires_grad_()
    num_categories, heads = recorded["logits_BC"].shape[1], int(recorded["heads"])
    head = CODE.QueryTransformer(maps_BDHW.shape[1], num_categories, 16, 24, heads, 0.1, encoder_layers, 2)
    weights = {ours: recorded[f"weight/{THEIRS[ours]}"].view_as(value) for ours, value in head.state_dict().items()}
    head.load_state_dict(weights)
    logits_BC = head.eval()(maps_BDHW)
    assert_recorded(logits_BC, recorded["logits_BC"])
    (logits_BC * recorded["direction_BC"]).sum().backward()
    assert_recorded(maps_BDHW.grad, recorded["gradient_maps_BDHW"])
    for ours, value in head.named_parameters():
        assert_recorded(value.grad, recorded[f"gradient/{THEIRS[ours]}"].view_as(value))


def test_recorded_code_of_positions():
    position_EHW = golden("q2l")["position_EHW"]
    assert_recorded(CODE.position_code(*position_EHW.shape), position_EHW)


def test_recorded_loss_but_for_its_scale():
    recorded = golden("q2l_loss")
    logits_BC, labels_BC = recorded["logits_BC"].requires_grad_(), recorded["labels_BC"]
    loss = 1000 * losses_of(logits_BC, labels_BC, method("q2l_asl", labels_BC))["asymmetric"]
    assert_recorded(loss, recorded["loss64"])
    assert_recorded(torch.autograd.grad(loss, logits_BC)[0], recorded["gradient64_BC"])


# What follows from the equations


def head_of(**changes):
    torch.manual_seed(0)
    options = {"channels": 6, "num_categories": 5, "width": 8, "hidden": 12, "heads": 2, "dropout": 0.1}
    return CODE.QueryTransformer(**{**options, "encoder_layers": 1, "decoder_layers": 2, **changes})


def layer_norm(x, module):
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * module.weight + module.bias


def slow_block(block, state_E, query_E, key_PE, value_PE, width=8, heads=2):
    """One state, head by head and position by position."""
    weight_3EE, bias_3E = (value.chunk(3) for value in (block.attention.in_proj_weight, block.attention.in_proj_bias))
    query_E = weight_3EE[0] @ query_E + bias_3E[0]
    parts = []
    for h in range(heads):
        own = slice(h * width // heads, (h + 1) * width // heads)
        scores, total = [], 0
        for key_E, value_E in zip(key_PE, value_PE, strict=True):
            key_E, value_E = weight_3EE[1] @ key_E + bias_3E[1], weight_3EE[2] @ value_E + bias_3E[2]
            scores.append((query_E[own] @ key_E[own] / math.sqrt(width / heads)).exp())
            total = total + scores[-1] * value_E[own]
        parts.append(total / sum(scores))
    state_E = layer_norm(state_E + block.attention.out_proj(torch.cat(parts)), block.after_attention)
    return layer_norm(state_E + block.narrow(torch.relu(block.widen(state_E))), block.after_feedforward)


def slow_place(k, row, column, height, columns, width=8):
    """Channel k of the code of a position; rows and columns from 0."""
    half = width // 2
    place = 2 * math.pi * ((row + 1) / (height + 1e-6) if k < half else (column + 1) / (columns + 1e-6))
    k %= half
    return (math.sin if k % 2 == 0 else math.cos)(place * 10000 ** (-2 * (k // 2) / half))


def slow_logits(head, maps_DHW):
    _, height, columns = maps_DHW.shape
    weight_ED = head.project.weight.flatten(1)
    values, places = [], []
    for row in range(height):
        for column in range(columns):
            values.append(weight_ED @ maps_DHW[:, row, column] + head.project.bias)
            places.append(torch.tensor([slow_place(k, row, column, height, columns) for k in range(8)]))
    for block in head.encoder:
        keys = [value_E + place_E for value_E, place_E in zip(values, places, strict=True)]
        values = [slow_block(block, v_E, k_E, keys, values) for v_E, k_E in zip(values, keys, strict=True)]
    keys = [value_E + place_E for value_E, place_E in zip(values, places, strict=True)]
    logits = []
    for c in range(5):
        state_E = torch.zeros(8)
        for block in head.decoder:
            state_E = slow_block(block, state_E, state_E + head.queries_CE[c], keys, values)
        logits.append(head.classifiers_CE[c] @ layer_norm(state_E, head.after_decoder) + head.bias_C[c])
    return torch.stack(logits)


def test_logits_and_gradients_are_those_of_one_query_and_position_after_the_other():
    head, maps_BDHW = head_of().eval(), torch.randn(2, 6, 2, 3, requires_grad=True)
    ours, theirs = head(maps_BDHW), torch.stack([slow_logits(head, maps_DHW) for maps_DHW in maps_BDHW])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    wanted = [maps_BDHW, *head.parameters()]
    gradients = [torch.autograd.grad(x_BC.square().sum(), wanted) for x_BC in (ours, theirs)]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-4)


def test_no_query_sees_another():
    head, maps_BDHW = head_of().eval(), torch.randn(2, 6, 2, 3)
    before_BC = head(maps_BDHW)
    head.queries_CE.data[3] += 1
    changed_C = (head(maps_BDHW) != before_BC).any(dim=0)
    assert changed_C.tolist() == [False, False, False, True, False]


def test_the_place_of_a_position_counts():
    head, maps_BDHW = head_of().eval(), torch.randn(2, 6, 3, 3)
    assert not torch.allclose(head(maps_BDHW.flip(3)), head(maps_BDHW), atol=1e-4)
    assert not torch.allclose(head(maps_BDHW.transpose(2, 3)), head(maps_BDHW), atol=1e-4)


def test_matrices_start_in_the_range_of_the_code():
    head = head_of(width=64, hidden=256)
    attention = head.decoder[1].attention
    assert attention.in_proj_weight.abs().max().item() == pytest.approx((6 / (64 + 192)) ** 0.5, rel=0.01)
    assert attention.out_proj.weight.abs().max().item() == pytest.approx((6 / (64 + 64)) ** 0.5, rel=0.01)
    assert head.encoder[0].widen.weight.abs().max().item() == pytest.approx((6 / (64 + 256)) ** 0.5, rel=0.01)
    assert head.classifiers_CE.abs().max().item() == pytest.approx(1 / 8, rel=0.02)
    assert head.queries_CE.std().item() == pytest.approx(1, abs=0.15)


def test_attention_adds_up_to_1_over_the_positions():
    head, maps_BDHW = head_of().eval(), torch.randn(2, 6, 3, 4)
    maps_BCHW = head.attention(maps_BDHW)
    assert maps_BCHW.shape == (2, 5, 3, 4) and (maps_BCHW >= 0).all()
    torch.testing.assert_close(maps_BCHW.sum(dim=(2, 3)), torch.ones(2, 5))
    assert not torch.equal(maps_BCHW[:, 0], maps_BCHW[:, 1])


def test_attention_is_the_last_layers():
    head, maps_BDHW = head_of().eval(), torch.randn(2, 6, 3, 4)
    asked = []
    head.decoder[-1].attention.register_forward_pre_hook(lambda _, inputs: asked.append(inputs))
    head(maps_BDHW)
    queries_BCE, keys_BPE, _ = asked[0]
    expected_BCP = head.decoder[-1].weights(queries_BCE, keys_BPE)
    torch.testing.assert_close(head.attention(maps_BDHW).flatten(2), expected_BCP)


# The method


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_losses_read_the_known_labels_alone(seed):
    logits_BC, labels_BC = random_logits(seed=seed), random_labels(seed=seed)
    plain = losses_of(logits_BC, labels_BC, method("q2l"))
    assert plain == {"partial_bce": partial_bce(logits_BC, labels_BC)}
    asymmetric = losses_of(logits_BC, labels_BC, method("q2l_asl"))
    assert asymmetric == {"asymmetric": partial_asymmetric(logits_BC, labels_BC, 0, 2, 0)}
    (gradient_BC,) = torch.autograd.grad(sum({**plain, **asymmetric}.values()), logits_BC)
    assert not gradient_BC[labels_BC == UNKNOWN].any()


def test_the_head_learns_at_the_codes_rate_in_the_papers_setting_and_no_faster_than_it_can_elsewhere():
    one = method("q2l")
    body, head = one.parameter_groups()
    assert {id(p) for p in head.parameters} == {id(p) for p in one.head.parameters()}
    rates = [Recipe().resolve(preset).lr for preset in (PAPERS, LAPTOP, load_datasets()["scenes"].preset)]
    assert [head.learning_rate(rate) for rate in rates] == pytest.approx([1e-4, 3e-3, 3e-3])
    assert [body.learning_rate(rate) for rate in rates] == rates


def test_the_heads_rate_and_its_limit_can_be_chosen():
    (_, unlimited), (_, common) = (
        method("q2l", **values).parameter_groups() for values in ({"head_limit": None}, {"head_rate": 1.0})
    )
    assert unlimited.learning_rate(8e-4) == 10 * 8e-4
    assert common.learning_rate(1e-5) == 1e-5


def test_the_papers_width_has_no_projection():
    assert isinstance(head_of(channels=8).project, nn.Identity)
    assert isinstance(head_of().project, nn.Conv2d)


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="a width of 6 cannot be divided by 4 heads and by 4"):
        method("q2l", width=6)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_alone_has_the_scores_that_it_has_in_a_batch(name):
    one, frozen_BDHW = method(name).eval(), batch_of(random_labels(4)).frozen_BDHW
    alone_BC = torch.cat([one(frozen_BDHW[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(one(frozen_BDHW), alone_BC, rtol=1e-4, atol=1e-5)
