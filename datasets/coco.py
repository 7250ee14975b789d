"""COCO: photographs of everyday scenes, 80 categories (Lin et al., ECCV 2014, https://cocodataset.org).

Train is the official train part and test the official validation part, since the labels of the official test part
are not public. Expected are 82,783 and 40,504 images for 2014, 118,287 and 5,000 for 2017
(``--set-data year=2017``). The two years share their photographs: 2017 is another division of the same ones, and
numbers of one year say nothing about the other's.

Order: rows as in the JSON's ``images`` list, columns by ascending category id (1 to 90 with gaps). Annotations may
be sorted by tools on their way; the list's order then differs, and with it the mask and the fingerprint.

Peculiarities: about one image in a hundred has no annotation and is kept, with every category absent. A crowd
annotation makes its category present. Some images are grey, which is the image reader's business.

Differs from the reference: nothing in ids, order or labels. The papers print 82,801 training images; the file
has 82,783.

Licence: CC BY 4.0 for the annotations; each photograph, from Flickr, has the licence that the JSON names for it. See
the data set's page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlrpl_bench import Dataset, Split, UserError, parameter, register_dataset
from mlrpl_bench.data import coco
from mlrpl_bench.data.dataset import PHOTOGRAPHS

PARTS = {"train": "train", "test": "val"}
COUNTS = {"2014": {"train": 82_783, "test": 40_504}, "2017": {"train": 118_287, "test": 5_000}}

EXPECTED_FILES = """\
ROOT/
  annotations/
    instances_train{year}.json
    instances_val{year}.json
  train{year}/*.jpg    (or images/train{year}/, or images/)
  val{year}/*.jpg      (or images/val{year}/, or images/)
"""


@register_dataset("coco", preset=PHOTOGRAPHS["paper"], presets=PHOTOGRAPHS)
class Coco(Dataset):
    """COCO's train part to learn from, its validation part to test on."""

    @dataclass(frozen=True)
    class Options(Dataset.Options):
        year: str = parameter("2014", "which division of the photographs", choices=tuple(COUNTS))

    expected_files = EXPECTED_FILES.format(year="2014")
    expected_counts = COUNTS["2014"]

    def __init__(self, options: Dataset.Options | None = None) -> None:
        super().__init__(options)
        assert isinstance(self.options, self.Options)
        self.year = self.options.year
        self.expected_files = EXPECTED_FILES.format(year=self.year)
        self.expected_counts = COUNTS[self.year]

    def load(self, root: Path, split: str) -> Split:
        """The split; `root` is the folder that holds ``annotations/``."""
        if split not in PARTS:
            raise UserError(f"coco has no split {split!r}; there are: {', '.join(PARTS)}")
        part = f"{PARTS[split]}{self.year}"
        annotation_file = root / "annotations" / f"instances_{part}.json"
        if not annotation_file.is_file():
            raise UserError(f"no file {annotation_file}; {self._what_to_do(root, PARTS[split])}")
        folders = [root / part, root / "images" / part, root / "images", root]
        return coco.read_with_images(annotation_file, folders)

    def _what_to_do(self, root: Path, part: str) -> str:
        if not root.is_dir():
            return f"there is no folder {root} at all, check the path of the data"
        for year in COUNTS:
            if (root / "annotations" / f"instances_{part}{year}.json").is_file():
                return f"the folder has the year {year} instead: add --set-data year={year}, or download {self.year}"
        return f"download annotations_trainval{self.year}.zip from cocodataset.org and unpack it in {root}"
