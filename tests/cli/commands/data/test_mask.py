"""``data mask``: what it writes, and that training uses it."""

import numpy as np
import pytest

from mlrpl_bench.data import masks
from mlrpl_bench.data.protocol import known_mask
from mlrpl_bench.utils.errors import UserError
from tests.helpers.tiny_study import study


def test_a_mask_is_written_and_used(bench, tmp_path):
    code, out, _ = bench("data", "mask", "tiny", "--output=mask.npz", "--ratio=0.5", "--seed=3")
    assert code == 0 and "of the present" in out
    made = study(tmp_path / "again.py", mask_file=tmp_path / "mask.npz")
    np.testing.assert_array_equal(made.masks(0.5, 0), known_mask((12, 4), 0.5, 3))
    np.testing.assert_array_equal(masks.read(tmp_path / "mask.npz", made.train, 0.5), known_mask((12, 4), 0.5, 3))


def test_a_mask_for_validation_is_that_of_such_a_run(bench, tmp_path):
    common = ("--ratio=0.5", "--seed=3", "--evaluate-on=val")
    for scheme in ("hcp", "by_id"):
        code, out, _ = bench("data", "mask", "tiny", "--output=mask.npz", *common, f"--mask-scheme={scheme}")
        assert code == 0 and "of 11 images" in out
        drawn = study(tmp_path / "again.py", evaluate_on="val", mask_scheme=scheme)
        made = study(tmp_path / "again.py", evaluate_on="val", mask_file=tmp_path / "mask.npz")
        np.testing.assert_array_equal(made.masks(0.5, 0), drawn.masks(0.5, 3))
    with pytest.raises(UserError, match="was drawn for other ids"):
        study(tmp_path / "again.py", mask_file=tmp_path / "mask.npz").masks(0.5, 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("mask", "tiny", "--output=mask.txt", "--ratio=0.5"), "a mask file is an .npz"),
        (("mask", "tiny", "--output=mask.npz", "--ratio=2"), "known ratio 2 is outside (0, 1]"),
        (("mask", "tiny", "--output=mask.npz", "--ratio=0.5", "--mask-scheme=x"), "--mask-scheme x is not valid"),
        (("mask", "tiny", "--output=mask.npz", "--ratio=0.5", "--seed=-1"), "--seed -1 must be between"),
        (("mask", "tiny", "--output=mask.npz", "--ratio=0.5", "--evaluate-on=x"), "--evaluate-on x is not valid"),
        (("mask", "tiny", "--output=gone/mask.npz", "--ratio=0.5"), "there is no folder gone"),
    ],
)
def test_bad_input_is_one_line(bench, tmp_path, arguments, line):
    code, _, err = bench("data", *arguments)
    assert code == 2 and line in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "mask.npz").exists() and not (tmp_path / "gone").exists()
