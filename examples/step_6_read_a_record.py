"""
Read a record and draw your own figure
======================================

A finished cell leaves a folder of plain files: JSON, CSV and NumPy arrays. Tables are made from them, and so are your
own figures. This example trains one cell, reads its record, and draws three figures that no table has.
"""

# %%
# One cell
# --------

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import mlrpl_bench as mb

scratch = tempfile.TemporaryDirectory()
result = mb.run("ssgrl", "scenes", ratios=0.5, epochs=3, results=scratch.name)

# %%
# Find it
# -------
# ``records`` has a row for each record, with its setting, its numbers in percent and its folder.

(record,) = mb.records(scratch.name, "scenes").itertuples()
folder = Path(record.folder)
print(f"{record.title}: mAP {record.mAP:.1f} in {folder.name}")
for path in sorted(folder.iterdir()):
    print(f"  {path.name:<20} {path.stat().st_size / 1000:8.1f} kB")

# %%
# ``record.json`` was written last. It holds the metrics, what was asked for, who trained it on what, and the size and
# digest of every other file, by which ``verify --files`` sees whether they are what was written.

content = json.loads((folder / "record.json").read_text(encoding="utf-8"))
print(json.dumps({name: content[name] for name in ("known_share", "launcher", "device", "threads")}, indent=1))

# %%
# The course of the training
# --------------------------
# ``history.csv`` has a row for each epoch, ``steps.npz`` every loss term at every step.

history = pd.read_csv(folder / "history.csv")
with np.load(folder / "steps.npz") as steps:
    terms = {name: steps[name] for name in steps}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
for name, values in terms.items():
    left.plot(values, label=name)
left.set(xlabel="step", ylabel="loss term")
left.legend()
right.plot(history.epoch + 1, 100 * history["test.mAP"], marker="o")
right.set(xlabel="epoch", ylabel="mAP on test images (percent)", xticks=history.epoch + 1)

# %%
# Which categories are hard
# -------------------------
# Average precision by category, in the order of the data set's categories.

categories = result.leaderboard.context.categories
by_category = pd.Series(100 * np.array(content["metrics"]["AP_C"]), index=categories).sort_values()
axes = by_category.plot.barh(figsize=(6, 5), xlabel="average precision (percent)")
axes.figure.set_layout_engine("constrained")

# %%
# How scores lie
# --------------
# ``scores.npz`` holds the logits of the test images (images x categories). A sigmoid makes them probabilities.

with np.load(folder / "scores.npz") as arrays:
    logits = arrays["scores"]
probabilities = 1 / (1 + np.exp(-logits))
figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
axes.hist(probabilities.ravel(), bins=40)
axes.set(xlabel="probability", ylabel="entries of the test set", yscale="log")
print(f"{100 * np.mean(probabilities > 0.5):.1f} % of the entries are predicted at a threshold of 0.5")

# %%
# Where it looks
# --------------
# ``examples.npz`` keeps the scores of a few test images (images x categories) and where each category's attention was
# (images x categories x height x width). Here the category with the highest score of each image.

with np.load(folder / "examples.npz") as arrays:
    scores, attention = arrays["scores"], arrays["attention"]
figure, panels = plt.subplots(1, 6, figsize=(9, 1.9), layout="constrained")
for panel, scores_of_image, maps in zip(panels, scores, attention, strict=False):
    first = int(scores_of_image.argmax())
    panel.imshow(maps[first], cmap="magma")
    panel.set_title(categories[first], fontsize=9)
    panel.axis("off")

# %%
# Every file of a record is listed in :ref:`the user's guide <usage:files>`.
