"""What a step costs: parts add up, operations are counted, late parts are on, and nothing stays behind."""

import json
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mlrpl_bench.models.method import Progress
from mlrpl_bench.tools.profiling import settings, step_costs
from mlrpl_bench.tools.profiling.clock import Clock
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import generator_at
from tests.helpers.plain_method import Plain, entry_of
from tests.helpers.tiny_study import study

SMALL = Options(backbone="small", image_size=32, batch=4, weights="random", device="cpu")
MULTIPLY_ADD = 2


def say_nothing(*_):
    pass


@pytest.fixture(autouse=True)
def small_peak(monkeypatch):
    """A product that takes no time."""
    monkeypatch.setattr(step_costs, "MATMUL_SIDE", {"cpu": 128})


@pytest.fixture(scope="module")
def paper():
    """The papers' setting in miniature."""
    return replace(settings.paper_setting(SMALL, classes=6, ratio=0.5, report=say_nothing), stands_for=(40, 30))


class Slow(Plain):
    """Sleeps where a test wants to find the time again."""

    def losses(self, batch, progress):
        time.sleep(0.1)
        return super().losses(batch, progress)

    def after_step(self):
        time.sleep(0.05)


class TwiceFrozen(Plain):
    """Calls the frozen part for images of its own."""

    def losses(self, batch, progress):
        with torch.no_grad():
            frozen_BDHW = self.backbone.frozen(batch.images_B3HW)
        return super().losses(batch, progress) | {"more": self(frozen_BDHW).mean()}


class Late(Plain):
    """Must have seen the training set, and then only knows the last epoch."""

    def passes(self, progress):
        return progress.epoch in (3, 7)

    def observe(self, batch):
        self.seen = getattr(self, "seen", 0) + len(batch.index_B)

    def end_pass(self, generator):
        later = generator_at("end of pass", 0, 7)
        assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=later))

    def losses(self, batch, progress):
        assert self.training and self.seen == 16 and progress.epoch == progress.epochs - 1
        return super().losses(batch, progress)


class Failing(Plain):
    def losses(self, batch, progress):
        raise RuntimeError("no\nluck")


def test_parts_add_up_and_time_is_found_where_it_was_spent(paper):
    (plain, slow) = step_costs.profile(paper, [entry_of(Plain), entry_of(Slow)], 1, say_nothing).costs
    for cost in (plain, slow):
        assert list(cost.seconds) == ["frozen", "trained", "head", "backward", "optimiser"]
        assert sum(cost.seconds.values()) == pytest.approx(cost.step_seconds)
        assert cost.images_per_second == pytest.approx(4 / cost.step_seconds)
        assert cost.pass_seconds is None
    assert slow.seconds["head"] > 0.1 and slow.seconds["optimiser"] > 0.05
    assert plain.flops == slow.flops


def test_operations_of_known_layers_are_counted(paper):
    # Width 64 to 6 categories, 4 images: forward, and gradients of the weights and of the features.
    assert _flops(paper, Plain) - _flops(paper, Wider) == 3 * MULTIPLY_ADD * 4 * 64 * (6 - 12)


class Wider(Plain):
    """Its linear layer has twice the outputs; the second half is cut off after the product."""

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.classifier = nn.Sequential(nn.Linear(backbone.channels, 12), nn.Unflatten(1, (6, 2)))

    def forward(self, frozen_BDHW):
        return super().forward(frozen_BDHW).sum(-1)


def test_operations_are_counted_in_a_step_that_is_not_timed(paper):
    counted = []

    class Counting(Plain):
        def losses(self, batch, progress):
            counted.append(_get_current_dispatch_mode() is not None)
            return super().losses(batch, progress)

    step_costs.profile(paper, [entry_of(Counting)], 2, say_nothing)
    assert counted == [True, False, False]


def _flops(bench, cls):
    return step_costs.profile(bench, [entry_of(cls)], 1, say_nothing).costs[0].flops


def test_a_second_call_of_the_frozen_part_counts_as_frozen_part(paper):
    hook = paper.study.workbench.backbone.frozen.register_forward_hook(lambda *_: time.sleep(0.05))
    (cost,) = step_costs.profile(paper, [entry_of(TwiceFrozen)], 1, say_nothing).costs
    hook.remove()
    assert cost.seconds["frozen"] > 0.1
    assert cost.flops > 1.5 * _flops(paper, Plain)


def test_what_starts_late_has_started_after_one_pass_of_all_images(paper):
    found = step_costs.profile(paper, [entry_of(Late)], 2, say_nothing)
    assert found.failures == []
    assert found.costs[0].pass_seconds > 0


def test_the_share_is_what_a_step_reaches_of_the_measured_peak(paper):
    found = step_costs.profile(paper, [entry_of(Plain)], 1, say_nothing)
    (cost,) = found.costs
    peak = found.facts["peak_flops_per_second"]
    assert cost.share_of_peak * peak * cost.step_seconds == pytest.approx(cost.flops)
    assert peak > 1e7


def test_one_that_fails_is_named_and_the_others_go_on(paper):
    found = step_costs.profile(paper, [entry_of(Failing), entry_of(Plain)], 1, say_nothing)
    assert found.failures == [("Failing", "RuntimeError: no luck")]
    assert [cost.method for cost in found.costs] == ["Plain"]
    assert not paper.study.workbench.backbone.frozen._forward_hooks


def test_a_data_set_is_read_and_its_time_has_a_part(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRPL_CACHE", str(tmp_path / "cache"))
    entry, told = study(tmp_path / "set.py").entry, []
    options = Options(device="cpu", weights="random")
    bench = settings.dataset_setting(entry, options, 0.5, lambda *event: told.append(event))
    # More steps than there are in an epoch.
    (cost,) = step_costs.profile(bench, [entry_of(Plain)], 4, say_nothing).costs
    assert next(iter(cost.seconds)) == "reading" and cost.seconds["reading"] > 0
    assert ("reading images", 3, 3) in told


def test_a_row_and_its_data_are_the_same_numbers(paper):
    found = step_costs.profile(paper, [entry_of(Plain), entry_of(Late)], 1, say_nothing)
    table, data = found.table(), found.to_json()
    for (label, entries), row in zip(table.rows, data["methods"], strict=True):
        shown = dict(zip(table.columns, entries, strict=True))
        assert label == row["method"] and shown["reading"].text == "-"
        assert shown["total"].value == pytest.approx(1000 * row["step_seconds"])
        assert shown["backward"].value == pytest.approx(1000 * row["seconds"]["backward"])
        assert (shown["pass"].text == "-") == (row["pass_seconds"] is None)
        assert shown["GFLOP"].value == pytest.approx(row["flops"] / 1e9)


def test_looking_leaves_nothing_on_the_method(paper):
    from mlrpl_bench.training.run import CellRun

    run = CellRun(paper.study.job(entry_of(Plain), 0.5, 0, 0, {}), paper.study.workbench)
    clock = Clock(torch.device("cpu"))
    with step_costs._watched(run, clock):
        assert "losses" in vars(run.method)
    assert "losses" not in vars(run.method) and not run.method.trained._forward_hooks
    run.start_epoch(Progress(0, 1))


def test_a_profile_that_was_written_is_read_again(paper, tmp_path):
    found = step_costs.profile(paper, [entry_of(Failing), entry_of(Late)], 1, say_nothing)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(found.to_json()))
    again = step_costs.Profile.read(path)
    assert again.to_json() == found.to_json() and again.tables() == found.tables() and len(again.tables()) == 2


def test_a_profile_of_before_there_were_whole_cells_is_read(paper, tmp_path):
    found = step_costs.profile(paper, [entry_of(Plain)], 1, say_nothing)
    old = {name: value for name, value in found.to_json().items() if name not in ("cells", "counts")}
    (tmp_path / "profile.json").write_text(json.dumps(old))
    assert step_costs.Profile.read(tmp_path / "profile.json").tables() == [found.table()]


def test_what_a_cell_does_beyond_its_steps_is_measured(paper):
    class Looking(Slow):
        def forward(self, frozen_BDHW):
            time.sleep(0 if self.training else 0.02)
            return super().forward(frozen_BDHW)

        def attention(self, frozen_BDHW):
            assert not self.training and len(frozen_BDHW) == 1
            time.sleep(0.03)
            return frozen_BDHW[:, :6].abs()

    found = step_costs.profile(paper, [entry_of(Looking), entry_of(Late)], 1, say_nothing)
    looking, late = found.cells
    epochs = found.counts.epochs
    assert (found.counts.training_images, found.counts.test_images, found.counts.batch) == (40, 30, 4)
    assert looking.own["steps"] > epochs * 10 * 0.15
    assert looking.own["evaluation"] > epochs * 8 * 0.02 and looking.own["training scores"] > 10 * 0.02
    assert looking.own["examples"] > 8 * 0.03 and late.own["examples"] == 0
    assert looking.own["passes"] == 0 < late.own["passes"]
    # So small a split stays in memory: its frozen output is made once, and in the training split's first pass.
    assert looking.shared["evaluation"] == pytest.approx(8 / 10 * looking.shared["training scores"])
    assert late.shared["training scores"] == 0 < late.shared["passes"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"title": "t", "methods": [{}], "failures": {}}', "[" * 100_000])
def test_a_damaged_profile_is_refused_in_a_line(tmp_path, content):
    (tmp_path / "profile.json").write_text(content)
    with pytest.raises(UserError, match=r"profile\.json is no profile .*profile --save"):
        step_costs.Profile.read(tmp_path / "profile.json")
