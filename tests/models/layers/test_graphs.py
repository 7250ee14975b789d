import pytest
import torch

from mlrpl_bench.models.layers.graphs import GatedGraph

B, C, D = 2, 4, 5


def slow(graph, nodes_BCD, adjacency_CC, tied_reset):
    """The equations node by node."""
    (wz, wr, wh), (bz, br, bh) = graph.from_messages.weight.chunk(3), graph.from_messages.bias.chunk(3)
    uz, cz = graph.from_state.weight[:D], graph.from_state.bias[:D]
    ur, cr = (uz, cz) if tied_reset else (graph.from_state.weight[D:], graph.from_state.bias[D:])
    uh, ch = graph.from_reset_state.weight, graph.from_reset_state.bias
    for _ in range(graph.steps):
        new = torch.empty_like(nodes_BCD)
        for n in range(len(nodes_BCD)):
            for c in range(C):
                h = nodes_BCD[n, c]
                out = sum(adjacency_CC[c, k] * nodes_BCD[n, k] for k in range(C))
                into = sum(adjacency_CC[k, c] * nodes_BCD[n, k] for k in range(C))
                m = torch.cat([out, into])
                z = torch.sigmoid(wz @ m + bz + uz @ h + cz)
                r = torch.sigmoid(wr @ m + br + ur @ h + cr)
                candidate = torch.tanh(wh @ m + bh + uh @ (r * h) + ch)
                new[n, c] = (1 - z) * h + z * candidate
        nodes_BCD = new
    return nodes_BCD


@pytest.fixture(params=[False, True], ids=["own_reset", "tied_reset"])
def graph(request):
    torch.manual_seed(0)
    return GatedGraph(D, tied_reset=request.param)


def test_equals_the_equations_in_value_and_gradient(graph):
    nodes_BCD, adjacency_CC, direction = torch.randn(B, C, D), torch.rand(C, C), torch.randn(B, C, D)
    fast_nodes, slow_nodes = nodes_BCD.clone().requires_grad_(), nodes_BCD.clone().requires_grad_()
    ours, theirs = graph(fast_nodes, adjacency_CC), slow(graph, slow_nodes, adjacency_CC, graph.tied_reset)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    our_gradients = torch.autograd.grad((ours * direction).sum(), [fast_nodes, *graph.parameters()])
    their_gradients = torch.autograd.grad((theirs * direction).sum(), [slow_nodes, *graph.parameters()])
    for our, their in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6)
        assert our.abs().max() > 0


def test_nodes_need_no_batch():
    graph, nodes_BCD, adjacency_CC = GatedGraph(D), torch.randn(B, C, D), torch.rand(C, C)
    torch.testing.assert_close(graph(nodes_BCD[0], adjacency_CC), graph(nodes_BCD, adjacency_CC)[0])


def test_initial_ranges_are_those_of_separate_layers():
    graph = GatedGraph(64)
    for layer, fan_in in ((graph.from_messages, 128), (graph.from_state, 64), (graph.from_reset_state, 64)):
        assert 0.95 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5


def test_messages_are_added_up_in_float32_under_autocast():
    graph, seen = GatedGraph(D, steps=1), []
    graph.from_messages.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    nodes_BCD, adjacency_CC = 100 * torch.randn(B, C, D), torch.rand(C, C)
    with torch.autocast("cpu", torch.bfloat16):
        assert graph(nodes_BCD, adjacency_CC).isfinite().all()
    expected = torch.cat([adjacency_CC @ nodes_BCD, adjacency_CC.T @ nodes_BCD], dim=-1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)


def test_versions_under_autocast_are_what_each_is_alone():
    torch.manual_seed(0)
    graph, adjacency_CC, mixed_VBC = GatedGraph(64), torch.rand(C, C), torch.rand(2, B, C) < 0.4
    mixed_VBC[0] = False
    first_BCD = torch.randn(B, C, 64)
    nodes_BCD = torch.cat([first_BCD, torch.where(mixed_VBC[1, ..., None], torch.randn(B, C, 64), first_BCD)])
    wanted_N = torch.arange(len(nodes_BCD) * C)
    whole_BCD = graph(nodes_BCD, adjacency_CC)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        shared_ND = graph(nodes_BCD, adjacency_CC, wanted_N, mixed_VBC)
        alone_BCD = graph(nodes_BCD, adjacency_CC)
    errors = [(found.view_as(whole_BCD) - whole_BCD).norm().item() for found in (shared_ND, alone_BCD)]
    assert 0 < errors[0] < 1.5 * errors[1]  # 16 bits cost it no more than they cost anyway
