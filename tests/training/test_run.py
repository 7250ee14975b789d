"""What a cell does at a step and an epoch, and what it leaves behind."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mlrpl_bench.data.images.transforms import ImageTransform
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN, hide, known_mask, known_share
from mlrpl_bench.models.method import ParameterGroup, Progress
from mlrpl_bench.records.cell import Finished, Job
from mlrpl_bench.tools.conformance.sample import NUM_CATEGORIES, NUM_TEST, NUM_TRAIN, PRESET, SIDE, Sample
from mlrpl_bench.training import checkpoint
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.trainer import Failed, StepDone, train
from mlrpl_bench.training.workbench import Workbench
from tests.helpers.plain_method import Plain, entry_of

EPOCHS, STEPS, RATIO = 3, NUM_TRAIN // PRESET.batch, 0.5


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Sample(entry_of(Plain), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def in_bf16(tmp_path_factory):
    return Sample(entry_of(Plain), tmp_path_factory.mktemp("images"), precision="bf16-mixed")


@pytest.fixture(scope="module")
def make(sample):
    """A job of a few epochs; keywords change the recipe."""

    def make(cls=Plain, ratio=RATIO, seed=0, sample=sample, **recipe) -> Job:
        usual = sample.job(ratio)
        recipe = replace(usual.cell.recipe, epochs=EPOCHS, **recipe)
        return Job(replace(usual.cell, method=cls.__name__, recipe=recipe, seed=seed), cls, cls.Hyperparameters())

    return make


@pytest.fixture
def run(sample, make):
    """A cell that is about to make its first step, in a group of its own."""

    def run(cls=Plain, **changes) -> CellRun:
        with torch.random.fork_rng(devices=[]):
            made = CellRun(make(cls, **changes), sample.workbench())
        made.start_epoch(Progress(0, EPOCHS, 0, STEPS))
        return made

    return run


@pytest.fixture(scope="module")
def finish(sample, make):
    """Train a method and return what it leaves behind."""

    def finish(cls=Plain, workbench=None, **changes) -> Finished:
        (*_, last) = train([make(cls, **changes)], workbench or sample.workbench())
        assert isinstance(last, Finished), last.traceback
        return last

    return finish


@pytest.fixture(scope="module")
def finished(finish):
    return finish()


def first_step(run, progress=None):
    """Make one step; the parameters before and after."""
    before = {name: parameter.detach().clone() for name, parameter in run.method.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        shared = next(run.workbench.training_batches(0, 0, PRESET.batch))
        run.step(shared, progress or Progress(0, EPOCHS, 0, STEPS))
    return before, dict(run.method.named_parameters())


def batch_norms(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def statistics(module):
    return torch.cat([torch.cat([layer.running_mean, layer.running_var]) for layer in batch_norms(module)])


class TwoGroups(Plain):
    def parameter_groups(self):
        return [
            ParameterGroup(list(self.trained.parameters()), lr_multiplier=0.0, weight_decay=0.25),
            ParameterGroup(list(self.classifier.parameters()), lr_multiplier=3.0),
        ]


def test_the_optimiser_has_the_methods_groups(run):
    made = run(TwoGroups, lr=0.5, weight_decay=0.125)
    groups = made.optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.0, 0.25), (1.5, 0.125)]
    assert [len(group["params"]) for group in groups] == [len(list(made.method.trained.parameters())), 2]


def test_a_group_that_is_raised_to_a_rate_goes_no_further(run):
    class Raised(Plain):
        def parameter_groups(self):
            head = ParameterGroup(list(self.classifier.parameters()), lr_multiplier=3.0, raised_to=1.0)
            return [ParameterGroup(list(self.trained.parameters())), head]

    assert [group["lr"] for group in run(Raised, lr=0.5).optimizer.param_groups] == [0.5, 1.0]
    assert [group["lr"] for group in run(Raised, lr=2.0).optimizer.param_groups] == [2.0, 2.0]


def test_a_groups_rate_is_the_recipes_times_its_multiplier_at_every_step(run):
    before, after = first_step(run(TwoGroups))
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {name for name in before if name.startswith("trained.")}


def test_a_parameter_that_no_group_has_is_an_error(sample, make):
    class Forgets(Plain):
        def parameter_groups(self):
            return [ParameterGroup(list(self.trained.parameters()))]

    (failed,) = (event for event in train([make(Forgets)], sample.workbench()) if isinstance(event, Failed))
    assert "parameter_groups leaves some out" in failed.reason


def test_parameters_that_need_no_gradient_are_not_optimised(run):
    class Fixed(Plain):
        def __init__(self, backbone, task, hyperparameters):
            super().__init__(backbone, task, hyperparameters)
            self.classifier.bias.requires_grad_(False)

    before, after = first_step(run(Fixed))
    assert torch.equal(before["classifier.bias"], after["classifier.bias"])


@pytest.mark.parametrize(("name", "cls"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_the_recipe_names_the_optimiser(name, cls, run):
    assert type(run(optimizer=name).optimizer) is cls


def test_sgd_has_the_papers_momentum(run):
    assert run(optimizer="sgd").optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(("limit", "expected"), [(0.01, 0.01), (None, None)])
def test_the_gradient_is_clipped_to_the_recipes_norm(limit, expected, run):
    before, after = first_step(run(optimizer="sgd", lr=1.0, weight_decay=0.0, schedule="constant", grad_clip=limit))
    norm = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm().item()
    assert norm == pytest.approx(expected, rel=1e-3) if expected else norm > 0.02


@pytest.mark.parametrize("schedule", ["step", "one_cycle", "constant"])
def test_the_rate_at_a_step_follows_the_recipes_schedule(schedule, run):
    made = run(TwoGroups, schedule=schedule, lr=0.5)
    for progress in (Progress(0, EPOCHS, 2, STEPS), Progress(2, EPOCHS, 1, STEPS)):
        first_step(made, progress)
        factor = made.cell.recipe.rate_factor(progress)
        assert [group["lr"] for group in made.optimizer.param_groups] == [0.0, pytest.approx(1.5 * factor)]


@pytest.mark.parametrize("schedule", ["step", "one_cycle", "constant"])
def test_the_history_has_the_rate_at_which_each_epoch_began(schedule, finish):
    end = finish(schedule=schedule)
    recipe = end.cell.recipe
    expected = [recipe.lr * recipe.rate_factor(Progress(epoch, EPOCHS, 0, STEPS)) for epoch in range(EPOCHS)]
    assert [row["learning_rate"] for row in end.history] == expected


def test_initial_weights_are_equal_for_every_ratio_and_independent_of_what_ran_before(run):
    one = run(ratio=0.1).method.state_dict()
    torch.manual_seed(1234)
    other = run(ratio=0.9).method.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_initial_weights_follow_from_the_seed(run):
    one, other = (run(seed=seed).method.classifier.weight for seed in (0, 1))
    assert not torch.equal(one, other)


def test_the_trained_part_starts_as_the_backbones_and_is_the_methods_own(run, sample):
    made = run()
    before = {name: value.clone() for name, value in sample.backbone.trained.state_dict().items()}
    assert all(torch.equal(made.method.trained.state_dict()[name], value) for name, value in before.items())
    first_step(made)
    assert not torch.equal(made.method.trained.state_dict()["body.0.weight"], before["body.0.weight"])
    assert torch.equal(sample.backbone.trained.state_dict()["body.0.weight"], before["body.0.weight"])


def test_batch_norm_learns_at_training_steps_of_the_trained_part_only(finish):
    seen = []

    class Watches(Plain):
        def note(self, when):
            seen.append((when, statistics(self.trained).clone(), statistics(self.backbone.frozen).clone()))

        def passes(self, progress):
            return True

        def losses(self, batch, progress):
            self.note("before")
            return super().losses(batch, progress)

        def observe(self, batch):
            self(batch.frozen_BDHW)

        def after_step(self):
            self.note("after")

    finish(Watches)
    assert len(seen) == 2 * EPOCHS * STEPS
    steps = list(zip(seen[::2], seen[1::2], strict=True))
    assert not any(torch.equal(before[1], after[1]) for before, after in steps)
    # Between two steps may lie a look at the training set and an evaluation: they leave the statistics alone.
    between = zip(seen[1:-1:2], seen[2::2], strict=True)
    assert all(torch.equal(after[1], before[1]) for after, before in between)
    assert all(torch.equal(entry[2], seen[0][2]) for entry in seen)


def test_only_the_method_is_back_in_training_mode_after_an_evaluation(finish):
    modes = []

    class Watches(Plain):
        def forward(self, frozen_BDHW):
            frozen = {layer.training for layer in self.backbone.frozen.modules()}
            modes.append((torch.is_grad_enabled(), self.training, self.trained.training, frozen))
            return super().forward(frozen_BDHW)

    finish(Watches)
    in_steps = [mode for mode in modes if mode[0]]
    assert in_steps == EPOCHS * STEPS * [(True, True, True, {False})]
    assert [mode for mode in modes if not mode[0]] == [(False, False, False, {False})] * (len(modes) - len(in_steps))
    assert len(modes) > len(in_steps)


@pytest.mark.parametrize(("precision", "inside"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_a_method_computes_in_the_settings_precision_everywhere(precision, inside, sample, in_bf16, make):
    chosen = {"32-true": sample, "bf16-mixed": in_bf16}[precision]
    dtypes, results = {}, set()

    class Records(Plain):
        where = "forward"

        def passes(self, progress):
            return True

        def forward(self, frozen_BDHW):
            logits_BC = super().forward(frozen_BDHW)
            dtypes.setdefault(self.where, set()).add(logits_BC.dtype)
            return logits_BC

        def observe(self, batch):
            self.where = "observe"
            self(batch.frozen_BDHW)
            self.where = "forward"

        def losses(self, batch, progress):
            self.where = "losses"
            losses = super().losses(batch, progress)
            self.where = "forward"
            results.add(losses["partial_bce"].dtype)
            return losses

    (*_, end) = train([make(Records, sample=chosen)], chosen.workbench())
    assert dtypes == {where: {inside} for where in ("forward", "observe", "losses")}
    assert results == {torch.float32}
    assert {value.dtype for value in end.steps.values()} == {np.dtype("float32")} and end.scores_NC.dtype == np.float32


def test_parameters_stay_float32_in_mixed_precision(in_bf16, make):
    (*_, end) = train([make(sample=in_bf16)], in_bf16.workbench())
    assert {value.dtype for value in end.weights.values() if value.is_floating_point()} == {torch.float32}


def test_a_loss_in_half_precision_is_added_up_in_float32(finish):
    class Halves(Plain):
        def losses(self, batch, progress):
            return {name: loss.bfloat16() for name, loss in super().losses(batch, progress).items()}

    assert finish(Halves).steps["partial_bce"].dtype == np.float32


class Talks(Plain):
    """Has a second loss term from epoch 1 on, numbers to show, and maps."""

    def losses(self, batch, progress):
        losses = super().losses(batch, progress)
        if progress.epoch >= 1:
            losses["late"] = self.classifier.weight.square().mean() * 0 + 10 * progress.epoch + progress.step
        if (progress.epoch, progress.step) == (2, 1):
            losses["once"] = self.classifier.bias.sum() * 0 + 7
        return losses

    def scalars(self):
        return {"tensor": torch.tensor(0.5), "number": 2}

    def attention(self, frozen_BDHW):
        return frozen_BDHW[:, :NUM_CATEGORIES].abs()


@pytest.fixture(scope="module")
def talked(finish):
    return finish(Talks)


def test_the_history_has_a_row_an_epoch_with_losses_scalars_and_test_metrics(talked):
    usual = ["epoch", "learning_rate", "seconds", "loss.partial_bce"]
    rest = ["scalar.tensor", "scalar.number", "test.mAP", "test.OF1", "test.CF1"]
    assert [list(row) for row in talked.history] == [
        [*usual, *rest],
        [*usual, "loss.late", *rest],
        [*usual, "loss.late", "loss.once", *rest],
    ]
    assert [row["epoch"] for row in talked.history] == [0, 1, 2]
    assert {type(value) for row in talked.history for value in row.values()} <= {float, int}
    assert (talked.history[0]["scalar.tensor"], talked.history[0]["scalar.number"]) == (0.5, 2.0)


def test_a_loss_in_the_history_is_its_mean_over_the_epochs_steps_that_had_it(talked):
    assert [row.get("loss.late") for row in talked.history] == [None, 11.5, 21.5]
    assert talked.history[2]["loss.once"] == 7
    of_epochs = talked.steps["partial_bce"].reshape(EPOCHS, STEPS).mean(axis=1)
    assert [row["loss.partial_bce"] for row in talked.history] == pytest.approx(of_epochs.tolist())


def test_every_loss_term_is_kept_for_every_step_with_nan_where_it_was_not_there(talked):
    assert set(talked.steps) == {"partial_bce", "late", "once"}
    assert {(values.shape, values.dtype) for values in talked.steps.values()} == {((EPOCHS * STEPS,), np.dtype("f4"))}
    late = [10 * epoch + step if epoch else math.nan for epoch in range(EPOCHS) for step in range(STEPS)]
    assert np.array_equal(talked.steps["late"], late, equal_nan=True)
    assert np.flatnonzero(np.isfinite(talked.steps["once"])).tolist() == [2 * STEPS + 1]


def test_the_last_epochs_metrics_are_in_the_history_too(talked):
    assert {name: talked.history[-1][f"test.{name}"] for name in ("mAP", "OF1", "CF1")} == {
        name: talked.metrics[name] for name in ("mAP", "OF1", "CF1")
    }


@pytest.mark.parametrize("signs", [(1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
def test_the_best_epoch_is_the_one_with_the_highest_map(signs, finish, sample):
    truth_NC = torch.from_numpy(sample.splits["test"].labels_NC)

    class Knows(Plain):
        """Right in one epoch, wrong in the others."""

        def losses(self, batch, progress):
            self.sign, self.row = signs[progress.epoch], 0
            return super().losses(batch, progress)

        def forward(self, frozen_BDHW):
            if self.training:
                return super().forward(frozen_BDHW)
            rows = (torch.arange(len(frozen_BDHW)) + self.row) % NUM_TEST
            self.row += len(frozen_BDHW)
            return self.sign * truth_NC[rows].float()

    end = finish(Knows)
    assert end.best_epoch == signs.index(1)
    assert end.best_metrics["mAP"] == 1 == end.history[end.best_epoch]["test.mAP"]
    assert (end.metrics["mAP"] == 1) == (signs[-1] == 1)


def test_pseudo_labels_are_counted_right_and_wrong_against_the_hidden_truth(finish, sample):
    truth_NC = sample.splits["train"].labels_NC
    hidden_NC = ~known_mask(truth_NC.shape, RATIO)
    filled_in = np.random.default_rng(0).choice([PRESENT, UNKNOWN, ABSENT], truth_NC.shape).astype(np.int8)

    class FillsIn(Plain):
        def pseudo_labels_NC(self):
            return filled_in

    expected = {
        "pseudo.present_right": (hidden_NC & (filled_in == PRESENT) & (truth_NC == PRESENT)).sum(),
        "pseudo.present_wrong": (hidden_NC & (filled_in == PRESENT) & (truth_NC == ABSENT)).sum(),
        "pseudo.absent_right": (hidden_NC & (filled_in == ABSENT) & (truth_NC == ABSENT)).sum(),
        "pseudo.absent_wrong": (hidden_NC & (filled_in == ABSENT) & (truth_NC == PRESENT)).sum(),
    }
    assert min(expected.values()) > 0
    for row in finish(FillsIn).history:
        assert {name: value for name, value in row.items() if name.startswith("pseudo.")} == expected


def test_pseudo_labels_of_entries_that_nobody_labelled_are_counted_apart_and_seen_by_no_method(finish, sample):
    complete = sample.splits["train"]
    given_NC = np.random.default_rng(1).random(complete.labels_NC.shape) < 0.6
    some_NC = np.where(given_NC, complete.labels_NC, UNKNOWN).astype(np.int8)
    seen = {}

    class FillsEverythingIn(Plain):
        def __init__(self, backbone, task, hyperparameters):
            super().__init__(backbone, task, hyperparameters)
            seen["labels_NC"] = task.labels_NC.numpy()

        def pseudo_labels_NC(self):
            return np.full_like(some_NC, PRESENT)

    row = finish(FillsEverythingIn, sample.workbench(replace(complete, labels_NC=some_NC))).history[-1]
    assert (seen["labels_NC"][~given_NC] == UNKNOWN).all()
    hidden_NC = seen["labels_NC"] == UNKNOWN
    assert row["pseudo.truth_unknown"] == (~given_NC).sum()
    assert row["pseudo.present_right"] == (hidden_NC & (some_NC == PRESENT)).sum() > 0
    assert row["pseudo.present_wrong"] == (hidden_NC & (some_NC == ABSENT)).sum() > 0


def test_examples_are_eight_test_images_from_first_to_last_with_scores_and_maps(talked, sample):
    rows = talked.examples["rows"]
    assert len(rows) == 8 and rows[0] == 0 and rows[-1] == NUM_TEST - 1 and len(set(rows)) == 8
    assert np.array_equal(talked.examples["scores"], talked.scores_NC[rows])
    frozen_NDHW = torch.cat([shared.frozen_BDHW for shared in sample.workbench().in_order("test", PRESET.batch)])
    assert np.allclose(talked.examples["attention"], frozen_NDHW[rows, :NUM_CATEGORIES].abs().numpy())


def test_a_method_without_maps_has_none_among_its_examples(finished):
    assert set(finished.examples) == {"rows", "scores"}


def test_of_fewer_than_eight_test_images_each_is_an_example(finish, sample):
    test = sample.splits["test"]
    few = replace(test, ids=test.ids[:3], image_paths=test.image_paths[:3], labels_NC=test.labels_NC[:3])
    workbench = Workbench(sample.splits["train"], few, sample.backbone, ImageTransform(SIDE), sample.fabric)
    examples = finish(Talks, workbench).examples
    assert examples["rows"].tolist() == [0, 1, 2]
    assert len(examples["attention"]) == 3


@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_the_share_that_is_really_known_is_told(ratio, finish, sample):
    labels_NC = sample.splits["train"].labels_NC
    assert finish(ratio=ratio).known_share == known_share(labels_NC, known_mask(labels_NC.shape, ratio))


def test_the_mask_has_a_seed_of_its_own(sample, make):
    given = []

    class Keeps(Plain):
        def __init__(self, backbone, task, hyperparameters):
            super().__init__(backbone, task, hyperparameters)
            given.append(task.labels_NC.numpy())

    job = make(Keeps, seed=5)
    job = replace(job, cell=replace(job.cell, mask_seed=3))
    next(train([job], sample.workbench()))
    labels_NC = sample.splits["train"].labels_NC
    assert np.array_equal(given[0], hide(labels_NC, known_mask(labels_NC.shape, RATIO, seed=3)))


def test_a_method_is_told_the_categories_the_ratio_and_the_word_vectors(sample, make):
    given = []

    class Keeps(Plain):
        def __init__(self, backbone, task, hyperparameters):
            super().__init__(backbone, task, hyperparameters)
            given.append(task)

    next(train([make(Keeps, ratio=0.3)], sample.workbench()))
    split = sample.splits["train"]
    assert (given[0].categories, given[0].known_ratio) == (split.categories, 0.3)
    assert np.array_equal(given[0].word_vectors_CE.numpy(), split.word_vectors_CE)


@pytest.mark.parametrize("given", [1.0, 0.5])
def test_the_known_ratio_is_a_share_of_all_labels_and_not_of_the_given_ones(sample, make, given):
    complete, known = sample.splits["train"], []

    class Keeps(Plain):
        def __init__(self, backbone, task, hyperparameters):
            super().__init__(backbone, task, hyperparameters)
            known.append((task.known_ratio, float((task.labels_NC != UNKNOWN).double().mean())))

    given_NC = np.random.default_rng(1).random(complete.labels_NC.shape) < given
    labels_NC = np.where(given_NC, complete.labels_NC, UNKNOWN).astype(np.int8)
    for ratio in (0.4, 1.0):
        next(train([make(Keeps, ratio=ratio)], sample.workbench(replace(complete, labels_NC=labels_NC))))
    assert known[0][0] == pytest.approx(known[0][1], abs=0.12)
    assert known[1][0] == pytest.approx(known[1][1]) and known[1][0] == pytest.approx(given, abs=0.12)


def test_the_labels_of_a_batch_are_those_of_its_rows_after_hiding(finish, sample):
    labels_NC = sample.splits["train"].labels_NC
    hidden_NC = hide(labels_NC, known_mask(labels_NC.shape, RATIO))
    right = []

    class Checks(Plain):
        def losses(self, batch, progress):
            right.append(np.array_equal(batch.labels_BC.numpy(), hidden_NC[batch.index_B.numpy()]))
            return super().losses(batch, progress)

    finish(Checks)
    assert right == EPOCHS * STEPS * [True]


def test_the_training_images_that_every_epoch_drops_are_counted(finished):
    assert finished.dropped_images == NUM_TRAIN - STEPS * PRESET.batch == 3


def test_the_weights_are_the_methods_state_without_the_frozen_part(finished, run, sample):
    made = run()
    assert set(finished.weights) == set(made.method.state_dict())
    made.method.load_state_dict(finished.weights)
    made.method.eval()
    scores = [made.logits_BC(shared) for shared in sample.workbench().in_order("test", PRESET.batch)]
    assert np.array_equal(torch.cat(scores).numpy(), finished.scores_NC)


def test_time_speed_and_memory_are_told(finished):
    in_training = sum(row["seconds"] for row in finished.history)
    assert 0 < in_training < finished.seconds
    assert finished.images_per_second == pytest.approx(EPOCHS * STEPS * PRESET.batch / in_training)
    assert 10 * 2**20 < finished.peak_memory_bytes < 2**40
    assert finished.cells_in_group == 1


def test_a_method_that_gives_no_loss_fails_with_a_reason_that_says_so(sample, make):
    class Silent(Plain):
        def losses(self, batch, progress):
            return {}

    (failed,) = (event for event in train([make(Silent)], sample.workbench()) if not isinstance(event, StepDone))
    assert "losses() returned no terms" in failed.reason


def test_logits_may_all_lie_between_0_and_1(finish):
    class LooksSure(Plain):
        def forward(self, frozen_BDHW):
            logits_BC = super().forward(frozen_BDHW)
            return logits_BC if self.training else logits_BC.sigmoid()

    scores_NC = finish(LooksSure).scores_NC
    assert scores_NC.min() > 0 and scores_NC.max() < 1


def test_a_batch_larger_than_the_training_set_fails_with_a_reason_that_says_so(sample, make):
    job = make(batch=NUM_TRAIN + 1)
    (failed,) = (event for event in train([job], sample.workbench()) if not isinstance(event, StepDone))
    assert "no batch of 24 in 23 training images" in failed.reason


def test_a_cell_that_goes_on_keeps_history_best_epoch_and_times(make, sample, tmp_path):
    job = make()
    for event in train([job], sample.workbench()):
        if isinstance(event, StepDone) and (event.epoch, event.step) == (EPOCHS - 1, 1):
            checkpoint.write(tmp_path, job.cell, event.states()[job.cell])
    whole, state = event, checkpoint.read(tmp_path, job.cell)
    assert isinstance(whole, Finished) and len(whole.history) == EPOCHS
    state |= {"best": (0, {**state["best"][1], "mAP": 2.0}), "training_seconds": 1000.0, "epoch_seconds": 500.0}
    (*_, again) = train([job], sample.workbench(), {job.cell: state})

    without_times = [[{**row, "seconds": 0} for row in of.history] for of in (whole, again)]
    assert without_times[0] == without_times[1]
    assert (again.best_epoch, again.best_metrics["mAP"]) == (0, 2.0)
    assert 500 < again.history[-1]["seconds"] < 1000
    assert again.images_per_second == pytest.approx(EPOCHS * STEPS * PRESET.batch / 1500, rel=0.05)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_cell_that_goes_on_says_all_numbers_of_threads_that_it_was_trained_with(make, sample, number):
    job, before = make(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for event in train([job], sample.workbench()):
            if isinstance(event, StepDone) and (event.epoch, event.step) == (0, 1):
                state = event.states()[job.cell]
                break
        torch.set_num_threads(number)
        (*_, again) = train([job], sample.workbench(), {job.cell: state})
    finally:
        torch.set_num_threads(before)
    assert again.threads == tuple(dict.fromkeys((2, number)))


class KeepsPlainData(Plain):
    def get_extra_state(self):
        return {"seen": 3, "means": torch.ones(2)}

    def set_extra_state(self, state):
        self.restored = state


def test_a_method_may_keep_other_things_than_tensors_beside_them(finish):
    kept = finish(KeepsPlainData).weights["_extra_state"]
    assert kept["seen"] == 3 and torch.equal(kept["means"], torch.ones(2))


class LogsAViewOfAParameter(Plain):
    def losses(self, batch, progress):
        return {**super().losses(batch, progress), "view": self.classifier.bias[0]}


def test_a_loss_term_that_is_a_view_of_a_parameter_is_logged_with_its_value_before_the_step(run):
    made = run(LogsAViewOfAParameter, lr=0.1, schedule="constant")
    before = made.method.classifier.bias[0].item()
    first_step(made)
    assert made.terms[0]["view"].item() == before != made.method.classifier.bias[0].item()


class GivesProbabilities(Plain):
    def forward(self, frozen_BDHW):
        return super().forward(frozen_BDHW).sigmoid()


def test_probabilities_fail_the_cell_at_the_end_where_there_are_many_labels(sample, make, monkeypatch):
    monkeypatch.setattr("mlrpl_bench.training.run.MANY_LABELS", NUM_TEST * NUM_CATEGORIES)
    *_, failed = train([make(GivesProbabilities)], sample.workbench())
    assert isinstance(failed, Failed) and "as probabilities do" in failed.reason
    monkeypatch.setattr("mlrpl_bench.training.run.MANY_LABELS", NUM_TEST * NUM_CATEGORIES + 1)
    *_, last = train([make(GivesProbabilities)], sample.workbench())
    assert isinstance(last, Finished)
