"""Semantic-Aware Representation Blending for Multi-Label Image Recognition with Partial Labels (Pu et al., AAAI 2022).

On SSGRL's network, an unknown label is supplied by blending: the category's feature is mixed with the feature of
another image where the category is known to be present (instance-level, ILRB), or with a prototype of the category
(prototype-level, PLRB). The mixed feature is then as present as the share of what was mixed in.

Differs from the paper: the contrastive loss is averaged over a selection of pairs of known labels and warms up over
the first epoch, as in its code. Differs from the code: prototypes come from the test transform and every image; each
image draws its own (``prototype_per_batch`` gives the code's); K-means starts once, from a seed; a category with
fewer known positives than prototypes has fewer of them, and none takes no part; an image without an unknown label
stays as it is (the code overwrites the label of its first category).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlrpl_bench.backbones import Backbone
from mlrpl_bench.hyperparameters import parameter
from mlrpl_bench.layers.label_graph import ESTIMATORS, cooccurrence
from mlrpl_bench.layers.semantic_graph import SemanticGraphNetwork
from mlrpl_bench.losses import contrastive, partial_bce
from mlrpl_bench.method import Batch, Method, Progress, Recipe, Task
from mlrpl_bench.protocol import PRESENT, UNKNOWN
from mlrpl_bench.registry import register_method


@register_method(
    "sarb",
    paper="https://arxiv.org/abs/2203.02172",
    published="SARB",
    differs="contrastive loss as in the code; each image draws its prototype; guards for rare categories",
    default=True,
)
@register_method("ilrb", published="SARB ILRB-only (learned alpha)", prototype=False, contrastive=0.0)
@register_method("ilrb_fixed", prototype=False, contrastive=0.0, learned=False)
@register_method("plrb", published="SARB PLRB-only (learned beta)", instance=False)
@register_method("plrb_fixed", instance=False, learned=False)
@register_method("plrb_no_contrastive", instance=False, contrastive=0.0)
class SARB(Method):
    @dataclass(frozen=True)
    class Hyperparameters:
        instance: bool = parameter(True, "blend with another image of the batch (ILRB)")
        prototype: bool = parameter(True, "blend with prototypes (PLRB)")
        learned: bool = parameter(True, "train the coefficients alpha and beta; else they stay at 0.5")
        contrastive: float = parameter(0.05, "weight of the contrastive loss", low=0)
        absent_pairs: bool = parameter(True, "contrast pairs of images that both lack the category, too")
        start: int = parameter(5, "first epoch with blending, of the paper's 20", low=0, high=19)
        interval: int = parameter(5, "epochs between two rounds of K-means, of the paper's 20", low=1, high=20)
        prototypes: int = parameter(10, "prototypes per category", low=1)
        prototype_per_batch: bool = parameter(False, "draw one prototype index for the whole batch")
        samples: int = parameter(20_000, "largest number of features clustered per category", low=1)
        graph_estimator: str = parameter("reference", "how the label graph is counted", choices=ESTIMATORS)

    recipe = Recipe()

    prototypes_CKD: Tensor
    num_prototypes_C: Tensor
    mixed_shares: Tensor

    def __init__(self, backbone: Backbone, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, task, hyperparameters)
        graph_CC = cooccurrence(task.labels_NC, hyperparameters.graph_estimator)
        self.network = SemanticGraphNetwork(backbone, task.word_vectors_CE, graph_CC)
        if hyperparameters.instance:
            self.alpha = nn.Parameter(torch.tensor(0.5), requires_grad=hyperparameters.learned)
        if hyperparameters.prototype:
            self.beta = nn.Parameter(torch.tensor(0.5), requires_grad=hyperparameters.learned)
            num_categories = len(task.categories)
            prototypes_CKD = torch.zeros(num_categories, hyperparameters.prototypes, backbone.feature_width)
            self.register_buffer("prototypes_CKD", prototypes_CKD)
            self.register_buffer("num_prototypes_C", torch.zeros(num_categories, dtype=torch.int64))
        self.register_buffer("mixed_shares", torch.zeros(2))  # instance, prototype: mean over the epoch so far
        self._observed: list[tuple[Tensor, Tensor]] = []

    def forward(self, frozen_BDHW: Tensor) -> Tensor:
        return self.network(self.trained(frozen_BDHW))

    def attention(self, frozen_BDHW: Tensor) -> Tensor:
        return self.network.attention(self.trained(frozen_BDHW))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        options = self.hyperparameters
        features_BCD = self.network.features(self.trained(batch.frozen_BDHW))
        versions = {"partial_bce": (features_BCD, batch.labels_BC)}
        if progress.started(options.start):
            versions |= self._blended(features_BCD, batch, progress)
        # The head sees all versions as one batch; the backbone and the decoupling ran once.
        logits = self.network.head(torch.cat([features for features, _ in versions.values()])).chunk(len(versions))
        terms = {
            name: partial_bce(logits_BC, targets_BC)
            for (name, (_, targets_BC)), logits_BC in zip(versions.items(), logits, strict=True)
        }
        if options.contrastive:
            weight = options.contrastive * (progress.fraction_of_epoch() if progress.epoch == 0 else 1)
            pairs = contrastive(features_BCD, batch.labels_BC, batch.generator, options.absent_pairs)
            terms["contrastive"] = weight * pairs
        return terms

    def _blended(self, features_BCD: Tensor, batch: Batch, progress: Progress) -> dict[str, tuple[Tensor, Tensor]]:
        """Features and targets of each kind of blending."""
        versions, labels_BC = {}, batch.labels_BC
        shares = torch.zeros_like(self.mixed_shares)
        if self.hyperparameters.instance:
            self.alpha.data.clamp_(0, 1)
            mixed_BC = instance_choice(labels_BC)
            versions["instance"] = blend(features_BCD, features_BCD.flip(0), labels_BC, mixed_BC, self.alpha)
            shares[0] = mixed_BC.float().mean()
        if self.hyperparameters.prototype:
            self.beta.data.clamp_(0, 1)
            mixed_BC, index_B = prototype_choice(
                labels_BC, self.num_prototypes_C, batch.generator, self.hyperparameters.prototype_per_batch
            )
            # Images that draw nothing have a row of False: argmax gives them category 0, and blend ignores it.
            prototypes_BD = self.prototypes_CKD[mixed_BC.int().argmax(dim=1), index_B]
            versions["prototype"] = blend(features_BCD, prototypes_BD[:, None], labels_BC, mixed_BC, self.beta)
            shares[1] = mixed_BC.float().mean()
        self.mixed_shares.lerp_(shares, 1 / (progress.step + 1))
        return versions

    def passes(self, progress: Progress) -> bool:
        return self.hyperparameters.prototype and progress.due(
            self.hyperparameters.start, self.hyperparameters.interval
        )

    def observe(self, batch: Batch) -> None:
        features_BCD = self.network.features(self.trained(batch.frozen_BDHW))
        images_S, categories_S = torch.nonzero(batch.labels_BC == PRESENT, as_tuple=True)
        self._observed.append((features_BCD[images_S, categories_S].cpu(), categories_S.cpu()))

    def end_pass(self, generator: torch.Generator) -> None:
        from threadpoolctl import threadpool_limits

        options = self.hyperparameters
        features_SD, categories_S = (torch.cat(parts) for parts in zip(*self._observed, strict=True))
        self._observed.clear()
        self.prototypes_CKD.zero_()
        # With several threads the order of additions, and with it the result, changes from run to run.
        with threadpool_limits(1):
            for category in range(len(self.prototypes_CKD)):
                own_SD = features_SD[categories_S == category]
                centres_KD = cluster(own_SD, options.prototypes, options.samples, generator)
                self.prototypes_CKD[category, : len(centres_KD)] = centres_KD
                self.num_prototypes_C[category] = len(centres_KD)

    def scalars(self) -> dict[str, float | Tensor]:
        numbers: dict[str, float | Tensor] = {}
        if self.hyperparameters.instance:
            numbers |= {"alpha": self.alpha.detach(), "instance_mixed_share": self.mixed_shares[0]}
        if self.hyperparameters.prototype:
            numbers |= {"beta": self.beta.detach(), "prototype_mixed_share": self.mixed_shares[1]}
        return numbers


def blend(
    features_BCD: Tensor, others_BCD: Tensor, labels_BC: Tensor, mixed_BC: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Where `mixed_BC`, keep a share of the feature and take the rest from `others_BCD`, which show the category.

    The new target is the share taken, 1 - kept: a gradient reaches `kept` through the features and through it
    (the paper's equations 3, 4 and 7, 8). Elsewhere features and labels are unchanged.

    Returns:
        Features (B, C, D) and targets (B, C) in [-1, 1] for `partial_bce`.
    """
    taken_BC = torch.where(mixed_BC, 1 - kept, 0)
    targets_BC = torch.where(mixed_BC, taken_BC, labels_BC.to(taken_BC.dtype))
    return features_BCD + taken_BC[..., None] * (others_BCD - features_BCD), targets_BC


def instance_choice(labels_BC: Tensor) -> Tensor:
    """Which entries ILRB mixes: unknown ones whose category the partner image is known to have, bool (B, C).

    The partner is the image at the mirrored place of the batch; in a batch of odd size the middle one is its own.
    """
    return (labels_BC == UNKNOWN) & (labels_BC.flip(0) == PRESENT)


def prototype_choice(
    labels_BC: Tensor, num_prototypes_C: Tensor, generator: torch.Generator, per_batch: bool = False
) -> tuple[Tensor, Tensor]:
    """Which entry of each image PLRB mixes, and the index of the prototype that it takes.

    Each image draws one of its unknown categories that have prototypes, evenly; an image without any draws none.

    Args:
        per_batch: all images share one draw of the prototype (scaled to the number that their category has).

    Returns:
        bool (B, C) with at most one True a row, and int64 (B,).
    """
    eligible_BC = (labels_BC == UNKNOWN) & (num_prototypes_C > 0)
    draws_BC = torch.rand(labels_BC.shape, generator=generator, device=labels_BC.device)
    category_B = draws_BC.masked_fill(~eligible_BC, -1).argmax(dim=1)
    mixed_BC = torch.zeros_like(eligible_BC).scatter_(1, category_B[:, None], True) & eligible_BC

    num_B = num_prototypes_C[category_B]
    draw = torch.rand(1 if per_batch else len(labels_BC), generator=generator, device=labels_BC.device)
    # The product of a draw just below 1 can round up to the number itself.
    index_B = torch.minimum((draw * num_B).long(), num_B - 1).clamp(min=0)
    return mixed_BC, index_B


def cluster(features_SD: Tensor, num_centres: int, num_samples: int, generator: torch.Generator) -> Tensor:
    """K-means centres of at most `num_samples` features: (K, D) with K the smaller of `num_centres` and S."""
    from sklearn.cluster import KMeans

    order_S = torch.randperm(len(features_SD), generator=generator)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    if len(features_SD) == 0:
        return features_SD
    sample_SD = features_SD[order_S[:num_samples]].float().numpy()
    model = KMeans(min(num_centres, len(sample_SD)), n_init=1, random_state=seed)
    return torch.from_numpy(model.fit(sample_SD).cluster_centers_)
