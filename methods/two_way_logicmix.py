"""LogicMix in two ways (2WayAug-PL): mixtures of strongly augmented images, with labels filled in.

The paper's best rows mix images that RandAugment has changed, and fill in labels late in training (Chong et al.,
Pattern Recognition 171, 2026; arXiv 2405.15860). It is `logicmix_pl` on the strong view, which costs a second pass
through the frozen part for each batch; `logicmix_pl` itself leaves that out, so that its row shows what the labels do.

Differs from the code: see `logicmix`.
"""

from mlrpl_bench import register_variant

register_variant(
    "logicmix_2way",
    "logicmix_pl",
    idea="As logicmix_pl, on images that RandAugment has changed.",
    published="2WayAug-PL (LogicMix)",
    differs="V1 weights, last stage trained, one shared schedule, partners from the batch, a mean over known entries "
    "instead of a sum; averaged weights have COCO's time constant everywhere, half an epoch of 20, and are scored "
    "whichever are better",
    settings={"view": "strong"},
)
