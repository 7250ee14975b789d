"""The options that decide a setting."""

import subprocess
import sys

from mlrpl_bench.training.options import Options


def test_without_options_everything_is_the_presets_and_the_papers():
    chosen = {name: value for name, value in vars(Options()).items() if value}
    assert chosen == {
        "precision": "32-true",
        "device": "auto",
        "evaluate_on": "test",
        "mask_scheme": "hcp",
        "on_bad_image": "error",
        "image_backend": "reference",
    }


def test_they_are_known_without_importing_what_takes_long():
    code = "import sys; import mlrpl_bench.training.options; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
