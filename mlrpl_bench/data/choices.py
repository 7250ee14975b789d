"""The names that a user may choose among, with what each means. Imports nothing, so that ``--help`` is quick."""

SCHEMES = {
    "hcp": "every entry with the same probability, in the reference's stream: row order decides",
    "by_id": "every entry with the same probability, drawn from the image's id: row order does not matter",
    "positives_only": "present labels with the same probability, never an absent one",
    "single_positive": "one present label of each image, and nothing else",
}
"""These are the ways to draw the mask of known labels, see `protocol.known_mask`."""

REFERENCE = "reference"
FAST = "fast"
REDUCED = "reduced"
PREPARED_JPEG = "prepared-jpeg95"
PREPARED_RAW = "prepared-raw"

BACKENDS = {
    REFERENCE: "the chain as it is described, step by step",
    FAST: (
        "crop and resize fused into one resize of the decoded image, so an image is interpolated once and looks "
        "slightly sharper; JPEGs that are more than twice as large as any crop needs are decoded at half size or less; "
        "the test view is the reference's but for those large JPEGs"
    ),
    REDUCED: (
        "as fast, but JPEGs that are at least twice as large as the network's input are decoded at half size or less, "
        "for the test view too; the smallest crops are then enlarged, as they are by the reference"
    ),
    PREPARED_JPEG: (
        "from images that were resized to the enlarged square once and kept as JPEG of quality 95; crop and resize "
        "fused; the test view is resized from the enlarged square too: two resizes where the reference has one"
    ),
    PREPARED_RAW: (
        "from images that were resized to the enlarged square once and kept as they were; the training view has "
        "exactly the reference's pixels; the test view is resized from the enlarged square: two resizes where the "
        "reference has one, so other pixels; the first resize is bicubic for every backbone"
    ),
}
"""These are the implementations of the transforms, which differ in pixels; so the name is part of a cell's key."""
