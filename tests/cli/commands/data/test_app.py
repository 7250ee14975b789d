"""The commands under ``data`` are put together."""

import subprocess
import sys

from tests.helpers.places import BENCH


def test_the_commands_are_listed_without_importing_what_is_slow():
    script = f"import sys; sys.argv = ['bench.py', 'data', '--help']; sys.path.insert(0, {str(BENCH.parent)!r})\n"
    script += "from mlrpl_bench.cli import app\ntry:\n    app.main()\nexcept SystemExit:\n    pass\n"
    script += "print({'torch', 'matplotlib', 'pandas', 'PIL', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip().endswith("set()"), done.stdout + done.stderr
