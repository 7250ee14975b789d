"""This module finds the labels and the mask that a record was made with, where its data set can be built here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.data import protocol
from mlrpl_bench.data.masks import FROM_FILE
from mlrpl_bench.models.hyperparameters import paths_of
from mlrpl_bench.models.registry import DatasetEntry
from mlrpl_bench.records.record import Record
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.study import Study
from mlrpl_bench.utils.errors import UserError

LABELS_OF = re.compile(r"(?P<train>[0-9a-f]+)-(?P<test>[0-9a-f]+)(?:-(?P<options>.*))?")
"""A setting's fingerprint has this form: hashes of two splits, and the data set's options that are not the usual."""

Report = Callable[[str, int, int], None]


class Truth(NamedTuple):
    """The truth holds what a record is compared with.

    Attributes:
        train_NC: the complete labels of the images that were trained on.
        test_NC: the complete labels of the images that were evaluated on.
        mask_NC: the known entries of the training labels; None where the mask is not to be had.
        no_mask: why the mask is not to be had, or "".
    """

    train_NC: NDArray[np.int8]
    test_NC: NDArray[np.int8]
    mask_NC: NDArray[np.bool_] | None
    no_mask: str = ""


class Labels:
    """This class gives the labels of records, and builds each data set once.

    Args:
        datasets: the registered data sets, by name.
        options: where data is, also by options of the data set that are paths, and the mask file of records that were
            trained under one; the rest is each record's.
        report: told about long preparations as (what, done, total).
    """

    def __init__(
        self, datasets: Mapping[str, DatasetEntry], options: Options, report: Report = lambda *_: None
    ) -> None:
        self.datasets, self.options, self.report = datasets, options, report
        self._studies: dict[tuple, Study | UserError] = {}

    def truth(self, record: Record) -> Truth:
        """Return the labels that a record was trained on and evaluated with.

        Raises:
            UserError: the data set cannot be built here, or has other images or labels here; the message says why.
        """
        cell, study = record.cell, self.study(record)
        if cell.setting.mask_scheme == FROM_FILE and self.options.mask_file is None:
            return Truth(study.train.labels_NC, study.test.labels_NC, None, "name their mask with --mask-file")
        try:
            mask_NC = study.masks(cell.ratio, cell.mask_seed)
        except UserError as error:
            return Truth(study.train.labels_NC, study.test.labels_NC, None, str(error))
        if protocol.mask_hash(mask_NC) != cell.mask_hash:
            reason = "the mask here is not the one that they were trained under"
            return Truth(study.train.labels_NC, study.test.labels_NC, None, reason)
        return Truth(study.train.labels_NC, study.test.labels_NC, mask_NC)

    def study(self, record: Record) -> Study:
        """Return the data set with the splits that a record was trained on and evaluated with.

        Raises:
            UserError: see `truth`.
        """
        setting = record.cell.setting
        place = (setting.dataset, setting.fingerprint, setting.evaluate_on, setting.mask_scheme, setting.bad_images)
        if place not in self._studies:
            try:
                self._studies[place] = self._build(record)
            except UserError as error:
                self._studies[place] = error
        found = self._studies[place]
        if isinstance(found, UserError):
            raise found
        if found.setting.fingerprint != setting.fingerprint:
            raise UserError(f"{setting.dataset} has other images or labels here than when they were trained")
        return found

    def _build(self, record: Record) -> Study:
        setting = record.cell.setting
        if setting.dataset not in self.datasets:
            raise UserError(f"{setting.dataset} is not registered; name its file with --plugin")
        from_file = setting.mask_scheme == FROM_FILE
        entry = self.datasets[setting.dataset]
        paths = paths_of(entry.cls.Options)  # of these a fingerprint says what lies there, and the user says where
        data = {name: value for name, value in _data_options(setting.fingerprint).items() if name not in paths}
        options = Options(
            data_root=self.options.data_root,
            weights="random",  # no network is needed
            device="cpu",
            data={**self.options.data, **data},
            evaluate_on=setting.evaluate_on,
            mask_scheme=Options.mask_scheme if from_file else setting.mask_scheme,
            mask_file=self.options.mask_file if from_file else None,
            on_bad_image=setting.bad_images,
        )
        return Study(entry, options, self.report)


def _data_options(fingerprint: str) -> dict[str, str]:
    """Return the data set's options that a fingerprint names.

    >>> _data_options("0f-1e-side=48-shapes=many")
    {'side': '48', 'shapes': 'many'}
    """
    found = LABELS_OF.fullmatch(fingerprint)
    if found is None or not found["options"]:
        return {}
    parts = re.split(r"-(?=[A-Za-z_]\w*=)", found["options"])
    return {name: value for name, _, value in (part.partition("=") for part in parts)}
