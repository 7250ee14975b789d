"""A few cells trained from beginning to end give the numbers that they gave when `protocol.VERSION` was last raised.

Shared code is in no cell's key: this test is what notices that scores changed. A tolerance is needed as another CPU
adds in another order, see `TOLERANCE`.
"""

import json
from typing import Any

import numpy as np
import pytest

from mlrpl_bench.data import protocol
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.training.trainer import train
from tests.helpers.places import GOLDEN
from tests.helpers.tiny_study import study

GOLDEN_FILE = GOLDEN / "protocol_version.json"
REGENERATE = "pytest tests/system/test_protocol_version.py --regenerate"
METHODS = ("partial_bce", "ssgrl", "sarb", "asl", "csl", "splc", "ll_ct", "pu_mlc", "ip_mixup")
EPOCHS = 8
"""SARB blends with prototypes from its sixth on."""
METRICS = ("mAP", "OF1", "CF1")
IMAGES = 3

TOLERANCE = 1e-5
"""Of a logit (the largest is about 0.6) and of a metric. With other instruction sets (SSE4, AVX2 and AVX-512 of torch,
MKL and oneDNN, or none of oneDNN) and two threads logits moved by 5e-7 at most: twenty times that is no rounding."""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    """What comes out now, as it is kept."""
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLRPL_CACHE", str(folder / "cache"))
        of, methods = study(folder / "tiny_set.py", epochs=EPOCHS), load_methods()
        return {name: numbers(train([of.job(methods[name], 0.5, 0, 0, {})], of.workbench)) for name in METHODS}


def numbers(events) -> dict[str, Any]:
    (*_, last) = events
    assert isinstance(last, Finished)
    return {name: last.metrics[name] for name in METRICS} | {"logits": last.scores_NC[:IMAGES].tolist()}


def test_scores_are_those_of_this_protocol_version(found, request):
    if request.config.getoption("--regenerate"):
        GOLDEN_FILE.write_text(json.dumps({"protocol_version": protocol.VERSION, **found}, indent=1) + "\n")
        pytest.skip(f"wrote {GOLDEN_FILE}")
    golden = json.loads(GOLDEN_FILE.read_text())
    version = golden.pop("protocol_version")
    assert version == protocol.VERSION, f"the numbers kept are of version {version}: regenerate with {REGENERATE}"
    assert list(golden) == list(METHODS)
    for name, expected in golden.items():
        for what, value in expected.items():
            assert np.allclose(found[name][what], value, rtol=0, atol=TOLERANCE), (
                f"scores changed ({what} of {name}: {found[name][what]} instead of {value}): raise protocol.VERSION, "
                f"unless only the method's own file changed, and regenerate with: {REGENERATE}"
            )
