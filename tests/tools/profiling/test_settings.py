"""Settings in which methods are profiled."""

import pytest

from mlrpl_bench.tools.profiling import settings, step_costs
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError

SMALL = Options(backbone="small", image_size=32, batch=4, weights="random", device="cpu")


def say_nothing(*_):
    pass


def test_images_in_memory_are_random_and_on_average_show_three_categories():
    bench = settings.paper_setting(SMALL, classes=80, ratio=0.1, report=say_nothing)
    assert bench.study.train.labels_NC.shape == (16, 80)
    assert 2 < (bench.study.train.labels_NC == 1).sum(axis=1).mean() < 4
    shared = next(iter(bench.study.workbench.training_batches(0, 0, 4)))
    assert shared.images_B3HW.shape == (4, 3, 32, 32) and shared.images_B3HW.std() > 0.5
    assert not bench.study.workbench.backbone.frozen.training


def test_a_setting_that_is_not_there_is_refused():
    for changes in ({"batch": 1}, {"backbone": "resnet1001"}, {"precision": "16"}):
        with pytest.raises(UserError):
            options = Options(**{**vars(SMALL), **changes})
            step_costs.profile(settings.paper_setting(options, 6, 0.5, say_nothing), [], 1, say_nothing)
