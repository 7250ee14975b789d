"""
The first table
===============

One call trains what has no record yet and makes the table from the records. Here two methods see 10 %, 50 % and 90 % of
the training labels of ``scenes``, a data set of small pictures that is drawn on first use. An upper bound that sees all
labels is trained beside them.
"""

# %%
# Train
# -----
# Seven cells (two methods at three known ratios, and the upper bound) are trained side by side. Records are kept in a
# folder; here it is a temporary one. ``epochs=2`` keeps the example short: leave it out for the data set's own number.

import tempfile

import mlrpl_bench as mb

scratch = tempfile.TemporaryDirectory()
question = {"methods": ["partial_bce", "ssgrl"], "ratios": [0.1, 0.5, 0.9], "epochs": 2, "results": scratch.name}
result = mb.leaderboard("scenes", **question)

# %%
# Read the table
# --------------
# ``measurements`` has a row for each method, known ratio and metric. Numbers are percent. The interval (95 %) is that
# of these trained models over test images, since there is one seed; see :doc:`step_4_compare_fairly` for several.

frame = result.measurements
mean_ap = frame[(frame.metric == "mAP") & frame.known_ratio.isin(["0.1", "0.5", "0.9"])]
mean_ap[["method", "known_ratio", "mean", "low", "high"]].round(1)

# %%
# Draw it
# -------

by_ratio = mean_ap.pivot(index="known_ratio", columns="method", values="mean")
axes = by_ratio.plot(marker="o", xlabel="share of the training labels that is known", ylabel="mAP in percent")
axes.set_title("Two epochs on scenes, one seed")

# %%
# What was written
# ----------------
# The tables as CSV, Markdown and LaTeX, figures, and one page with everything, ``index-epochs=2.html``, which opens
# from disk. A setting that is not the data set's own stands in the names.

print("\n".join(sorted(path.name for path in result.written)))

# %%
# Asked again
# -----------
# The same question again trains nothing: every cell has a record.

again = mb.leaderboard("scenes", **question)
assert again.measurements.equals(result.measurements)
print("the same table")

# %%
# The same on the command line::
#
#     python bench.py leaderboard --methods partial_bce,ssgrl --ratios 0.1,0.5,0.9 --epochs 2
#
# What the marks and notes of the printed table mean is told in :ref:`the user's guide <usage:reading a table>`.
