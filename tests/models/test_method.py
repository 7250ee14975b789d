"""Schedules scale with the run, recipes take what they leave open from the preset, and hooks do nothing by default."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlrpl_bench.data.dataset import Preset
from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.method import Batch, Method, Progress, Recipe, Task

PRESET = Preset(image_size=64, backbone="small", epochs=8, batch=32, lr_multiplier=50)


@pytest.fixture
def method():
    backbone = Backbone(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), channels=6)
    task = Task(("cat",), torch.tensor([[PRESENT], [UNKNOWN]], dtype=torch.int8), 0.5, torch.zeros(1, 2))
    return Method(backbone, task, Method.Hyperparameters())


@pytest.fixture
def batch():
    images_B3HW = torch.zeros(1, 3, 2, 2)
    labels_BC = torch.tensor([[PRESENT]], dtype=torch.int8)
    return Batch(images_B3HW, torch.zeros(1, 4, 2, 2), labels_BC, torch.tensor([0]), torch.Generator())


@pytest.mark.parametrize("epoch", range(20))
def test_in_20_epochs_every_epoch_is_the_papers(epoch):
    assert Progress(0, 20).at(epoch) == epoch
    assert Progress(epoch, 20).epoch_of_20() == epoch


@pytest.mark.parametrize(("epochs", "expected"), [(1, 0), (4, 1), (8, 2), (12, 3), (40, 10), (100, 25)])
def test_an_epoch_of_the_papers_is_scaled_to_the_runs_length(epochs, expected):
    assert Progress(0, epochs).at(5) == expected


def test_a_phase_has_started_from_its_first_epoch_on():
    assert [Progress(epoch, 8).started(5) for epoch in range(4)] == [False, False, True, True]


def test_a_phase_that_starts_at_0_has_always_started():
    assert Progress(0, 1).started(0)


def test_a_repeated_phase_keeps_its_rhythm_in_20_epochs():
    assert [epoch for epoch in range(20) if Progress(epoch, 20).due(5, every=5)] == [5, 10, 15]


def test_a_repeated_phase_of_a_long_run_comes_as_often_as_in_20_epochs():
    assert [epoch for epoch in range(40) if Progress(epoch, 40).due(5, every=5)] == [10, 20, 30]


@given(st.integers(1, 60), st.integers(0, 19), st.integers(1, 20))
def test_a_repeated_phase_never_comes_before_its_start(epochs, first, every):
    due = [epoch for epoch in range(epochs) if Progress(epoch, epochs).due(first, every)]
    assert all(Progress(epoch, epochs).started(first) for epoch in due)
    assert len(due) <= len(range(first, 20, every))


def test_the_fraction_of_an_epoch_counts_the_steps_behind():
    assert Progress(3, 8, step=5, steps_per_epoch=20).fraction_of_epoch() == 0.25


def test_a_recipe_takes_what_it_leaves_open_from_the_preset():
    resolved = Recipe(lr=1e-5).resolve(PRESET)
    assert (resolved.epochs, resolved.batch) == (8, 32)


def test_a_recipe_keeps_what_it_names():
    resolved = Recipe(optimizer="sgd", epochs=3, batch=7, weight_decay=0, grad_clip=2.0).resolve(PRESET)
    assert replace(resolved, lr=0) == Recipe("sgd", 0, 0, epochs=3, batch=7, grad_clip=2.0)


def test_the_presets_multiplier_scales_every_recipes_learning_rate():
    assert Recipe(lr=1e-5).resolve(PRESET).lr == pytest.approx(5e-4)


def test_resolving_leaves_the_recipe_as_it_was():
    recipe = Recipe()
    recipe.resolve(PRESET)
    assert recipe == Recipe()


def test_the_step_schedule_divides_by_10_after_half_of_the_epochs():
    assert [Recipe(schedule="step").rate_factor(Progress(epoch, 4)) for epoch in range(4)] == [1, 1, 0.1, 0.1]


def test_the_constant_schedule_is_constant():
    assert {Recipe(schedule="constant").rate_factor(Progress(epoch, 4)) for epoch in range(4)} == {1}


def test_the_one_cycle_schedule_rises_for_three_tenths_and_falls_to_nothing():
    progress = [Progress(epoch, 10, step, 10) for epoch in range(10) for step in range(10)]
    factors = [Recipe(schedule="one_cycle").rate_factor(position) for position in progress]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[30] == pytest.approx(1)
    assert factors[15] == pytest.approx((1 / 25 + 1) / 2)
    assert factors[65] == pytest.approx(1 / 2)
    assert factors[99] < 0.001
    assert factors[:31] == sorted(factors[:31])
    assert factors[30:] == sorted(factors[30:], reverse=True)


def test_the_frozen_part_is_in_no_methods_state(method):
    assert set(method.state_dict()) == {"trained.weight", "trained.bias"}
    assert method.backbone.frozen not in list(method.modules())


def test_training_mode_does_not_reach_the_frozen_part(method):
    method.backbone.frozen.eval()
    method.train()
    assert method.trained.training
    assert not method.backbone.frozen.training


def test_the_default_parameter_group_holds_every_parameter_that_is_trained(method):
    method.trained.bias.requires_grad_(False)
    (group,) = method.parameter_groups()
    assert [id(parameter) for parameter in group.parameters] == [id(method.trained.weight)]
    assert (group.lr_multiplier, group.weight_decay) == (1.0, None)


def test_hooks_do_nothing_by_default(method, batch):
    before = {name: value.clone() for name, value in method.state_dict().items()}
    assert method.passes(Progress(0, 20)) is False
    method.observe(batch)
    method.end_pass(torch.Generator())
    method.after_step()
    assert (method.scalars(), method.pseudo_labels_NC(), method.attention(batch.frozen_BDHW)) == ({}, None, None)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_method_must_write_its_model_and_its_losses(method, batch):
    with pytest.raises(NotImplementedError):
        method(batch.frozen_BDHW)
    with pytest.raises(NotImplementedError):
        method.losses(batch, Progress(0, 20))
