"""Draws docs/reference.svg, the picture in README, from results/reference/scenes-five-ratios.csv.

Run it from the checkout after the reference table has changed:

    python docs/reference_figure.py
"""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mlrpl_bench.leaderboard.report.figures import COLOURS, DASHES, MARKERS

DOCS = Path(__file__).resolve().parent
TABLE = DOCS.parent / "results" / "reference" / "scenes-five-ratios.csv"
PICTURE = DOCS / "reference.svg"

METHODS = ("kggr", "sarb", "ssgrl", "asl", "partial_bce", "csl", "an")
"""One method of each family, from the highest to the lowest at 10 % known labels, as in the legend."""
UPPER_BOUND = "upper_bound"


def rows(table: Path = TABLE) -> dict[str, dict[str, str]]:
    """The rows of the reference table by method; a cell is found by its column's title, such as ``10 %``."""
    with table.open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def draw(table: Path = TABLE) -> bytes:
    """Draw mAP over the known ratio as an SVG; the same table gives the same bytes.

    The picture brings its own white ground, so that it can be read on dark pages too. Its description holds the
    SHA-256 of the table, by which a test sees whether the committed picture belongs to the committed table.
    """
    by_method = rows(table)
    ratios = [name for name in by_method[UPPER_BOUND] if name.endswith(" %")]
    settings = {"svg.hashsalt": PICTURE.name, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    with rc_context(settings):
        figure = Figure((7.6, 3.9), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        panel = figure.subplots()
        upper = float(by_method[UPPER_BOUND][ratios[-1]])
        panel.axhline(upper, color="#565d66", linestyle=":", linewidth=1.2, label=f"{UPPER_BOUND} (all labels known)")
        for slot, method in enumerate(METHODS):
            values = [float(by_method[method][ratio]) for ratio in ratios]
            spreads = [float(by_method[method][f"{ratio} std"]) for ratio in ratios]
            low, high = zip(*((v - s, v + s) for v, s in zip(values, spreads, strict=True)), strict=True)
            style = {"color": COLOURS[slot], "linestyle": DASHES[slot]}
            panel.plot(ratios, values, **style, marker=MARKERS[slot], markersize=5, linewidth=1.6, label=method)
            panel.fill_between(ratios, low, high, color=COLOURS[slot], alpha=0.12, linewidth=0)
        panel.set_xlabel("training labels that are known")
        panel.set_ylabel("mAP on the test images (percent)")
        panel.set_title("scenes: mean and standard deviation over 3 seeds", fontsize=10)
        panel.grid(axis="y", color="#d9dbd6", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right center", frameon=False)
        file = io.BytesIO()
        digest = hashlib.sha256(table.read_bytes()).hexdigest()
        metadata = {
            "Date": None,
            "Title": "mAP over known ratio",
            "Description": f"made from a table with SHA-256 {digest}",
        }
        figure.savefig(file, format="svg", metadata=metadata, facecolor="white")
    return file.getvalue()


if __name__ == "__main__":
    PICTURE.write_bytes(draw())
    print(f"wrote {PICTURE}")
