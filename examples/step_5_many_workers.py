"""
Two GPUs and a cluster
======================

Workers share a results folder and divide the cells between them; a launcher only starts them. This example starts two
workers that share a CPU, as on a machine with two GPUs, and prints the command that a cluster's scheduler would start.
"""

# %%
# Look first
# ----------
# ``--dry-run`` trains nothing: it says which cells two workers would train side by side.

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

scratch = tempfile.TemporaryDirectory()
RESULTS = Path(scratch.name) / "results"
QUESTION = ("leaderboard", "--methods", "partial_bce", "--ratios", "0.1,0.5,0.9", "--epochs", "1")


def bench(*words: str) -> str:
    """Return what ``python bench.py WORDS`` prints, without the path of this example's folder."""
    start = [sys.executable, "-c", "from mlrpl_bench.cli.app import main; main()"]
    done = subprocess.run([*start, *words, "--results-dir", str(RESULTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.replace(scratch.name, "/shared")


print(bench(*QUESTION, "--device", "cpu", "--dry-run", "--workers-planned", "2"))

# %%
# Two workers on this machine
# ---------------------------
# ``--launcher local`` starts a worker for each GPU that can be seen, such as the two of a workstation. Without a GPU
# ``--device cpu --workers 2`` starts two that share the cores. The command waits and makes the table.

table = bench(*QUESTION, "--device", "cpu", "--launcher", "local", "--workers", "2")
print(table.partition("\n- ")[0])  # without the notes below it

# %%
# Every record says who trained it.

facts = []
for path in sorted(RESULTS.glob("scenes/*/*/record.json")):
    record = json.loads(path.read_text(encoding="utf-8"))
    facts.append({
        "cell": path.parent.relative_to(RESULTS / "scenes").as_posix().rsplit("-", 1)[0],
        "launcher": record["launcher"], "side by side": record["cost"]["cells_in_group"],
        "mAP": round(100 * record["metrics"]["mAP"], 1),
    })  # fmt: skip
assert len(facts) == 4  # three known ratios, and the upper bound
pd.DataFrame(facts)

# %%
# Each worker writes what it does into a file of its own. These are the lines about cells that it finished.

for log in sorted(RESULTS.glob("scenes/.work/*.log")):
    finished = [line for line in log.read_text(encoding="utf-8").splitlines() if ": mAP" in line]
    print(f"worker {log.stem.rpartition('-')[2]}", *finished, sep="\n  ")

# %%
# A cluster
# ---------
# ``--launcher print`` starts nothing. It prints the worker's command, to be started as often as there are GPUs, by any
# scheduler, wherever the folder is mounted. The cells are divided for so many workers as ``--workers`` says.

more = (*QUESTION[:4], "0.2,0.3,0.4,0.6", *QUESTION[5:])
words = shlex.split(bench(*more, "--launcher", "print", "--workers", "8"))
print(shlex.join(["python", Path(words[1]).name, *words[2:]]))  # without this machine's folders

# %%
# As a job of SLURM that is eight GPUs:
#
# .. code-block:: bash
#
#     #SBATCH --array=1-8 --gpus=1 --time=4:00:00
#     THE PRINTED COMMAND
#
# A job that is killed loses at most the work since its last checkpoint; its cells are taken over by the others. For
# SLURM with requeueing there is ``--launcher submitit``, for Ray ``--launcher ray``; see :doc:`/many-machines`.
#
# The table is made afterwards, from whatever records there are. Here no worker of the cluster ever ran, so the columns
# of the first question are there and nothing has to be trained.

found = json.loads(bench(*QUESTION, "--no-train", "--json"))
rows = {name: {ratio: entry["mean"] for ratio, entry in row.items()} for name, row in found["rows"].items()}
pd.DataFrame(rows).T[["10 %", "50 %", "90 %"]].round(1)
