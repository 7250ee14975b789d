"""PASCAL VOC 2007: photographs with objects of 20 categories (Everingham et al., IJCV 2010,
http://host.robots.ox.ac.uk/pascal/VOC/voc2007/).

Train is the official trainval part, 5,011 images, test the official test part, 4,952. The two come as two archives
that unpack into one VOCdevkit/VOC2007; kept apart they are found as well, the test archive below ``VOCtest*/`` or
``VOCdevkit_test/``.

Order: rows as in ``ImageSets/Main/trainval.txt`` and ``test.txt``, columns alphabetical.

Peculiarities: an annotator marked some objects as difficult. By default such an object does not count, so a category
seen in an image only so is absent there, in training and in testing. With ``--set-data difficult=ignore`` it is
UNKNOWN: left out of the metric in testing; in training it is hidden already before the protocol hides labels, so it
stays unknown at every known ratio, and the share of known labels is a little lower than asked for. Numbers with the two
settings cannot be compared. Parts of a person (head, hand, foot) are no categories.

Differs from the reference: nothing with the default. Other benchmarks (ML-GCN among them) go by ``ignore``.

Licence: the photographs are from Flickr, and their use must respect Flickr's terms; see the data set's page.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench import ABSENT, PRESENT, UNKNOWN, Dataset, Split, UserError, parameter, register_dataset
from mlrpl_bench.data.dataset import PHOTOGRAPHS
from mlrpl_bench.data.file_lists import locate, read_list, refuse_missing

LISTS = {"train": "trainval", "test": "test"}
CATEGORIES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
KITS = (
    "VOCdevkit/VOC2007",
    "VOC2007",
    ".",
    "VOCtrainval*/VOCdevkit/VOC2007",
    "VOCtest*/VOCdevkit/VOC2007",
    "VOCdevkit_test/VOC2007",
)
"""Where below the root a kit may lie, a folder with ``ImageSets/``; the first one that has a split's list is read."""


@register_dataset("voc2007", preset=PHOTOGRAPHS["paper"], presets=PHOTOGRAPHS)
class VOC2007(Dataset):
    """PASCAL VOC 2007 from its development kit."""

    @dataclass(frozen=True)
    class Options(Dataset.Options):
        difficult: str = parameter(
            "absent", "what a category is that an image shows only as difficult", choices=("absent", "ignore")
        )

    expected_counts = MappingProxyType({"train": 5_011, "test": 4_952})
    expected_files = """\
ROOT/    (may be VOCdevkit/ or VOC2007/ itself)
  VOCdevkit/VOC2007/
    ImageSets/Main/trainval.txt, test.txt
    Annotations/*.xml
    JPEGImages/*.jpg
"""

    def load(self, root: Path, split: str) -> Split:
        """The split; every annotation must be there, the images are asked for by whoever reads them."""
        if split not in LISTS:
            raise UserError(f"voc2007 has no split {split!r}; there are: {', '.join(LISTS)}")
        kit = _find_kit(root, LISTS[split])
        list_file = _list_file(kit, LISTS[split])
        ids = read_list(list_file)
        image_paths = locate([f"{identity}.jpg" for identity in ids], [kit / "JPEGImages"], list_file)
        annotation_files = locate([f"{identity}.xml" for identity in ids], [kit / "Annotations"], list_file)
        refuse_missing(annotation_files, f"annotation files that {list_file} lists")

        assert isinstance(self.options, self.Options)
        difficult_only = {"absent": ABSENT, "ignore": UNKNOWN}[self.options.difficult]
        labels_NC = np.stack([read_labels(file, difficult_only) for file in annotation_files])
        return Split(ids, image_paths, labels_NC, CATEGORIES)


def read_labels(annotation_file: Path, difficult_only: int) -> NDArray[np.int8]:
    """The label of each category in one image: shape (C,), int8.

    Args:
        difficult_only: the state of a category of which all objects are difficult.

    Raises:
        UserError: the file is broken, of another year, or has no objects or unknown ones.
    """
    annotation = _parse(annotation_file)
    _refuse_other_year(annotation.findtext("folder", ""), annotation_file)
    objects = annotation.findall("object")
    if not objects:
        raise UserError(f"{annotation_file} has no <object>, every image of VOC 2007 has one; unpack the archive again")
    labels_C = np.full(len(CATEGORIES), ABSENT, dtype=np.int8)
    # The difficult objects first, so that one that is not difficult has the last word.
    for thing in sorted(objects, key=_is_difficult, reverse=True):
        name = thing.findtext("name", "").strip()
        if name not in CATEGORIES:
            raise UserError(
                f"{annotation_file} has an object {name!r}, which is no category of VOC 2007; unpack the archive again"
            )
        labels_C[CATEGORIES.index(name)] = difficult_only if _is_difficult(thing) else PRESENT
    return labels_C


def _is_difficult(thing: ET.Element) -> bool:
    return thing.findtext("difficult", "0").strip() == "1"


def _parse(annotation_file: Path) -> ET.Element:
    """The root element. A document type is refused: VOC has none, and its entities could expand without end."""
    try:
        text = annotation_file.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text:
            raise UserError(f"{annotation_file} declares a DOCTYPE, VOC's files have none; unpack the archive again")
        return ET.fromstring(text)
    except OSError as error:
        raise UserError(f"{annotation_file} cannot be read ({error.strerror}); check its permissions") from error
    except (UnicodeDecodeError, ET.ParseError) as error:
        raise UserError(f"{annotation_file} is cut short or no XML ({error}); unpack the archive again") from error


def _refuse_other_year(kit: str, annotation_file: Path) -> None:
    if re.fullmatch(r"VOC\d{4}", kit.strip()) and kit.strip() != "VOC2007":
        raise UserError(f"{annotation_file} is of {kit.strip()}; voc2007 needs VOC2007, point the root at that kit")


def _list_file(kit: Path, name: str) -> Path:
    return kit / "ImageSets" / "Main" / f"{name}.txt"


def _find_kit(root: Path, list_name: str) -> Path:
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; check the path of the data")
    kits = [kit for pattern in KITS for kit in ([root] if pattern == "." else sorted(root.glob(pattern)))]
    for kit in kits:
        if _list_file(kit, list_name).is_file():
            return kit
    half = [kit for kit in kits if (kit / "ImageSets").is_dir()]
    if half:
        raise UserError(
            f"no file {_list_file(half[0], list_name)}; the kit there lacks this part, unpack the archive "
            f"VOC{list_name}_06-Nov-2007.tar too"
        )
    other = [kit.name for pattern in ("VOC[0-9]*", "VOCdevkit/VOC[0-9]*") for kit in sorted(root.glob(pattern))]
    instead = f"there is {', '.join(other)} instead, another year" if other else "there is no VOCdevkit/VOC2007"
    raise UserError(f"no VOC 2007 in {root}: {instead}; unpack VOC{list_name}_06-Nov-2007.tar there")
