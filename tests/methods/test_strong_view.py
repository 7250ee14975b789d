import torch

from mlrpl_bench.data.images.strong_view import StrongView
from mlrpl_bench.models.losses import partial_bce
from tests.helpers.loss_samples import LATE, batch_of, method, random_labels


def test_known_labels_are_learned_on_the_strong_view_or_on_both():
    batch = batch_of(random_labels(5))
    batch.strong_BDHW.mul_(2)  # a mirror image alone would have the same scores
    for views, maps, labels_BC in (
        ("strong", [batch.strong_BDHW], batch.labels_BC),
        ("both", [batch.frozen_BDHW, batch.strong_BDHW], batch.labels_BC.repeat(2, 1)),
    ):
        one = method("ssgrl_strong", views=views)
        losses = one.losses(batch, LATE)
        torch.testing.assert_close(losses, {"partial_bce": partial_bce(one(torch.cat(maps)), labels_BC)})


def test_on_the_training_view_it_would_be_ssgrl():
    batch, one, ssgrl = batch_of(random_labels(5)), method("ssgrl_strong"), method("ssgrl")
    batch.strong_BDHW.copy_(batch.frozen_BDHW)
    assert one.losses(batch, LATE)["partial_bce"] == ssgrl.losses(batch, LATE)["partial_bce"]


def test_its_strong_view_is_the_one_of_self_training():
    for options in ({}, {"operations": 1, "magnitude": 4}):
        assert method("ssgrl_strong", **options).strong_view() == method("sr_st", **options).strong_view()
    assert method("ssgrl_strong").strong_view() == StrongView()
