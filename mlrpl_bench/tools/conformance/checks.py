"""This module checks what every method must do, also a user's own; ``test-method NAME`` and the tests run the checks.

The checks use a handful of random images and the small backbone, and take seconds.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlrpl_bench.data import protocol
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import MethodEntry, line_in_file
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.tools.conformance.global_draws import Watch
from mlrpl_bench.tools.conformance.sample import LARGE, NUM_CATEGORIES, PRESET, RATIO, Sample, Violation
from mlrpl_bench.training import checkpoint
from mlrpl_bench.training.trainer import Failed, Group, StepDone, train
from mlrpl_bench.utils.errors import one_line

THREADS = (2, 4)


def run(entry: MethodEntry, device: str = "cpu", precision: str = "32-true") -> Iterator[tuple[str, str | None]]:
    """Run every check on a method.

    Args:
        device: the device on which the method is trained, see `device.find_device`.
        precision: the number format in which it computes, see `options.PRECISIONS`.

    Yields:
        What is checked, as a sentence, and the problem in one line (None if there is none).
    """
    with tempfile.TemporaryDirectory() as folder:
        sample = Sample(entry, Path(folder), device, precision)
        for check in CHECKS:
            try:
                with torch.random.fork_rng(devices=[]):
                    check(sample)
                problem = None
            except Exception as error:  # a method may raise anything
                message = one_line(error)
                problem = (
                    message
                    if isinstance(error, Violation)
                    else f"{type(error).__name__}: {message}{line_in_file(entry.path, error)}"
                )
            yield (check.__doc__ or "").rstrip("."), problem


class Report(NamedTuple):
    """A report says what one check found.

    Attributes:
        check: what is checked, as a sentence.
        problem: what is wrong, in one line; None if nothing is.
        same_fault: the sentences of other checks that fail for the same reason.
    """

    check: str
    problem: str | None
    same_fault: tuple[str, ...] = ()


def reports(found: Iterable[tuple[str, str | None]]) -> list[Report]:
    """Return the results of the checks in order, each fault once: by the check that says most of it.

    A method that cannot be trained fails every check that trains it, with the same words after different beginnings.
    """
    found = list(found)
    problems = {check: problem for check, problem in found if problem is not None}
    faults: dict[str, list[str]] = {}
    for check, problem in problems.items():
        faults.setdefault(_fault(problem), []).append(check)
    shown: dict[str, Report] = {}
    for checks in faults.values():
        best = max(checks, key=lambda check: len(problems[check]))
        shown[best] = Report(best, problems[best], tuple(check for check in checks if check != best))
    return [shown.get(check, Report(check, problem)) for check, problem in found if problem is None or check in shown]


def _fault(problem: str) -> str:
    """Strip from a problem how the check met it, so that two checks with the same fault give the same text."""
    for beginning in ("a cell of the group failed: ", "training failed: ", "going on failed: "):
        problem = problem.removeprefix(beginning)
    return re.sub(r", line \d+$", "", problem)


def trains_without_failing(sample: Sample) -> None:
    """A short training run finishes with finite losses at every step."""
    scores_NC = sample.finished.scores_NC
    _require(bool(np.isfinite(scores_NC).all()), "test scores are not finite")


def gives_logits_of_the_right_shape(sample: Sample) -> None:
    """forward gives one float logit per image and category, for a single image too."""
    method = sample.run().method.eval()
    for size in (1, 3):
        batch = sample.batch(_labels(size))
        with torch.no_grad(), sample.fabric.autocast():
            logits_BC = method(batch.frozen_BDHW)
        expected = (size, NUM_CATEGORIES)
        _require(logits_BC.shape == expected, f"forward gave {tuple(logits_BC.shape)}, not {expected}")
        _require(logits_BC.is_floating_point(), f"forward gave {logits_BC.dtype}")


def gives_logits_and_no_probabilities(sample: Sample) -> None:
    """forward gives logits, not probabilities, which would lie in [0, 1] for whatever image."""
    method = sample.run().method.eval()
    frozen_BDHW = sample.batch(_labels(4)).frozen_BDHW.float()
    with torch.no_grad():  # no image gives maps of such sizes: a logit follows them out of [0, 1], a probability cannot
        scores_BC = torch.cat([method(sign * size * frozen_BDHW) for sign in (-1, 1) for size in (1, 10, 1000)])
    like_probabilities = bool((scores_BC >= 0).all() and (scores_BC <= 1).all() and scores_BC.any())
    _require(
        not like_probabilities, "all scores lie in [0, 1], as probabilities do; return what stands before the sigmoid"
    )


def scores_an_image_alone_as_in_a_batch(sample: Sample) -> None:
    """In eval mode an image's logits do not depend on the images beside it."""
    method = sample.run().method.eval()
    frozen_BDHW = sample.batch(_labels(4)).frozen_BDHW.float()
    with torch.no_grad():
        together_BC, alone_BC = method(frozen_BDHW), torch.cat([method(frozen_BDHW[i : i + 1]) for i in range(4)])
    _require(torch.allclose(together_BC.float(), alone_BC.float(), atol=1e-3), "logits depend on the batch")


def trains_every_parameter(sample: Sample) -> None:
    """Every trained parameter receives a gradient (but those that may lack one) and changes."""
    group = Group([sample.job()], sample.workbench())
    if group.failures:
        raise Violation(group.failures[0].reason)
    method = group.runs[0].method
    parameters = {name: p for name, p in method.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    reached: set[str] = set()
    for name, parameter in parameters.items():
        parameter.register_hook(lambda gradient, name=name: reached.add(name) if gradient.any() else None)
    for event in group.train():
        if isinstance(event, Failed):
            raise Violation(event.reason)
    without = sorted(set(parameters) - reached - set(method.may_lack_gradient))
    _require(not without, f"no gradient ever reached {', '.join(without)}")
    unchanged = sorted(name for name, p in parameters.items() if torch.equal(p, before[name]))
    _require(not unchanged, f"training left {', '.join(unchanged)} as it was")


def survives_a_batch_without_known_labels(sample: Sample) -> None:
    """A batch without any known label gives finite losses and gradients."""
    _one_step(sample, torch.full((4, NUM_CATEGORIES), UNKNOWN, dtype=torch.int8))


def survives_a_batch_of_known_labels_only(sample: Sample) -> None:
    """A batch without any unknown label gives finite losses and gradients."""
    _one_step(sample, _labels(4))


def survives_an_odd_batch(sample: Sample) -> None:
    """A batch with an odd number of images gives finite losses and gradients."""
    labels_BC = _labels(3)
    labels_BC[:, ::2] = UNKNOWN
    _one_step(sample, labels_BC)


def trains_on_complete_labels(sample: Sample) -> None:
    """At known ratio 1 it trains like at any other."""
    sample.train_alone(sample.workbench(), ratio=1.0)


def cannot_reach_hidden_labels(sample: Sample) -> None:
    """Other hidden labels give the same losses and scores to the bit."""
    train_split = sample.splits["train"]
    mask_NC = protocol.known_mask(train_split.labels_NC.shape, RATIO)
    other_NC = np.where(mask_NC, train_split.labels_NC, -train_split.labels_NC).astype(np.int8)
    other = sample.train_alone(sample.workbench(dataclasses.replace(train_split, labels_NC=other_NC)))
    # The trainer, which knows them, counts which pseudo-labels are right.
    same = _same_course(other, sample.finished, but=("seconds", "pseudo."))
    _require(same, "hidden labels changed the losses or scores")


def trains_in_a_group_as_alone(sample: Sample) -> None:
    """Trained beside another cell it gets the scores that it gets alone, to the bit."""
    events = list(train([sample.job(0.7), sample.job()], sample.workbench()))
    for event in events:
        if isinstance(event, Failed):
            raise Violation(f"a cell of the group failed: {event.reason}")
    last = events[-1]
    assert isinstance(last, Finished)
    _require(np.array_equal(last.scores_NC, sample.finished.scores_NC), "the other cell changed the scores")


def keeps_its_state_in_buffers(sample: Sample) -> None:
    """A new instance with the saved state gives the same scores."""
    run = sample.run()
    run.method.load_state_dict(sample.finished.weights)
    run.method.eval()
    scores = [run.logits_BC(shared) for shared in run.workbench.in_order("test", PRESET.batch)]
    same = np.array_equal(torch.cat(scores).cpu().numpy(), sample.finished.scores_NC)
    _require(same, "the saved state does not give the scores back")


def goes_on_exactly_from_a_checkpoint(sample: Sample) -> None:
    """Going on from a checkpoint gives the losses and scores of training without a break, to the bit."""
    job = sample.job()
    with tempfile.TemporaryDirectory() as folder:
        for event in train([job], sample.workbench()):
            if isinstance(event, Failed):
                raise Violation(f"training failed: {event.reason}")
            # In the second half, so that what starts late has started.
            if isinstance(event, StepDone) and (event.epoch, event.step) == (2, 2):
                checkpoint.write(Path(folder), job.cell, event.states()[job.cell])
                break
        state = checkpoint.read(Path(folder), job.cell)
    assert state is not None
    *_, last = train([job], sample.workbench(), {job.cell: state})
    if isinstance(last, Failed):
        raise Violation(f"going on failed: {last.reason}")
    assert isinstance(last, Finished)
    same = _same_course(last, sample.finished)
    _require(same, "losses or scores differ: keep what training needs in buffers or get_extra_state")


def draws_from_the_batchs_generator_only(sample: Sample) -> None:
    """The batch's generator, or the one given to end_pass, is the only randomness (but for dropout and new weights)."""
    expected = sample.finished  # first, as libraries that a method imports when it needs them may draw meanwhile
    watch = Watch(sample.fabric.device)
    with watch:
        with watch.inside("__init__"):  # the trainer seeds torch's generator for it
            group = Group([sample.job()], sample.workbench())
        if group.failures:
            raise Violation(group.failures[0].reason)
        watch.hooks_of(group.runs[0].method)
        *_, last = group.train()
    if isinstance(last, Failed):
        raise Violation(last.reason)
    if watch.found is not None:
        raise Violation(f"{watch.found}; draw from the batch's generator: torch.rand(3, generator=batch.generator)")
    assert isinstance(last, Finished)
    _require(
        _same_course(last, expected),
        "a second training gave other scores or losses: it draws from something else than the batch's generator, "
        "such as a generator of its own that is seeded anew each time",
    )


def gives_the_same_bits_on_several_threads(sample: Sample) -> None:
    """On two and on four threads the same training gives the same weights twice, to the bit."""
    folder = sample.folder / "large"
    folder.mkdir()
    large = Sample(sample.entry, folder, sample.fabric.device.type, sample.fabric._precision.precision, LARGE)
    before = torch.get_num_threads()
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            first, second = (large.weights_after_training() for _ in range(2))
            changed = sorted(name for name, value in first.items() if not torch.equal(value, second[name]))
            _require(
                not changed,
                f"with {threads} threads a second training gave other bits in {', '.join(changed)}: look for an "
                "operation that adds to repeated places in parallel, such as parameter[indices]; "
                "torch.nn.functional.embedding(indices, parameter) adds in order",
            )
    finally:
        torch.set_num_threads(before)


CHECKS: tuple[Callable[[Sample], None], ...] = (
    trains_without_failing,
    gives_logits_of_the_right_shape,
    gives_logits_and_no_probabilities,
    scores_an_image_alone_as_in_a_batch,
    trains_every_parameter,
    survives_a_batch_without_known_labels,
    survives_a_batch_of_known_labels_only,
    survives_an_odd_batch,
    trains_on_complete_labels,
    cannot_reach_hidden_labels,
    trains_in_a_group_as_alone,
    keeps_its_state_in_buffers,
    goes_on_exactly_from_a_checkpoint,
    draws_from_the_batchs_generator_only,
    gives_the_same_bits_on_several_threads,
)


def _same_course(one: Finished, other: Finished, but: tuple[str, ...] = ("seconds",)) -> bool:
    """Tell whether two trainings agree to the bit: in scores, every loss term at every step, and all that is logged.

    Args:
        but: beginnings of the history's columns that do not count.
    """
    same_losses = one.steps.keys() == other.steps.keys() and all(
        np.array_equal(losses, other.steps[name], equal_nan=True) for name, losses in one.steps.items()
    )
    # As text, in which not-a-number equals itself.
    logged = [
        [str((name, value)) for row in finished.history for name, value in row.items() if not name.startswith(but)]
        for finished in (one, other)
    ]
    return same_losses and logged[0] == logged[1] and np.array_equal(one.scores_NC, other.scores_NC)


def _one_step(sample: Sample, labels_BC: Tensor) -> None:
    """Require finite losses and gradients of one batch, early and late in training."""
    run = sample.run()
    for epoch in range(PRESET.epochs):
        run.look_at_training_set(Progress(epoch, PRESET.epochs, 0, 4))  # so that prototypes are there
        if epoch not in (0, PRESET.epochs - 1):
            continue
        run.method.train()
        with sample.fabric.autocast():
            losses = run.method.losses(sample.batch(labels_BC), Progress(epoch, PRESET.epochs, 1, 4))
        for name, loss in losses.items():
            _require(loss.shape == (), f"loss term {name!r} is no scalar but {tuple(loss.shape)}")
            _require(bool(loss.isfinite()), f"loss term {name!r} is {loss.item()}")
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        bad = [name for name, p in run.method.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        _require(not bad, f"the gradient of {', '.join(bad)} is not finite")
        run.method.zero_grad(set_to_none=True)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise Violation(problem)


def _labels(size: int) -> Tensor:
    """Make complete labels in which every category is present in one image and absent in another, if there are two."""
    image_B1, category_C = torch.arange(size)[:, None], torch.arange(NUM_CATEGORIES)
    return torch.where((image_B1 + category_C) % 2 == 0, PRESENT, ABSENT).to(torch.int8)
