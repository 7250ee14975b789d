"""
Your own pictures with missing labels
=====================================

A folder of pictures and a spreadsheet of labels is a data set: 1 is present, 0 is absent, and a blank is a label that
nobody gave. This example draws such a folder, trains a method on the labels that are there, and lets it fill in blanks
with a promise on how many of them are right.
"""

# %%
# A folder of pictures
# --------------------
# Each picture shows some of three coloured shapes, and grey ones that count for nothing. The first 400 are to train on,
# the other 80 to test on.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

import mlrpl_bench as mb

INKS = {"circle": (200, 40, 40), "square": (40, 60, 200), "triangle": (30, 140, 60)}
SHAPES = tuple(INKS)
GREY = (150, 150, 150)
SIDE = 64  # pixels
TRAIN, TEST = 400, 80
random = np.random.default_rng(0)


def draw_shape(canvas: ImageDraw.ImageDraw, shape: str, ink: tuple[int, int, int]) -> None:
    """Draw one shape at a random place."""
    size = int(random.integers(14, 24))
    x, y = (int(value) for value in random.integers(2, SIDE - size - 2, size=2))
    if shape == "circle":
        canvas.ellipse((x, y, x + size, y + size), fill=ink)
    elif shape == "square":
        canvas.rectangle((x, y, x + size, y + size), fill=ink)
    else:
        canvas.polygon([(x, y + size), (x + size, y + size), (x + size // 2, y)], fill=ink)


scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name) / "mine"
folder.mkdir()
present = random.random((TRAIN + TEST, len(SHAPES))) < 0.5
for row, shown in enumerate(present):
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    for shape in SHAPES:
        draw_shape(ImageDraw.Draw(picture), shape, GREY)
    for shape in np.array(SHAPES)[shown]:
        draw_shape(ImageDraw.Draw(picture), shape, INKS[shape])
    picture.save(folder / f"{row:03}.png")

# %%
# A table with blanks
# -------------------
# Four of ten training labels were never given. We keep what the pictures really show, to see later how right the method
# was; a real table has no such thing beside it.

truth = pd.DataFrame(present.astype(float), columns=SHAPES)
truth.insert(0, "image", [f"{row:03}.png" for row in truth.index])
table = truth.copy()
never_given = random.random(present.shape) < 0.4
never_given[TRAIN:] = False
table[list(SHAPES)] = table[list(SHAPES)].mask(never_given)
table.insert(1, "split", ["train"] * TRAIN + ["test"] * TEST)
table.to_csv(folder / "labels.csv", index=False)
table.head(6)

# %%

figure, panels = plt.subplots(1, 6, figsize=(9, 2.2), layout="constrained")
for row, panel in enumerate(panels):
    panel.imshow(Image.open(folder / f"{row:03}.png"))
    given = table.loc[row, list(SHAPES)]
    words = [f"{shape}: {'?' if pd.isna(label) else 'yes' if label else 'no'}" for shape, label in given.items()]
    panel.set_title("\n".join(words), fontsize=8)
    panel.axis("off")

# %%
# Train on what is known
# ----------------------
# ``data check`` says beforehand what is missing or damaged::
#
#     python bench.py data check table --root mine --backbone small --image-size 56 --batch 16
#
# A known ratio is the share of the *given* labels that the method sees. At 0.6 the other given labels are hidden from
# it; they tell afterwards how far its scores can be trusted. The defaults of ``table`` are those for photographs; these
# are for pictures of 64 pixels.

setting = {
    "data_root": folder, "results": Path(scratch.name) / "results",
    "backbone": "small", "image_size": 56, "batch": 16, "epochs": 10, "lr_multiplier": 80,
}  # fmt: skip
result = mb.run("ssgrl", "table", ratios=[0.6, 1.0], **setting)
frame = result.measurements
mean_ap = frame[(frame.metric == "mAP") & frame.known_ratio.isin(["0.6", "1"])]
mean_ap[["method", "known_ratio", "mean", "low", "high"]].round(1)

# %%
# Fill in the blanks
# ------------------
# ``precision=0.9`` is a promise: of the labels that are set at least 90 % are right, on the assumption that those that
# were never given are like those that were. Where the labels are too few for a promise, none is set.

filled = mb.fill("ssgrl", "table", precision=0.9, ratio=0.6, **setting)
filled.promises()

# %%
# We drew the pictures, so we can count.

decided = filled.frame().dropna(subset="decision")
known = truth.melt("image", var_name="category", value_name="truth")
checked = decided.merge(known, on=["image", "category"])
right = (checked.decision == checked.truth).mean()
print(f"{len(decided)} of {int(never_given.sum())} blanks were filled in, {100 * right:.1f} % of them rightly")

# %%
# ``filled.write(folder)`` writes the table back as it came, with probabilities beside the labels.

print("\n".join(path.name for path in filled.write(Path(scratch.name) / "filled")))

# %%
# More on tables, and on what a promise rests on, in :ref:`the user's guide <usage:filling in missing labels>`.
