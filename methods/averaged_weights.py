"""Rows that differ from another file's row in one thing: their weights are averaged (`Recipe.ema`).

The official codes of ASL, CSL, SPLC and Hill, PU-MLC, ML-Decoder, Query2Label and CAP evaluate a moving average of the
weights beside the weights themselves, and report the better of both at the best epoch, by the test labels. Here the
averaged weights are the row's, whatever comes out, and the mAP of the raw ones stands beside it in a table of its own.
`ssgrl_ema` and `partial_bce_ema` are the controls: what averaging gives without any of these losses.

All rows have one time constant, 2 epochs of 20, so that they are compared on equal terms. The codes' own, as parts of
their trainings, would be 1.4 (PU-MLC on COCO) to 3.4 (SPLC, Hill) epochs of 20.
"""

from mlrpl_bench import register_variant

TIME_CONSTANT = 2.0
"""In epochs of 20."""

NOTHING_MORE = "as {name}, scored by averaged weights with a time constant of 2 epochs of 20, whichever are better"

for name in ("asl", "csl", "hill", "partial_bce", "pu_mlc", "splc", "ssgrl"):
    register_variant(
        f"{name}_ema",
        name,
        idea=f"As {name}, scored by the moving average of its weights.",
        differs=NOTHING_MORE.format(name=name),
        ema=TIME_CONSTANT,
    )
