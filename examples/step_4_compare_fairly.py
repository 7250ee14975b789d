"""
Compare fairly
==============

With one seed a difference says something about two trained models. To say something about two methods takes several
seeds, the same test images and seeds for both, an interval, and a correction for the number of questions. This example
does so with three seeds of SSGRL and of PLRB, which blends its features, and then asks what PLRB's paper claims.
"""

# %%
# Three seeds
# -----------
# A seed sets both which labels are known and how training is started. Every method gets the same masks, images,
# augmentation and order of batches.

import tempfile

import matplotlib.pyplot as plt
import pandas as pd

import mlrpl_bench as mb

scratch = tempfile.TemporaryDirectory()
setting = {"ratios": 0.5, "epochs": 2, "results": scratch.name}
for method in ("ssgrl", "plrb"):
    result = mb.run(method, seeds=3, **setting)

frame = result.measurements
mean_ap = frame[(frame.metric == "mAP") & (frame.known_ratio == "0.5")]
mean_ap[["method", "mean", "std", "low", "high", "n"]].round(1)

# %%
# Intervals
# ---------
# The interval of a row (95 %) is over test images *and* seeds: how far the mean would move with others of both. Two
# rows whose intervals overlap may differ all the same, since both met the same images: look at the interval of the
# *difference* instead.

found = mb.compare("plrb", "ssgrl", **setting)
paired = next(row for row in found.to_json()["rows"] if row["metric"] == "mAP")

figure, (rows, difference) = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
for place, row in enumerate(mean_ap.itertuples()):
    rows.plot([row.low, row.high], [place, place], color="C0")
    rows.plot(row.mean, place, "o", color="C0")
rows.set(yticks=range(len(mean_ap)), yticklabels=mean_ap.method, xlabel="mAP in percent", ylim=(-0.5, 1.5))
difference.plot([paired["low"], paired["high"]], [0, 0], color="C1")
difference.plot(paired["difference"], 0, "o", color="C1")
difference.axvline(0, color="grey", linewidth=0.8)
difference.set(yticks=[], xlabel="plrb less ssgrl, percent points", ylim=(-0.5, 0.5))

# %%
# The verdict
# -----------
# It follows the p-value after Holm's correction over the rows of this comparison (mAP, OF1 and CF1).

for row in found.rows():
    print(*row, sep=" | ")
print(*found.notes(), sep="\n")

# %%
# A leaderboard marks with ≈ what is not told from the best of its column at the 5 % level. No mark does not mean that
# the methods differ elsewhere: it is about this data, this setting and these seeds.
#
# What a claim is
# ---------------
# What a paper says of two rows, such as "prototype-level blending alone is above SSGRL", with the difference that it
# printed. ``claims`` holds each one against the records there are. Here is what these two rows say something about.

judged = mb.claims(**setting).measured()
sheet = judged.table()
pd.DataFrame(judged.rows(), columns=[sheet.corner, *sheet.columns])

# %%
# Two epochs on ``scenes`` are evidence for nothing that a paper says of photographs; :doc:`/seen-on-scenes` tells what
# they are evidence for. How intervals are made is told in :ref:`the architecture <architecture:how sure>`.
