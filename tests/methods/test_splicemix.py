import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers import PooledClassifier, union
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.registry import load_methods
from tests.helpers.golden import assert_recorded, golden
from tests.helpers.loss_samples import LATE, C, assert_same, batch_of, generator, method, random_labels

CODE = sys.modules[load_methods()["splicemix"].cls.__module__]
NAMES = ("splicemix", "splicemix_cl")
PARTS = [f"even/{number}/" for number in range(6)] + ["odd/0/", "odd/1/"]


def splicing_of(recorded):
    members_MG, dropped_MG = recorded["members_MG"], recorded["dropped_MG"]
    return CODE.Splicing(int(recorded["rows"]), int(recorded["columns"]), members_MG, ~dropped_MG)


# Images and labels


@pytest.mark.parametrize("part", PARTS)
def test_spliced_images_and_labels_are_those_of_the_official_code(part):
    recorded, labels_BC = golden("splicemix", part), golden("splicemix", "labels_")["BC"]
    splicing = splicing_of(recorded)
    images_B3HW = golden("splicemix", f"{part.split('/')[0]}/images_")["B3HW"]
    assert_recorded(CODE.splice(images_B3HW, splicing), recorded["mixed_M3HW"])
    labels_MC = union(labels_BC, splicing.members_MG, splicing.is_kept_MG)
    assert torch.equal(labels_MC, recorded["labels_MC"])


def slow_resize(image_3HW, height, width):
    """Bilinear, the corners of both at the same place."""
    sides = image_3HW.shape[1:]
    result = torch.zeros(len(image_3HW), height, width, dtype=image_3HW.dtype)
    for y in range(height):
        for x in range(width):
            scales = [(old - 1) / max(new - 1, 1) for old, new in zip(sides, (height, width), strict=True)]
            places = [y * scales[0], x * scales[1]]
            for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
                at, share = [], 1.0
                for place, step, side in zip(places, corner, sides, strict=True):
                    low = min(math.floor(place), side - 1)
                    at.append(min(low + step, side - 1))
                    share *= place - low if step else 1 - place + low
                result[:, y, x] += share * image_3HW[:, at[0], at[1]]
    return result


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("side", [6, 7])
def test_each_cell_is_the_shrunken_image_and_an_empty_one_is_0(rows, columns, side):
    images_B3HW = torch.randn(4, 3, side, side, generator=generator())
    members_MG = torch.randint(4, (2, rows * columns), generator=generator())
    is_kept_MG = torch.rand(2, rows * columns, generator=generator(1)) < 0.6
    mixed_M3HW = CODE.splice(images_B3HW, CODE.Splicing(rows, columns, members_MG, is_kept_MG))
    assert mixed_M3HW.shape == (2, 3, side, side)
    for m in range(2):
        grid_3HW = torch.zeros(3, side // rows * rows, side // columns * columns)
        for cell in range(rows * columns):
            if is_kept_MG[m, cell]:
                small_3HW = slow_resize(images_B3HW[members_MG[m, cell]], side // rows, side // columns)
                top, left = cell // columns * (side // rows), cell % columns * (side // columns)
                grid_3HW[:, top : top + side // rows, left : left + side // columns] = small_3HW
        torch.testing.assert_close(mixed_M3HW[m], slow_resize(grid_3HW, side, side), rtol=1e-4, atol=1e-5)


def test_unknown_labels_of_a_cell_stay_unknown_unless_another_shows_the_category():
    labels_BC = torch.tensor([[PRESENT, UNKNOWN, UNKNOWN, ABSENT], [UNKNOWN, UNKNOWN, ABSENT, ABSENT]])
    members_MG, everything = torch.tensor([[0, 1]]), torch.tensor([[True, True]])
    assert union(labels_BC, members_MG, everything).tolist() == [[PRESENT, UNKNOWN, UNKNOWN, ABSENT]]
    assert union(labels_BC, members_MG, torch.tensor([[False, True]])).tolist() == [[UNKNOWN, UNKNOWN, ABSENT, ABSENT]]


# The law


def test_grids_and_empty_cells_follow_the_official_codes_law():
    recorded = golden("splicemix_law")
    seen, count = {}, 3000
    for seed in range(count):
        splicing = CODE.draw(8, 2, 0.3, generator(seed))
        (empty,) = set((~splicing.is_kept_MG).sum(dim=1).tolist())
        key = (splicing.rows, splicing.columns, empty, len(splicing.members_MG))
        seen[key] = seen.get(key, 0) + 1
    kinds = map(tuple, recorded["row_column_drops_mixed_K4"].tolist())
    theirs = dict(zip(kinds, recorded["count_K"].tolist(), strict=True))
    assert set(seen) == set(theirs)
    table = [[counts[key] for key in sorted(theirs)] for counts in (seen, theirs)]
    assert stats.chi2_contingency(table).pvalue > 0.01
    grids = {(1, 2): 0.15, (2, 1): 0.15, (2, 2): 0.4, (2, 3): 0.15, (3, 2): 0.15}
    empties = {key: [0.7] + [0.3 / (key[0] * key[1] - 1)] * (key[0] * key[1] - 1) for key in grids}
    law = {(*key, n, 2): share * part for key, share in grids.items() for n, part in enumerate(empties[key])}
    keys = sorted(theirs)
    assert stats.chisquare([seen[key] for key in keys], [count * law[key] for key in keys]).pvalue > 0.01


def test_cells_are_filled_from_random_orders_of_the_batch_one_after_the_other():
    for seed in range(30):
        members_MG = CODE.draw(8, 2, 0.3, generator(seed)).members_MG
        shown = members_MG.flatten().tolist()
        assert len(set(shown[:8])) == min(8, len(shown)) and set(shown[8:]) <= set(range(8))
    firsts = [int(CODE.draw(8, 2, 0.3, generator(seed)).members_MG[0, 0]) for seed in range(400)]
    assert stats.chisquare([firsts.count(row) for row in range(8)]).pvalue > 0.01


def test_which_cells_are_empty_is_drawn_for_each_mixture_and_one_is_kept_at_least():
    kept = [CODE.draw(24, 6, 1.0, generator(seed)).is_kept_MG for seed in range(60)]
    assert all(is_kept_MG.any(dim=1).all() and not is_kept_MG.all() for is_kept_MG in kept)
    assert sum(len({tuple(row) for row in is_kept_MG.tolist()}) > 1 for is_kept_MG in kept) > 40
    assert all(CODE.draw(24, 6, 0.0, generator(seed)).is_kept_MG.all() for seed in range(20))


# The method


class Gives(torch.nn.Module):
    """A trained part out of which the same maps come, whatever goes in."""

    def __init__(self, maps_NDHW):
        super().__init__()
        self.maps_NDHW = maps_NDHW

    def forward(self, frozen_NDHW):
        return self.maps_NDHW


@pytest.mark.parametrize("part", ["0/", "1/"])
def test_consistency_and_its_gradient_are_those_of_the_official_code(part, monkeypatch):
    inputs, recorded = golden("splicemix_cl"), golden("splicemix_cl", part)
    splicing = splicing_of(recorded)
    maps_NDHW, labels_BC = recorded["maps_NDHW"].requires_grad_(), recorded["labels_BC"]
    one = method("splicemix_cl", labels_BC)
    one.classifier = torch.nn.Linear(*inputs["weight_CD"].T.shape)
    one.classifier.weight.data, one.classifier.bias.data = inputs["weight_CD"], inputs["bias_C"]
    one.trained = Gives(maps_NDHW)
    monkeypatch.setattr(CODE, "draw", lambda *_: splicing)
    terms = one.losses(batch_of(labels_BC), LATE)
    assert_recorded(sum(terms.values()), recorded["loss"])
    assert_recorded(torch.autograd.grad(sum(terms.values()), maps_NDHW)[0], recorded["gradient_maps_NDHW"])
    assert_recorded(one._classify(maps_NDHW), recorded["logits_NC"])
    cells_KDHW = CODE.cells(maps_NDHW[len(labels_BC) :], splicing.rows, splicing.columns)
    kept_K = splicing.is_kept_MG.flatten()
    assert_recorded(one._classify(cells_KDHW)[kept_K], recorded["cell_logits_KC"][kept_K])


def slow_terms(one, batch, splicing):
    """The loss of the whole batch and of each cell, one entry after the other."""
    images_B3HW, labels = list(batch.images_B3HW), batch.labels_BC.tolist()
    images_B3HW += list(CODE.splice(batch.images_B3HW, splicing))
    for members, kept in zip(splicing.members_MG.tolist(), splicing.is_kept_MG.tolist(), strict=True):
        shown = [labels[member] for member, is_kept in zip(members, kept, strict=True) if is_kept]
        by_category = list(zip(*shown, strict=True))
        labels.append([PRESENT if PRESENT in s else UNKNOWN if UNKNOWN in s else ABSENT for s in by_category])
    maps_NDHW = one.trained(torch.stack(images_B3HW))
    weight_CD, bias_C = one.classifier.weight, one.classifier.bias

    def logits(map_DHW):
        flat_DP = map_DHW.flatten(1)
        pooled_D = flat_DP.max(dim=1).values if one.hyperparameters.pool == "max" else flat_DP.mean(dim=1)
        return weight_CD @ pooled_D + bias_C

    logits_NC = torch.stack([logits(map_DHW) for map_DHW in maps_NDHW])
    known = [(n, c) for n, row in enumerate(labels) for c, state in enumerate(row) if state != UNKNOWN]
    bce = sum(-F.logsigmoid(labels[n][c] * logits_NC[n, c]) for n, c in known) / max(len(known), 1)
    if not one.hyperparameters.consistency:
        return {"partial_bce": bce}
    height, width = maps_NDHW.shape[2] // splicing.rows, maps_NDHW.shape[3] // splicing.columns
    total, number = 0.0 * logits_NC.sum(), 0
    for m, (members, kept) in enumerate(zip(splicing.members_MG.tolist(), splicing.is_kept_MG.tolist(), strict=True)):
        for cell, member in enumerate(members):
            top, left = cell // splicing.columns * height, cell % splicing.columns * width
            map_DHW = maps_NDHW[len(batch.labels_BC) + m][:, top : top + height, left : left + width]
            p_C, number = logits_NC[member].detach().sigmoid(), number + C
            if kept[cell]:
                x_C = logits(map_DHW)
                total = total - (p_C * F.logsigmoid(x_C) + (1 - p_C) * F.logsigmoid(-x_C)).sum()
    return {"partial_bce": bce, "consistency": total / number}


@settings(max_examples=12)
@given(seed=st.integers(0, 2**31 - 1), name=st.sampled_from(NAMES), rows=st.sampled_from([4, 9]))
def test_terms_and_gradients_are_those_of_loops(seed, name, rows):
    one, batch = method(name), batch_of(random_labels(rows, seed, unknown=0.4), seed)
    splicing = CODE.draw(rows, rows // 4, 0.3, generator(seed))
    ours, theirs = one.losses(batch, LATE), slow_terms(one, batch, splicing)
    assert_same(ours, theirs, one.classifier.weight, one.trained.weight)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_than_four_images_are_not_mixed(name):
    one, batch, frozen = method(name), batch_of(random_labels(3)), []
    one.backbone.frozen.register_forward_hook(lambda *_: frozen.append(1))
    terms = one.losses(batch, LATE)
    torch.testing.assert_close(terms["partial_bce"], partial_bce(one(batch.frozen_BDHW), batch.labels_BC))
    assert not frozen and all(loss == 0 for term, loss in terms.items() if term != "partial_bce")


@pytest.mark.parametrize(("rows", "columns", "shape"), [(2, 2, (4, 4)), (2, 3, (4, 3)), (1, 2, (7, 4)), (3, 2, (3, 4))])
def test_a_map_that_cannot_be_divided_is_enlarged_to_the_next_size_that_can(rows, columns, shape):
    maps_MDHW = torch.randn(2, 5, 7, 7, generator=generator())
    cells_KDHW = CODE.cells(maps_MDHW, rows, columns)
    assert cells_KDHW.shape == (2 * rows * columns, 5, *shape)
    corner = (rows * columns - 1, slice(None), -1, -1)
    torch.testing.assert_close(cells_KDHW[corner], maps_MDHW[0, :, -1, -1])  # corners stay where they are


def test_only_mixtures_go_through_the_frozen_part_and_all_through_the_trained_part_together():
    one, batch, frozen, trained = method("splicemix"), batch_of(random_labels(9)), [], []
    one.backbone.frozen.register_forward_hook(lambda module, inputs, output: frozen.append(output))
    one.trained.register_forward_pre_hook(lambda module, inputs: trained.append(inputs[0]))
    one.losses(batch, LATE)
    assert [len(maps) for maps in frozen] == [2]
    assert torch.equal(*(torch.cat([*maps]) for maps in (trained, [batch.frozen_BDHW, *frozen])))


def test_consistency_targets_have_no_gradient():
    logits_BC, splicing = torch.randn(4, C, requires_grad=True), CODE.draw(4, 1, 0.0, generator())
    cell_logits_KC = torch.randn(splicing.members_MG.numel(), C, requires_grad=True)
    CODE.consistency(cell_logits_KC, logits_BC, splicing).backward()
    assert logits_BC.grad is None and cell_logits_KC.grad.any(dim=1).all()


def test_with_mean_pooling_it_is_the_shared_linear_classifier():
    one, frozen_BDHW = method("splicemix"), batch_of(random_labels(3)).frozen_BDHW
    classifier = PooledClassifier(6, C)
    classifier.load_state_dict(one.classifier.state_dict())
    assert torch.equal(one(frozen_BDHW), classifier(one.trained(frozen_BDHW)))


def test_what_is_reported_is_what_was_drawn():
    labels_BC = random_labels(8)
    one = method("splicemix", labels_BC, dropping=1.0)
    one.losses(batch_of(labels_BC), type(LATE)(15, 20, 0, 10))
    splicing = CODE.draw(8, 2, 1.0, generator())
    known = (union(labels_BC, splicing.members_MG, splicing.is_kept_MG) != UNKNOWN).float().mean()
    expected = (splicing.rows * splicing.columns, (~splicing.is_kept_MG).float().mean(), known)
    assert list(map(float, one.scalars().values())) == pytest.approx(list(map(float, expected)))
