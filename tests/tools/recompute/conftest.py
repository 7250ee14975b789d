"""Records to compute again, of every kind of setting."""

from types import SimpleNamespace

import pytest

from mlrpl_bench.data import masks
from mlrpl_bench.models.registry import load_datasets
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.training.launchers import sweep
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from tests.helpers.tiny_study import DATASET, method, write_plugin

WITH_OPTION = DATASET.replace(
    "    needs_root = False\n",
    """    needs_root = False

    @dataclass(frozen=True)
    class Options:
        side: int = parameter(32, "the side of a picture")
""",
).replace(
    "import numpy as np\n",
    """from dataclasses import dataclass

import numpy as np

from mlrpl_bench.models.hyperparameters import parameter
""",
)
"""As the tiny data set, with an option."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Records that training left, one of each kind of setting that decides labels and masks."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        datasets = load_datasets([write_plugin(folder / "tiny_set.py", WITH_OPTION)])
        plain, store = method(folder / "plain.py"), ResultStore(folder / "results")

        def train(seed: int = 0, mask_seed: int = 0, changed=(), evaluate_every=1, **options) -> Record:
            of = Study(datasets["tiny"], Options(device="cpu", **options))
            job = of.job(plain, 0.5, seed, mask_seed, dict(changed))
            for _ in sweep.run([job], of, store, evaluate_every=evaluate_every):
                pass
            return store.find(job.cell)

        mask_file, drawn = folder / "mask.npz", Study(datasets["tiny"], Options(device="cpu"))
        masks.write(mask_file, drawn.masks(0.5, 3), drawn.train, 0.5, 3)
        records = {
            "usual": train(),
            "one epoch": train(epochs=1),
            "validation": train(evaluate_on="val", epochs=1),
            "by id": train(mask_scheme="by_id", epochs=1),
            "skipping": train(on_bad_image="skip", epochs=1),
            "data option": train(data={"side": "31"}, epochs=1),
            "mask file": train(mask_file=mask_file, epochs=1),
        }
        yield SimpleNamespace(
            folder=folder, datasets=datasets.entries, records=records, mask_file=mask_file, train=train
        )


@pytest.fixture
def labels(trained):
    return Labels(trained.datasets, Options(mask_file=trained.mask_file))
