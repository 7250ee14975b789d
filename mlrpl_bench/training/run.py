"""This module trains one cell: it steps its method and optimiser, evaluates it, and collects what it leaves behind."""

from __future__ import annotations

import contextlib
import math
import time
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN, hide, known_share
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.models.finishing import FinishingStep, options_of_step
from mlrpl_bench.models.method import AVERAGED, RAW, Batch, Progress, Task
from mlrpl_bench.records.cell import Finished, Job, OtherWeights
from mlrpl_bench.training.parts import losses, optimizer, pseudo_labels
from mlrpl_bench.training.parts.averaged import AveragedWeights
from mlrpl_bench.training.parts.device import peak_memory
from mlrpl_bench.training.parts.examples import Examples
from mlrpl_bench.training.parts.finishing import HeadRefit, refuse_unless_linear
from mlrpl_bench.training.parts.position import refuse_impossible
from mlrpl_bench.training.workbench import SharedBatch, Workbench
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.randomness import generator_at, seed_of

MANY_LABELS = 1000
"""The logits of fewer test labels than this may all lie in [0, 1] by chance."""


class CellRun:
    """A cell's run holds its method, optimiser, labels and history while it trains; `trainer.train` calls it.

    Raises:
        UserError: there are fewer training images than one batch takes.
        Exception: whatever a method raises when it is built.
    """

    def __init__(self, job: Job, workbench: Workbench) -> None:
        self.cell, self.workbench = job.cell, workbench
        train = workbench.splits["train"]
        assert train.word_vectors_CE is not None, "the caller fills in the fallback vectors"
        batch = self.cell.recipe.batch
        assert batch is not None, "the recipe is not resolved"
        if workbench.steps_per_epoch(batch) == 0:
            raise UserError(f"no batch of {batch} in {len(train)} training images; choose a smaller one with --batch")
        mask_NC = workbench.masks(self.cell.ratio, self.cell.mask_seed)
        known_NC = torch.from_numpy(hide(train.labels_NC, mask_NC))
        self.known_share = known_share(train.labels_NC, mask_NC)
        step, hidden_NC, held_N = self._finishing_step(job, known_NC)
        self.labels_NC = hidden_NC.to(workbench.fabric.device)
        shown = self.cell.ratio * float((train.labels_NC != UNKNOWN).mean()) * (1 - float(held_N.double().mean()))
        task = Task(train.categories, hidden_NC, shown, torch.from_numpy(train.word_vectors_CE))
        # Built on the CPU from the seed alone, so that initial weights depend on neither order nor device.
        torch.manual_seed(seed_of("weights", self.cell.seed))
        self.method = job.method_class(workbench.backbone.for_one_method(), task, job.hyperparameters)
        self.strong_view = self.method.strong_view()
        self.method.to(workbench.fabric.device).to(memory_format=torch.channels_last)
        self.refit = self._refit(step, known_NC, held_N)
        if workbench.compiled:
            for part in self.method.parts_to_compile():
                part.compile()
        self.optimizer, self.base_rates = optimizer.build(self.method, self.cell.recipe)
        self.averaged: AveragedWeights | None = None
        """This is the moving average of the weights, from the first epoch on, if the recipe has one."""

        self.other_weights: OtherWeights | None = None
        self.history: list[dict[str, float]] = []
        self.steps: list[dict[str, float]] = []
        self.best: tuple[int, dict[str, Any]] = (-1, {"mAP": -1.0})
        self.training_seconds = 0.0
        self.threads = [torch.get_num_threads()]
        self.terms: list[dict[str, Tensor]] = []
        self.examples = Examples(len(workbench.splits["test"]))

    def _finishing_step(self, job: Job, known_NC: Tensor) -> tuple[FinishingStep | None, Tensor, Tensor]:
        """Return the step that follows the method, the labels that the method sees, and the rows without any of them.

        Without a step that is what the mask left known.
        """
        kind = job.method_class.finishing
        if kind is None:
            return None, known_NC, torch.zeros(len(known_NC), dtype=torch.bool)
        if self.workbench.compiled:
            raise UserError(f"{self.cell.method} has a step after training, which --compile rules out; leave it out")
        step = kind(options_of_step(kind, job.hyperparameters))
        held_N = step.held_out(len(known_NC), self.cell.seed)
        return step, known_NC.masked_fill(held_N[:, None], UNKNOWN), held_N

    def _refit(self, step: FinishingStep | None, known_NC: Tensor, held_N: Tensor) -> HeadRefit | None:
        """Return the refit of the method's last layer, once it is sure that there is such a layer.

        Raises:
            UserError: there is none, and a training would end in vain.
        """
        if step is None:
            return None
        device, size = self.workbench.fabric.device, self.cell.setting.image_size
        refit = HeadRefit(self.method, step, known_NC.to(device), held_N.to(device))
        self.method.eval()
        with torch.no_grad(), self.workbench.fabric.autocast():
            frozen_2DHW = self.workbench.backbone.frozen(torch.zeros(2, 3, size, size, device=device))
        refuse_unless_linear(self.method, refit.head, frozen_2DHW)
        return refit

    def gather(self, shared: SharedBatch) -> None:
        """Keep what the last layer is given for a batch of training images, for the step that follows the training."""
        assert self.refit is not None
        with self._weights(self.cell.recipe.scored):
            self.refit.gather(shared.frozen_BDHW, shared.index_B)

    def end_gathering(self) -> None:
        """Let the step refit the categories whose features were gathered."""
        assert self.refit is not None
        with self._weights(self.cell.recipe.scored):
            self.refit.end_pass()

    def end_refit(self) -> None:
        """Put the refitted weights into the last layer, and the step's scalars into the history's last row."""
        assert self.refit is not None
        with self._weights(self.cell.recipe.scored):
            self.refit.put_back()
        self.history[-1] |= {f"scalar.{name}": float(value) for name, value in self.refit.step.scalars().items()}

    def state(self) -> dict[str, Any]:
        """Return everything that training goes on from, after a step: plain data and tensors, see `checkpoint`.

        The state is taken between two steps; what a method keeps outside its buffers and ``get_extra_state`` is not in
        it.
        """
        epoch, metrics_of_best = self.best
        return {
            "epoch": self.progress.epoch,
            "step": len(self.terms),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **({} if self.averaged is None else {"averaged": self.averaged.state()}),
            "history": self.history,
            "steps": self.steps,
            "terms": self.terms,
            "best": (epoch, {name: _plain(value) for name, value in metrics_of_best.items()}),
            "training_seconds": self.training_seconds,
            "threads": self.threads,
            "epoch_seconds": time.perf_counter() - self.epoch_start,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, in the middle of its epoch.

        Raises:
            ValueError: the state has an epoch and step that the cell cannot have, or an optimiser of other parameters.
            Exception: whatever a method raises for a state that is not its own.
        """
        recipe, workbench = self.cell.recipe, self.workbench
        assert recipe.epochs and recipe.batch
        refuse_impossible(state, recipe.epochs, workbench.steps_per_epoch(recipe.batch))
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        optimizer.refuse_foreign(self.optimizer)
        self.start_epoch(Progress(state["epoch"], recipe.epochs, 0, workbench.steps_per_epoch(recipe.batch)))
        if self.averaged is not None:
            self.averaged.restore(state["averaged"])
        device = workbench.fabric.device
        self.terms = [{name: loss.to(device) for name, loss in step.items()} for step in state["terms"]]
        self.history, self.steps = state["history"], state["steps"]
        epoch, metrics_of_best = state["best"]
        self.best = (epoch, {name: _from_plain(value) for name, value in metrics_of_best.items()})
        self.training_seconds = state["training_seconds"]
        self.threads = list(dict.fromkeys([*state["threads"], *self.threads]))
        self.epoch_start -= state["epoch_seconds"]

    def start_epoch(self, progress: Progress) -> None:
        """Begin an epoch, and put the method into training mode.

        Training mode is set here and nowhere else; evaluation and passes leave the method in eval mode. The trained
        part and the head use batch statistics; the shared frozen part always stays in eval mode.
        """
        self.method.train()
        self.progress = progress
        self.epoch_start = time.perf_counter()
        self.terms = []
        if self.cell.recipe.ema is not None and self.averaged is None:
            self.averaged = AveragedWeights(self.method, self.cell.recipe.decay(progress.steps_per_epoch))

    def step(self, shared: SharedBatch, progress: Progress) -> None:
        """Make one optimiser step.

        Losses stay on the device until the epoch ends, as reading them would stall a GPU.
        """
        factor = self.cell.recipe.rate_factor(progress)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        batch = self._batch(shared, "step", progress.epoch, progress.step)
        with self.workbench.fabric.autocast():
            terms = self.method.losses(batch, progress)
        if not terms:
            raise ValueError("losses() returned no terms")
        # Copied before the step, which changes a term that is a view of a parameter.
        kept = {name: loss.detach().clone() for name, loss in terms.items()}
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack([loss.float() for loss in terms.values()]).sum().backward()
        if self.cell.recipe.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.method.parameters(), self.cell.recipe.grad_clip)
        self.optimizer.step()
        self.method.after_step()
        if self.averaged is not None:
            self.averaged.update()
        self.terms.append(kept)

    def observe(self, shared: SharedBatch, progress: Progress, number: int) -> None:
        """Show the method one batch of a pass over the training set, with averaged weights if there are any.

        Args:
            number: the number of the batch in the pass, from 0.
        """
        batch = self._batch(shared, "pass", progress.epoch, number)
        with self._weights(AVERAGED), torch.no_grad(), self.workbench.fabric.autocast():
            self.method.observe(batch)

    def look_at_training_set(self, progress: Progress) -> None:
        """Make a whole pass over the training set for this cell alone, if its method wants one before this epoch."""
        if not self.method.passes(progress):
            return
        self.method.eval()
        assert self.cell.recipe.batch is not None
        for number, shared in enumerate(self.workbench.in_order("train", self.cell.recipe.batch)):
            self.observe(shared, progress, number)
        self.end_pass(progress)

    def end_pass(self, progress: Progress) -> None:
        """Tell the method that the pass is complete."""
        address = ("end of pass", self.cell.seed, progress.epoch)
        torch.manual_seed(seed_of("global", *address))
        self.method.end_pass(generator_at(*address))

    def logits_BC(self, shared: SharedBatch) -> Tensor:
        """Return the logits of one batch by the weights whose scores are the row's, as float32."""
        return self._logits_BC(shared, self.cell.recipe.scored)

    def other_logits_BC(self, shared: SharedBatch) -> Tensor:
        """Return the logits of one batch by the other weights, raw beside averaged ones or the other way round."""
        return self._logits_BC(shared, self._other)

    def _logits_BC(self, shared: SharedBatch, weights: str) -> Tensor:
        with self._weights(weights), torch.no_grad(), self.workbench.fabric.autocast():
            # Detached, as a view of a parameter keeps requires_grad even here.
            return self.method(shared.frozen_BDHW).detach().float()

    @property
    def _other(self) -> str:
        return RAW if self.cell.recipe.scored == AVERAGED else AVERAGED

    def _weights(self, which: str) -> contextlib.AbstractContextManager[None]:
        """Give the method its averaged weights for a while, if there are any and they are asked for."""
        if self.averaged is None or which == RAW:
            return contextlib.nullcontext()
        return self.averaged.in_use()

    def end_steps(self) -> None:
        """End the steps of an epoch: fetch the losses, check them, and add a row to the history.

        Raises:
            NonFiniteLoss: a loss is infinite or not a number; the message names the first term, epoch and step.
        """
        self.steps += losses.fetched(self.terms, self.progress.epoch)
        seconds = time.perf_counter() - self.epoch_start
        self.training_seconds += seconds
        recipe, progress = self.cell.recipe, self.progress
        row: dict[str, float] = {"epoch": progress.epoch, "learning_rate": recipe.lr * recipe.rate_factor(progress)}
        row |= {"seconds": seconds}
        of_epoch = self.steps[-progress.steps_per_epoch :]
        for name in dict.fromkeys(name for step in of_epoch for name in step):
            row[f"loss.{name}"] = float(np.mean([step[name] for step in of_epoch if name in step]))
        row |= {f"scalar.{name}": float(value) for name, value in self.method.scalars().items()}
        truth_NC, seen_NC = self.workbench.splits["train"].labels_NC, self.labels_NC.cpu().numpy()
        self.history.append(row | pseudo_labels.counts(self.method.pseudo_labels_NC(), seen_NC, truth_NC))

    def evaluate(self, scores_NC: NDArray[np.float32]) -> None:
        """Put the test metrics of this epoch into the history, and remember the best epoch.

        Raises:
            UserError: the scores are no logits, see `metrics.evaluate`.
        """
        labels_NC = self.workbench.splits["test"].labels_NC
        self.metrics = metrics.evaluate(scores_NC, labels_NC, surely_logits=not self._must_have_left_0_to_1(labels_NC))
        self.history[-1] |= {f"test.{name}": self.metrics[name] for name in metrics.REPORTED}
        if self.metrics["mAP"] > self.best[1]["mAP"]:
            self.best = (self.progress.epoch, self.metrics)

    def leave_unevaluated(self) -> None:
        """Put NaN into the history for the test metrics of this epoch."""
        self.history[-1] |= {f"test.{name}": math.nan for name in metrics.REPORTED}

    def evaluate_others(self, scores_NC: NDArray[np.float32]) -> None:
        """Keep the last epoch's test metrics of the weights that are not the row's.

        Args:
            scores_NC: the final logits on the test images by these weights.
        """
        labels_NC = self.workbench.splits["test"].labels_NC
        self.other_weights = OtherWeights(
            self._other, metrics.evaluate(scores_NC, labels_NC, surely_logits=True), scores_NC
        )

    def _must_have_left_0_to_1(self, labels_NC: NDArray) -> bool:
        """Tell whether scores that all lie in [0, 1] are surely probabilities, of which F1 would be nonsense.

        They are at the end of training, where most of many labels are absent: logits would be negative for these.
        """
        at_the_end = self.progress.epoch + 1 == self.cell.recipe.epochs
        mostly_absent = (labels_NC == PRESENT).sum() < (labels_NC == ABSENT).sum()
        return bool(at_the_end and labels_NC.size >= MANY_LABELS and mostly_absent)

    def finish(self, scores_NC: NDArray, train_scores_NC: NDArray, seconds: float, cells_in_group: int) -> Finished:
        """Return what the cell leaves behind.

        Args:
            scores_NC: the final logits on the test images.
            train_scores_NC: the final logits on the training images, with the test transform.
            seconds: the time that the group's training took.
            cells_in_group: how many cells were trained together.
        """
        num_train, batch = len(self.workbench.splits["train"]), self.cell.recipe.batch
        assert batch is not None
        trained_images = len(self.steps) * batch
        terms = sorted({name for step in self.steps for name in step})
        return Finished(
            cell=self.cell,
            history=self.history,
            steps={name: np.array([s.get(name, np.nan) for s in self.steps], dtype=np.float32) for name in terms},
            scores_NC=scores_NC,
            train_scores_NC=train_scores_NC,
            examples=self.examples.arrays(scores_NC),
            metrics=self.metrics,
            best_epoch=self.best[0],
            best_metrics=self.best[1],
            weights=self._kept_weights(),
            other_weights=self.other_weights,
            known_share=self.known_share,
            dropped_images=num_train % batch,
            seconds=seconds,
            images_per_second=trained_images / self.training_seconds,
            peak_memory_bytes=peak_memory(self.workbench.fabric.device),
            cells_in_group=cells_in_group,
            threads=tuple(self.threads),
        )

    def _kept_weights(self) -> dict[str, Any]:
        with self._weights(self.cell.recipe.scored):
            return {name: _kept(value) for name, value in self.method.state_dict().items()}

    def _batch(self, shared: SharedBatch, purpose: str, epoch: int, number: int) -> Batch:
        address = (purpose, self.cell.seed, epoch, number)
        # For what draws from the global generator all the same (dropout): seeded by the address, equal for every cell.
        torch.manual_seed(seed_of("global", *address))
        generator = generator_at(*address, device=shared.index_B.device)
        labels_BC = self.labels_NC[shared.index_B]
        strong = shared.strong.get(self.strong_view, (None, None))
        return Batch(shared.images_B3HW, shared.frozen_BDHW, labels_BC, shared.index_B, generator, *strong)

    def attend(self, shared: SharedBatch) -> None:
        """Keep where each category looks in those of a batch's test images that are examples."""
        wanted_B = self.examples.among(shared.index_B)
        if wanted_B is None:
            return
        with self._weights(self.cell.recipe.scored), torch.no_grad(), self.workbench.fabric.autocast():
            maps_BCHW = self.method.attention(shared.frozen_BDHW[wanted_B])
        self.examples.keep(maps_BCHW)


def _kept(value: Any) -> Any:
    """Return a part of a method's state on the CPU, which later training does not change.

    ``get_extra_state`` may give other things than tensors; these are copied.
    """
    return value.detach().cpu().contiguous() if isinstance(value, Tensor) else deepcopy(value)


def _plain(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _from_plain(value: Any) -> Any:
    return value.numpy() if isinstance(value, Tensor) else value
