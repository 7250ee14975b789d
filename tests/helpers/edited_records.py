"""Records in which one number was edited, the digest mended.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from mlrpl_bench.records.record import SHARES, Record, digest


def edited(record: Record, *path, value=None) -> Record:
    """The record with another number at a place of its record.json, as it would be read."""
    content = json.loads((record.folder / "record.json").read_text())
    place = content
    for name in path[:-1]:
        place = place[name]
    assert place[path[-1]] != value
    place[path[-1]] = value
    stated = {**record.metrics, **({path[1]: value} if path[0] == "metrics" and len(path) == 2 else {})}
    if path[:2] == ("metrics", "AP_C"):
        stated["AP_C"] = np.array([float("nan") if x is None else x for x in content["metrics"]["AP_C"]])
    return replace(record, metrics=stated, content={**content, "sha256": digest(content)})


EDITS = {
    **{f"metrics {name}": (("metrics", name), 0.123, name) for name in SHARES},
    **{f"best {name}": (("best_metrics", name), 0.123, f"{name} of the best epoch") for name in SHARES},
    "AP of a category": (("metrics", "AP_C", 1), 0.123, "AP_C[1]"),
    "AP that is none": (("metrics", "AP_C", 3), 0.123, "AP_C[3]"),
    "best AP": (("best_metrics", "AP_C", 1), 0.123, "AP_C[1] of the best epoch"),
    "categories": (("metrics", "categories_without_positives"), 3, "categories_without_positives"),
    "known share": (("known_share", "present"), 0.123, "the known share of present labels"),
    "known share, none": (("known_share", "absent"), None, "the known share of absent labels"),
    "best_epoch": (("best_epoch",), 7, "best_epoch"),
    "dropped images": (("dropped_images",), 5, "dropped_images"),
    "speed": (("cost", "images_per_second"), 1.5, "images_per_second"),
    "a word": (("metrics", "OP"), "much", "OP"),
}
"""Where a record is edited, what is written there, and how the number is named."""
