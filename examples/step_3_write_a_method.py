"""
Write a method
==============

A method is one file, and nothing else is edited. It owns its model and its losses; the benchmark owns the data, the
masks, the training loop, the optimiser and the evaluation. This example takes the file below, lets the benchmark
check it, trains it and compares it with its neighbour.
"""

# %%
# The file
# --------
# ``smooth_bce.py`` (:download:`download it </../examples/methods/smooth_bce.py>` into a folder ``methods`` beside this
# script) is cross-entropy on the known labels, as ``partial_bce`` has it, with the labels smoothed. ``python bench.py
# new my_idea`` writes a file to begin with.
#
# .. literalinclude:: /../examples/methods/smooth_bce.py
#    :language: python

import subprocess
import sys
import tempfile
from pathlib import Path

import mlrpl_bench as mb

FILE = Path(sys.argv[0]).resolve().parent / "methods" / "smooth_bce.py"

# %%
# What every method must pass
# ---------------------------
# ``test-method`` trains it on small random data, and looks whether it survives odd batches, cannot reach hidden labels,
# draws from the batch's generator alone, and goes on exactly from a checkpoint. Name your file with ``--plugin``, or
# put it into ``methods/`` of a checkout.


def bench(*words: str | Path) -> str:
    """Return what ``python bench.py WORDS`` prints."""
    start = [sys.executable, "-c", "from mlrpl_bench.cli.app import main; main()"]
    done = subprocess.run([*start, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


print(bench("test-method", "smooth_bce", "--plugin", FILE))

# %%
# Train it beside another
# -----------------------
# One seed and two epochs: enough to see that it runs. A hyper-parameter that is changed makes another row.

scratch = tempfile.TemporaryDirectory()
setting = {"ratios": 0.5, "epochs": 2, "results": scratch.name, "plugins": FILE}
mb.run("partial_bce", **setting)
mb.run("smooth_bce", overrides={"smoothing": 0.3}, **setting)
result = mb.run("smooth_bce", **setting)
frame = result.measurements
frame[(frame.metric == "mAP") & (frame.known_ratio == "0.5")][["method", "mean", "low", "high"]].round(1)

# %%
# Compare
# -------
# ``compare`` pairs the two on the same test images and seeds.

found = mb.compare("smooth_bce", "partial_bce", **setting)
for row in found.rows():
    print(*row, sep=" | ")

# %%
# One seed says something about these two trained models and nothing about the methods; :doc:`step_4_compare_fairly`
# shows how to do better. What a method is given and what else it may have is told in :doc:`/adding-a-method`.
