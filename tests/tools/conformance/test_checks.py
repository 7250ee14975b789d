"""Every check catches a method that was made to fail it (`tests/methods/test_every_method.py` has the good ones)."""

import dataclasses
import random
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mlrpl_bench.data.protocol import PRESENT, UNKNOWN
from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Method, ParameterGroup
from mlrpl_bench.tools.conformance import checks, sample
from tests.helpers.plain_method import Plain, entry_of

SENTENCES = [(check.__doc__ or "").rstrip(".") for check in checks.CHECKS]


def bce(logits_BC, labels_BC):
    return F.binary_cross_entropy_with_logits(logits_BC, (labels_BC == PRESENT).float(), reduction="none")


class LossTurnsInfinite(Plain):
    def losses(self, batch, progress):
        bad = float("inf") if (progress.epoch, progress.step) == (3, 2) else 0.0
        return {"partial_bce": super().losses(batch, progress)["partial_bce"] + bad}


class ScoresAreNotNumbers(Plain):
    def forward(self, frozen_BDHW):
        return super().forward(frozen_BDHW) if self.training else super().forward(frozen_BDHW) * float("nan")


class GivesNoLoss(Plain):
    def losses(self, batch, progress):
        return {}


class DropsTheBatchOfOne(Plain):
    def forward(self, frozen_BDHW):
        return super().forward(frozen_BDHW).squeeze(0)


class GivesDecisions(Plain):
    def forward(self, frozen_BDHW):
        return super().forward(frozen_BDHW) > 0


class GivesProbabilities(Plain):
    def forward(self, frozen_BDHW):
        return super().forward(frozen_BDHW).sigmoid()

    def losses(self, batch, progress):
        probabilities_BC = self(batch.frozen_BDHW)
        present_BC = (batch.labels_BC == PRESENT).float()
        return {"bce": F.binary_cross_entropy(probabilities_BC, present_BC)}


class ScoresWithAViewOfAParameter(Plain):
    """Correct, if useless: the same logits for every image, handed out without a copy."""

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.prior_C = torch.nn.Parameter(torch.linspace(-1, 1, task.labels_NC.shape[1]))

    def forward(self, frozen_BDHW):
        if self.training:
            return super().forward(frozen_BDHW) + self.prior_C
        return self.prior_C.expand(len(frozen_BDHW), -1)


class ReadsRepeatedRowsOfAParameter(Plain):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.rows_CD = torch.nn.Parameter(torch.zeros(task.labels_NC.shape[1], 48))

    def losses(self, batch, progress):
        terms = super().losses(batch, progress)
        features_BD = batch.frozen_BDHW.mean(dim=(2, 3))
        image_N, category_N = (batch.labels_BC != UNKNOWN).nonzero(as_tuple=True)
        scores_N = (features_BD[image_N] * self.rows_CD[category_N]).sum(dim=1)
        return terms | {"rows": F.softplus(scores_N).sum() / batch.labels_BC.numel()}


class ComparesTheImagesOfABatch(Plain):
    def forward(self, frozen_BDHW):
        logits_BC = super().forward(frozen_BDHW)
        return logits_BC - logits_BC.mean(0)


class NormalisesOverTheBatchWhenScoring(Plain):
    def train(self, mode=True):
        return super().train(True)


class HasAParameterForNothing(Plain):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.spare = nn.Parameter(torch.ones(2))


class CutsTheGradient(Plain):
    def forward(self, frozen_BDHW):
        return self.classifier(self.trained(frozen_BDHW).mean((2, 3)).detach())


class HoldsAParameterStill(Plain):
    def parameter_groups(self):
        return [
            ParameterGroup(list(self.trained.parameters())),
            ParameterGroup(list(self.classifier.parameters()), 0.0),
        ]


class DividesByTheNumberOfKnownLabels(Plain):
    def losses(self, batch, progress):
        known_BC = batch.labels_BC != UNKNOWN
        return {"bce": bce(self(batch.frozen_BDHW), batch.labels_BC)[known_BC].mean()}


class HasAnInfiniteGradientWhereNothingIsKnown(Plain):
    def losses(self, batch, progress):
        known_BC = (batch.labels_BC != UNKNOWN).float()
        return {"root": (bce(self(batch.frozen_BDHW), batch.labels_BC) * known_BC).sum().sqrt()}


class GivesALossForEachImage(Plain):
    def losses(self, batch, progress):
        return {"bce": bce(self(batch.frozen_BDHW), batch.labels_BC).mean(1)}


class AveragesOverUnknownLabels(Plain):
    def losses(self, batch, progress):
        logits_BC = self(batch.frozen_BDHW)
        unsure = logits_BC[batch.labels_BC == UNKNOWN].square().mean()
        return {"bce": partial_bce(logits_BC, batch.labels_BC), "unsure": unsure}


class PairsTheImagesOfABatch(Plain):
    def losses(self, batch, progress):
        one_BC, other_BC = self(batch.frozen_BDHW).split([len(batch.labels_BC) // 2] * 2)
        return {"bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC), "pairs": (one_BC * other_BC).mean()}


class TakesTheLogarithmOfTheUnknownShare(Plain):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.penalty = torch.tensor(1 - task.known_ratio).log()

    def losses(self, batch, progress):
        return {"bce": super().losses(batch, progress)["partial_bce"] + self.penalty}


class ReadsHiddenLabelsInTheTrainersFrame(Plain):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        frame = sys._getframe()
        while "workbench" not in frame.f_locals:
            frame = frame.f_back
        complete_NC = torch.from_numpy(frame.f_locals["workbench"].splits["train"].labels_NC)

        def losses(batch, progress):
            return {"bce": partial_bce(self(batch.frozen_BDHW), complete_NC[batch.index_B])}

        self.losses = losses


class DrawsFromPythonsRandom(Plain):
    def losses(self, batch, progress):
        return {"bce": super().losses(batch, progress)["partial_bce"] * random.random()}


class DrawsFromTorch(Plain):
    def losses(self, batch, progress):
        return {"bce": super().losses(batch, progress)["partial_bce"] * torch.rand(())}


class DrawsFromTorchInPlace(Plain):
    def observe(self, batch):
        torch.empty(2).normal_()

    def passes(self, progress):
        return progress.epoch == 1


class DrawsFromNumpy(Plain):
    def forward(self, frozen_BDHW):
        noise = np.random.normal() if self.training else 0.0
        return super().forward(frozen_BDHW) + noise


class DrawsFromNumpyForItsWeights(Plain):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.classifier.weight.data *= np.random.uniform()


class DrawsFromPythonAtTheEndOfAPass(Plain):
    def passes(self, progress):
        return progress.epoch == 2

    def end_pass(self, generator):
        random.shuffle([1, 2, 3])


class SeedsAGeneratorWithTheTime(Plain):
    def losses(self, batch, progress):
        generator = torch.Generator().manual_seed(time.time_ns())
        return {"bce": super().losses(batch, progress)["partial_bce"] * torch.rand((), generator=generator)}


class SeedsNumpyFromTheSystem(Plain):
    def losses(self, batch, progress):
        return {"bce": super().losses(batch, progress)["partial_bce"] * np.random.default_rng().uniform()}


class DrawsAsItShould(Plain):
    """Correct: initial weights from torch's generator, dropout, the batch's generator, and the one of a pass."""

    imported = False

    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.dropout = nn.Dropout()
        self.register_buffer("scale", torch.rand(()))

    def forward(self, frozen_BDHW):
        features_BD = self.dropout(self.trained(frozen_BDHW).mean((2, 3)))
        return self.classifier(F.dropout1d(features_BD, training=self.training))

    def losses(self, batch, progress):
        weight = 1 + self.scale + torch.rand((), generator=batch.generator)
        return {"bce": weight * super().losses(batch, progress)["partial_bce"]}

    def passes(self, progress):
        if progress.epoch == 1 and not type(self).imported:  # a library that draws when it is first imported
            type(self).imported = random.random() > 0
        return progress.epoch == 1

    def observe(self, batch):
        self.noise = torch.rand((), generator=batch.generator)

    def end_pass(self, generator):
        self.scale.copy_(torch.rand((), generator=generator) + self.noise)


class SharesStateWithOtherCells(Plain):
    steps = 0

    def losses(self, batch, progress):
        if (progress.epoch, progress.step) == (0, 0) and type(self).steps >= 16:
            type(self).steps = 0  # looks innocent when trained alone
        type(self).steps += 1
        return {"bce": super().losses(batch, progress)["partial_bce"] * (1 + type(self).steps)}


class ChangesWhatOthersAreGiven(Plain):
    def losses(self, batch, progress):
        return {"bce": partial_bce(self(batch.frozen_BDHW.mul_(0.5)), batch.labels_BC)}


class FailsBesideAnother(Plain):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        if task.known_ratio == 0.7:
            raise RuntimeError("not beside this one")


class KeepsStateOutsideBuffers(Plain):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.mean_CD = torch.zeros_like(self.classifier.weight)

    def after_step(self):
        self.mean_CD.lerp_(self.classifier.weight.detach(), 0.5)

    def forward(self, frozen_BDHW):
        features_BD = self.trained(frozen_BDHW).mean((2, 3))
        return self.classifier(features_BD) if self.training else features_BD @ self.mean_CD.T


class CountsItsSteps(Plain):
    count = 0

    def losses(self, batch, progress):
        self.count += 1
        return {name: loss / self.count for name, loss in super().losses(batch, progress).items()}


BAD = {
    checks.trains_without_failing: {
        LossTurnsInfinite: "'partial_bce' is inf at epoch 3, step 2",
        ScoresAreNotNumbers: "NaN",
        GivesNoLoss: "losses() returned no terms",
    },
    checks.gives_logits_of_the_right_shape: {
        DropsTheBatchOfOne: "forward gave (6,), not (1, 6)",
        GivesDecisions: "forward gave torch.bool",
    },
    checks.gives_logits_and_no_probabilities: {GivesProbabilities: "as probabilities do"},
    checks.gives_the_same_bits_on_several_threads: {
        ReadsRepeatedRowsOfAParameter: "gave other bits in rows_CD",
    },
    checks.scores_an_image_alone_as_in_a_batch: {
        ComparesTheImagesOfABatch: "logits depend on the batch",
        NormalisesOverTheBatchWhenScoring: "logits depend on the batch",
    },
    checks.trains_every_parameter: {
        HasAParameterForNothing: "no gradient ever reached spare",
        CutsTheGradient: "no gradient ever reached trained.body.0.weight, ",
        HoldsAParameterStill: "training left classifier.bias, classifier.weight as it was",
    },
    checks.survives_a_batch_without_known_labels: {
        DividesByTheNumberOfKnownLabels: "loss term 'bce' is nan",
        HasAnInfiniteGradientWhereNothingIsKnown: "the gradient of trained.body.0.weight, ",
        GivesALossForEachImage: "loss term 'bce' is no scalar but (4,)",
    },
    checks.survives_a_batch_of_known_labels_only: {AveragesOverUnknownLabels: "loss term 'unsure' is nan"},
    checks.survives_an_odd_batch: {PairsTheImagesOfABatch: "split_with_sizes"},
    checks.trains_on_complete_labels: {TakesTheLogarithmOfTheUnknownShare: "loss term 'bce' is -inf"},
    checks.cannot_reach_hidden_labels: {
        ReadsHiddenLabelsInTheTrainersFrame: "hidden labels changed the losses or scores",
    },
    checks.trains_in_a_group_as_alone: {
        DrawsFromPythonsRandom: "the other cell changed the scores",
        SharesStateWithOtherCells: "the other cell changed the scores",
        ChangesWhatOthersAreGiven: "the other cell changed the scores",
        FailsBesideAnother: "a cell of the group failed: RuntimeError: not beside this one",
    },
    checks.draws_from_the_batchs_generator_only: {
        DrawsFromTorch: "losses() draws from torch's global generator (rand); draw from the batch's generator",
        DrawsFromTorchInPlace: "observe() draws from torch's global generator (normal_)",
        DrawsFromNumpy: "forward() draws from numpy's global generator",
        DrawsFromNumpyForItsWeights: "__init__() draws from numpy's global generator",
        DrawsFromPythonsRandom: "losses() draws from Python's random",
        DrawsFromPythonAtTheEndOfAPass: "end_pass() draws from Python's random",
        SeedsAGeneratorWithTheTime: "a second training gave other scores or losses",
        SeedsNumpyFromTheSystem: "a second training gave other scores or losses",
    },
    checks.keeps_its_state_in_buffers: {KeepsStateOutsideBuffers: "the saved state does not give the scores back"},
    checks.goes_on_exactly_from_a_checkpoint: {CountsItsSteps: "losses or scores differ: keep what training"},
}
"""For each check the methods that it must report, and what it says of them."""


@pytest.mark.parametrize(
    ("check", "cls", "problem"),
    [
        pytest.param(check, cls, problem, id=f"{check.__name__}-{cls.__name__}")
        for check, bad in BAD.items()
        for cls, problem in bad.items()
    ],
)
def test_a_bad_method_is_reported_by_the_check_it_was_made_for(check, cls, problem, monkeypatch):
    monkeypatch.setattr(checks, "CHECKS", (check,))
    ((sentence, reported),) = checks.run(entry_of(cls))
    assert sentence == (check.__doc__ or "").rstrip(".")
    assert reported is not None and problem in reported


def test_every_check_has_a_bad_method_that_it_reports():
    assert set(BAD) == set(checks.CHECKS)


def test_repeated_rows_of_a_parameter_are_seen_by_the_check_of_threads_alone():
    found = dict(checks.run(entry_of(ReadsRepeatedRowsOfAParameter)))
    sentence = (checks.gives_the_same_bits_on_several_threads.__doc__ or "").rstrip(".")
    assert [check for check, problem in found.items() if problem is not None] == [sentence]


def test_every_check_is_run_and_told_in_a_sentence_of_its_own_and_threads_are_as_many_as_before():
    before = torch.get_num_threads()
    reports = list(checks.run(entry_of(Plain)))
    assert torch.get_num_threads() == before
    assert reports == [(sentence, None) for sentence in SENTENCES]
    assert len(set(SENTENCES)) == len(SENTENCES) and all(SENTENCES)


def test_a_method_that_fails_at_everything_does_not_stop_the_checks():
    class Fails(Method):
        def __init__(self, backbone, task, hyperparameters):
            raise LookupError("two\nlines")

    problems = [problem for _, problem in checks.run(entry_of(Fails))]
    assert len(problems) == len(SENTENCES)
    assert all(problem.endswith("LookupError: two lines") for problem in problems)


def test_a_methods_own_hyperparameters_are_used():
    asked = []

    class Asks(Plain):
        @dataclasses.dataclass(frozen=True)
        class Hyperparameters:
            width: int = 3

        def __init__(self, backbone, task, hyperparameters):
            asked.append(hyperparameters.width)
            super().__init__(backbone, task, hyperparameters)

    next(checks.run(dataclasses.replace(entry_of(Asks), settings={"width": 5})))
    assert asked == [5]


def test_the_checks_run_in_mixed_precision_too():
    assert {problem for _, problem in checks.run(entry_of(Plain), precision="bf16-mixed")} == {None}


def test_dropout_and_given_generators_pass_and_global_ones_stay_as_they_were(monkeypatch):
    monkeypatch.setattr(DrawsAsItShould, "imported", False)
    sentence = (checks.draws_from_the_batchs_generator_only.__doc__ or "").rstrip(".")
    monkeypatch.setattr(checks, "CHECKS", (checks.draws_from_the_batchs_generator_only, *checks.CHECKS))
    assert next(checks.run(entry_of(DrawsAsItShould))) == (sentence, None)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert {problem for _, problem in checks.run(entry_of(DrawsAsItShould))} == {None}
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]


def test_logits_that_are_a_view_of_a_parameter_can_be_scored():
    assert {problem for _, problem in checks.run(entry_of(ScoresWithAViewOfAParameter))} == {None}


def test_a_fault_is_named_once_by_the_check_that_says_most():
    found = [
        ("trains", "NonFiniteLoss: loss is nan"),
        ("shape", None),
        ("alone", "ValueError: other"),
        ("group", "a cell of the group failed: NonFiniteLoss: loss is nan"),
    ]
    assert checks.reports(found) == [
        checks.Report("shape", None),
        checks.Report("alone", "ValueError: other"),
        checks.Report("group", "a cell of the group failed: NonFiniteLoss: loss is nan", ("trains",)),
    ]


class KeepsPlainData(Plain):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        self.seen = state


def test_the_bits_of_a_method_that_keeps_plain_data_are_those_of_its_tensors(tmp_path):
    weights = sample.Sample(entry_of(KeepsPlainData), tmp_path).weights_after_training()
    assert weights and all(isinstance(value, torch.Tensor) for value in weights.values())
