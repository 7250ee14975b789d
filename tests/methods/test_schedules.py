"""When things happen, read from the history of a short training: the papers' epochs, scaled to the run's length."""

import dataclasses

import pytest

from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.tools.conformance.sample import Sample
from mlrpl_bench.training.trainer import Finished, Group

METHODS = load_methods()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains a method for some epochs; gives the history and the epochs before which it saw the training set."""
    seen = {}

    def train(name: str, epochs: int) -> tuple[list[dict[str, float]], list[int]]:
        if (name, epochs) not in seen:
            sample = Sample(METHODS[name], tmp_path_factory.mktemp(name))
            job = sample.job()
            recipe = dataclasses.replace(job.cell.recipe, epochs=epochs)
            job = dataclasses.replace(job, cell=dataclasses.replace(job.cell, recipe=recipe))
            group = Group([job], sample.workbench())
            (run,) = group.runs
            passes, end_pass = [], run.end_pass
            run.end_pass = lambda progress: (passes.append(progress.epoch), end_pass(progress))
            (finished,) = (event for event in group.train() if isinstance(event, Finished))
            seen[name, epochs] = finished.history, passes
        return seen[name, epochs]

    return train


def first_epoch(history: list[dict[str, float]], column: str) -> float:
    """The first epoch whose row has a column."""
    return next(row["epoch"] for row in history if column in row)


@pytest.mark.parametrize(("epochs", "start", "passes"), [(20, 5, [5, 10, 15]), (8, 2, [2, 4, 6])])
def test_sarb_blends_from_a_quarter_on_and_clusters_three_times(trained, epochs, start, passes):
    history, passed = trained("sarb", epochs)
    assert (first_epoch(history, "loss.instance"), first_epoch(history, "loss.prototype"), passed) == (
        start,
        start,
        passes,
    )


def test_the_contrastive_loss_warms_up_in_the_first_epoch_only(trained):
    history, _ = trained("plrb", 20)
    terms = [row["loss.contrastive"] for row in history]
    # Of four steps the first weighs 0, the second 1/4 ...: three eighths on average.
    assert terms[0] < 0.6 * terms[1]


@pytest.mark.parametrize("name", ["ip_mixup", "fm_mixup"])
def test_mixup_starts_with_epoch_5(trained, name):
    assert first_epoch(trained(name, 20)[0], "loss.mixup") == 5


def test_the_control_repeats_known_labels_from_epoch_5(trained):
    assert first_epoch(trained("ssgrl_x3", 20)[0], "loss.repeated") == 5


def test_curriculum_relabels_at_epochs_5_10_and_15(trained):
    assert trained("curriculum", 20)[1] == [5, 10, 15]


def test_the_class_priors_of_csl_are_taken_once_and_used_from_then_on(trained):
    history, passed = trained("csl", 20)
    assert passed == [5]
    assert first_epoch(history, "loss.assumed_absent") == 5


def test_logicmix_fills_in_labels_before_every_epoch_from_a_third_on(trained):
    assert trained("logicmix_pl", 20)[1] == list(range(7, 20))


def test_the_learning_rate_falls_by_ten_in_the_middle(trained):
    rates = [row["learning_rate"] for row in trained("sarb", 20)[0]]
    assert rates == [pytest.approx(rates[0])] * 10 + [pytest.approx(rates[0] / 10)] * 10


@pytest.mark.parametrize("name", ["ll_ct", "boostlu_ll_r"])
def test_large_loss_changes_more_entries_with_every_epoch_from_the_second_on(trained, name):
    shares = [row["scalar.changed_share"] for row in trained(name, 20)[0]]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] > shares[1]


def test_the_threshold_of_sst_falls_from_epoch_5_to_its_last_value_at_13(trained):
    thresholds = [row["scalar.threshold"] for row in trained("sst", 20)[0]]
    falling = [0.95 - 0.025 * epoch for epoch in range(8)]
    assert thresholds == pytest.approx([1.0] * 5 + falling + [0.75] * 7)


def test_hst_clusters_at_epochs_5_10_and_15(trained):
    assert trained("hst", 20)[1] == [5, 10, 15]


def test_em_apl_makes_its_five_rounds_in_the_second_half_and_never_takes_a_label_back(trained):
    history, passed = trained("em_apl", 20)
    assert passed == [10, 12, 14, 16, 18]
    shares = [row["scalar.soft_labelled_share"] for row in history]
    rounds = [sum(epoch >= first for first in passed) for epoch in range(20)]
    assert shares == pytest.approx([shares[-1] * number / 5 for number in rounds])
    assert shares[-1] > 0 and history[9]["loss.soft_labels"] == 0 < history[10]["loss.soft_labels"]
    assert trained("em_apl", 8)[1] == [4, 5, 6, 7]  # two rounds at one of these epochs


def test_the_constants_of_gr_move_from_the_first_epoch_to_the_last(trained):
    history, _ = trained("gr", 8)
    slopes, centres = ([row[f"scalar.{name}"] for row in history] for name in ("slope", "centre"))
    assert slopes == pytest.approx([2 * epoch / 8 for epoch in range(8)])
    assert centres == pytest.approx([0.5 + 0.3 * (epoch + 1) / 8 for epoch in range(8)])


def test_cap_labels_before_every_epoch_from_the_sixth_on(trained):
    history, passed = trained("cap", 20)
    assert passed == list(range(6, 20))
    assert first_epoch(history, "loss.pseudo_labels") == 6
    assert history[5]["scalar.filled_absent_share"] == 0 < history[6]["scalar.filled_absent_share"]
