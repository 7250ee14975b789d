import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.blending import Blending, Version, blend, instance_choice, supervise, unknown_choice
from mlrpl_bench.models.layers.heads import GraphHead
from mlrpl_bench.models.losses import partial_bce

C, D = 4, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_labels(rows=6, seed=0, unknown=0.5):
    draws = torch.rand(rows, C, generator=generator(seed))
    return torch.where(draws < unknown, UNKNOWN, torch.where(draws < (1 + unknown) / 2, PRESENT, ABSENT)).to(torch.int8)


def slow_blend(features_BCD, others_BCD, labels_BC, mixed_BC, kept):
    features, targets = features_BCD.clone(), labels_BC.float()
    for n, c in mixed_BC.nonzero().tolist():
        features[n, c] = kept * features_BCD[n, c] + (1 - kept) * others_BCD[n, c]
        targets[n, c] = 1 - kept
    return Version(features, targets, mixed_BC)


def assert_same_with_gradients(ours, theirs, inputs):
    direction_BCD, direction_BC = torch.randn(ours[0].shape), torch.randn(ours[1].shape)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)
    gradients = [
        torch.autograd.grad((features * direction_BCD).sum() + (targets * direction_BC).sum(), inputs)
        for features, targets, _ in (ours, theirs)
    ]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_instance_blending_equals_the_loops(size):
    features_BCD = torch.randn(size, C, D, requires_grad=True)
    labels_BC = random_labels(size)
    labels_BC[0], labels_BC[-1] = UNKNOWN, PRESENT  # of a batch of one: PRESENT, and nothing to mix
    alpha = torch.tensor(0.3, requires_grad=True)
    mixed_BC = torch.zeros(size, C, dtype=torch.bool)
    for n in range(size):
        for c in range(C):
            mixed_BC[n, c] = labels_BC[n, c] == UNKNOWN and labels_BC[size - 1 - n, c] == PRESENT
    assert torch.equal(instance_choice(labels_BC), mixed_BC) and mixed_BC.any() == (size > 1)
    partners_BCD = torch.stack([features_BCD[size - 1 - n] for n in range(size)])
    ours = blend(features_BCD, features_BCD.flip(0), labels_BC, mixed_BC, alpha)
    inputs = [features_BCD, alpha] if size > 1 else [features_BCD]
    assert_same_with_gradients(ours, slow_blend(features_BCD, partners_BCD, labels_BC, mixed_BC, alpha), inputs)


def test_instance_choice_by_hand():
    """Images 0 and 3 are partners, and 1 and 2."""
    labels_BC = torch.tensor(
        [
            [UNKNOWN, UNKNOWN, UNKNOWN, ABSENT],
            [PRESENT, PRESENT, UNKNOWN, UNKNOWN],
            [UNKNOWN, ABSENT, PRESENT, UNKNOWN],
            [PRESENT, ABSENT, UNKNOWN, PRESENT],
        ]
    )
    assert instance_choice(labels_BC).nonzero().tolist() == [[0, 0], [1, 2], [2, 0]]


def test_prototype_blending_equals_the_loops():
    features_BCD, prototypes_BD = torch.randn(6, C, D, requires_grad=True), torch.randn(6, D)
    labels_BC, beta = random_labels(6), torch.tensor(0.7, requires_grad=True)
    labels_BC[2] = ABSENT
    mixed_BC = unknown_choice(labels_BC, torch.ones(C, dtype=torch.bool), generator())
    assert not mixed_BC[2].any() and mixed_BC.sum() >= 4
    ours = blend(features_BCD, prototypes_BD[:, None], labels_BC, mixed_BC, beta)
    others_BCD = prototypes_BD[:, None].expand(6, C, D)
    assert_same_with_gradients(
        ours, slow_blend(features_BCD, others_BCD, labels_BC, mixed_BC, beta), [features_BCD, beta]
    )


@pytest.mark.parametrize("path", ["features", "target"])
def test_the_coefficient_learns_through_both_paths(path):
    """With loss BCE(w . f, t) and t = 1 - alpha, the target's path alone gives the logit."""
    features_BCD, labels_BC = torch.randn(2, 1, D), torch.tensor([[UNKNOWN], [PRESENT]])
    alpha, weight_D = torch.tensor(0.3, requires_grad=True), torch.randn(D)
    blended_BCD, targets_BC, _ = blend(features_BCD, features_BCD.flip(0), labels_BC, instance_choice(labels_BC), alpha)
    if path == "features":
        targets_BC = targets_BC.detach()
    else:
        blended_BCD = blended_BCD.detach()
    logits_BC = blended_BCD @ weight_D
    (gradient,) = torch.autograd.grad(2 * partial_bce(logits_BC, targets_BC), alpha)  # 2: mean over two known entries
    logit = logits_BC[0, 0].detach()
    through_features = (torch.sigmoid(logit) - 0.7) * ((features_BCD[0, 0] - features_BCD[1, 0]) @ weight_D)
    torch.testing.assert_close(gradient, through_features if path == "features" else logit)
    assert gradient != 0


def test_a_coefficient_of_one_changes_no_feature_and_adds_no_target():
    features_BCD, labels_BC = torch.randn(4, C, D), random_labels(4)
    blended_BCD, targets_BC, _ = blend(
        features_BCD, features_BCD.flip(0), labels_BC, instance_choice(labels_BC), torch.tensor(1.0)
    )
    assert torch.equal(blended_BCD, features_BCD) and torch.equal(targets_BC, labels_BC.float())


@given(
    seed=st.integers(0, 2**31 - 1),
    eligible=st.lists(st.booleans(), min_size=C, max_size=C),
    count=st.integers(1, C + 2),
)
def test_a_choice_takes_as_many_unknown_eligible_entries_as_asked_for_or_all(seed, eligible, count):
    labels_BC = random_labels(6, seed)
    chosen_BC = unknown_choice(labels_BC, torch.tensor(eligible), generator(seed), count)
    for n in range(6):
        candidates = {c for c in range(C) if labels_BC[n, c] == UNKNOWN and eligible[c]}
        chosen = set(chosen_BC[n].nonzero().flatten().tolist())
        assert chosen <= candidates and len(chosen) == min(count, len(candidates))


def test_a_choice_is_even():
    labels_BC = torch.tensor([[UNKNOWN, PRESENT, UNKNOWN, UNKNOWN]]).repeat(6000, 1)
    chosen_BC = unknown_choice(labels_BC, torch.tensor([True, True, True, False]), generator())
    torch.testing.assert_close(chosen_BC.float().mean(0), torch.tensor([0.5, 0, 0.5, 0]), rtol=0, atol=0.03)


def test_each_kind_makes_its_version_with_its_own_coefficient():
    features_BCD, others_BCD, labels_BC = torch.randn(6, C, D), torch.randn(6, C, D), random_labels()
    blending, mixed_BC = Blending(True, True, learned=True), labels_BC == UNKNOWN
    blending.alpha.data.fill_(0.25)
    blending.beta.data.fill_(0.75)
    versions = blending(features_BCD, labels_BC, 0, (mixed_BC, others_BCD))
    partners_BCD, instance_BC = features_BCD.flip(0), instance_choice(labels_BC)
    expected = {
        "instance": slow_blend(features_BCD, partners_BCD, labels_BC, instance_BC, 0.25),
        "prototype": slow_blend(features_BCD, others_BCD, labels_BC, mixed_BC, 0.75),
    }
    torch.testing.assert_close(versions, expected)
    assert set(Blending(True, False, True)(features_BCD, labels_BC, 0)) == {"instance"}
    assert set(Blending(False, True, True)(features_BCD, labels_BC, 0, (mixed_BC, others_BCD))) == {"prototype"}


def test_coefficients_that_an_optimiser_pushed_out_are_clamped_before_blending():
    features_BCD, labels_BC = torch.randn(6, C, D), random_labels()
    blending = Blending(True, True, learned=True)
    blending.alpha.data.fill_(1.2)
    blending.beta.data.fill_(-0.3)
    blending(features_BCD, labels_BC, 0, (labels_BC == UNKNOWN, features_BCD))
    assert (blending.alpha.item(), blending.beta.item()) == (1, 0)


@pytest.mark.parametrize(("instance", "prototype"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("learned", [True, False])
def test_has_the_coefficients_that_it_needs_and_trains_them_if_asked_to(instance, prototype, learned):
    blending = Blending(instance, prototype, learned)
    names = {name for name, kind in (("alpha", instance), ("beta", prototype)) if kind}
    assert {name: value.requires_grad for name, value in blending.named_parameters()} == dict.fromkeys(names, learned)
    numbers = blending.scalars()
    assert {name for name in ("alpha", "beta") if name in numbers} == names and len(numbers) == 2 * len(names)
    assert all(float(numbers[name]) == 0.5 for name in names)


def test_the_reported_shares_are_means_over_the_epoch_so_far():
    blending, features_BCD = Blending(True, True, learned=True), torch.randn(6, C, D)
    some_BC, none_BC = random_labels(), torch.full((6, C), ABSENT, dtype=torch.int8)
    share = instance_choice(some_BC).float().mean().item()
    assert share > 0
    for step, (labels_BC, expected) in enumerate([(some_BC, share), (none_BC, share / 2), (none_BC, share / 3)]):
        one_BC = torch.zeros(6, C, dtype=torch.bool)
        one_BC[0, 0] = True
        blending(features_BCD, labels_BC, step, (one_BC, features_BCD))
        assert float(blending.scalars()["instance_mixed_share"]) == pytest.approx(expected)
        assert float(blending.scalars()["prototype_mixed_share"]) == pytest.approx(1 / (6 * C))
    blending(features_BCD, none_BC, 0)  # a new epoch starts anew
    assert float(blending.scalars()["instance_mixed_share"]) == 0


@pytest.mark.parametrize("tied_reset", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 3])
def test_versions_are_supervised_as_if_each_went_through_the_head_alone(count, share, tied_reset, steps):
    torch.manual_seed(0)
    head = GraphHead(D, torch.rand(C, C), steps, tied_reset)
    first_BCD = torch.randn(3, C, D, requires_grad=True)
    others = [torch.randn(3, C, D, requires_grad=True) for _ in range(count - 1)]
    versions = {"first": Version(first_BCD, random_labels(3, 0).float())}
    for number, other_BCD in enumerate(others):
        mixed_BC = torch.rand(3, C) < share  # an entry may be mixed in two versions
        blended_BCD = torch.where(mixed_BC[..., None], other_BCD, first_BCD)
        versions[f"blended {number}"] = Version(blended_BCD, random_labels(3, 1 + number).float(), mixed_BC)
    terms = supervise(head, versions)
    expected = {name: partial_bce(head(version.features_BCD), version.targets_BC) for name, version in versions.items()}
    torch.testing.assert_close(terms, expected)

    wanted = [first_BCD, *others, *head.parameters()]
    ours, theirs = (
        torch.autograd.grad(sum(losses.values()), wanted, retain_graph=True) for losses in (terms, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_first_step_is_computed_once_for_all_versions():
    torch.manual_seed(0)
    head, features_BCD, labels_BC = GraphHead(D, torch.rand(C, C)), torch.randn(3, C, D), torch.ones(3, C)
    mixed_BC = torch.zeros(3, C, dtype=torch.bool)
    mixed_BC[0, 0] = True
    rows = []
    head.graph.from_messages.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][..., 0].numel()))
    supervise(head, {"first": Version(features_BCD, labels_BC), "b": Version(features_BCD, labels_BC, mixed_BC)})
    assert rows == [3 * C, 2 * 3 * C, 2 * 3 * C]
