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

SCORED = "scored by averaged weights with a time constant of 2 epochs of 20, whichever are better"

DIFFERS = {
    "asl": "SSGRL's network, last stage trained instead of all; a mean over the batch's entries instead of a sum; "
    "unknown labels are taken for absent; no cutout or RandAugment",
    "csl": "SSGRL's network, last stage trained instead of all; a mean instead of a sum; class priors are the method's "
    "own mean scores at epoch index 5, after training on known labels alone, instead of a temporary model's; no "
    "ImageNet-21k weights; no cutout or RandAugment",
    "hill": "SSGRL's network, last stage trained instead of all; a mean over the batch's entries instead of a sum; no "
    "cutout or RandAugment",
    "partial_bce": "no normalisation by the share of known labels, no graph network, no curriculum",
    "pu_mlc": "the loss alone, on SSGRL's network, a mean over categories; no local-global branch; batch norms of the "
    "last stage train; step schedule instead of one cycle",
    "splc": "SSGRL's network, last stage trained instead of all; a mean over the batch's entries instead of a sum; "
    "known negatives are never relabelled; no cutout or RandAugment",
    "ssgrl": "partial binary cross-entropy; graph counted on known labels; features reduced to the shared width",
}
"""How the rows without averaged weights differ from their papers otherwise; a row is read without another one."""

for name, otherwise in DIFFERS.items():
    register_variant(
        f"{name}_ema",
        name,
        idea=f"As {name}, scored by the moving average of its weights.",
        differs=f"{SCORED}; {otherwise}",
        ema=TIME_CONSTANT,
    )
